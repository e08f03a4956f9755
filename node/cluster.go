package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"timehub/hub/coord"
	"timehub/spoke"
	"timehub/spoke/roster"
)

// Cluster reports whether the hub is one of several nodes.
func (c Config) Cluster() bool { return c.settings["hub.type"].Value == "aws" }

// consistentCluster decides whether this is a cluster, and gives the properties that then have other defaults their values.
func (c Config) consistentCluster() error {
	z, single := c.settings["zookeeper.connection"], c.settings["runSingleZookeeperInternally"]
	if z.Explicit() && !c.settings["hub.type"].Explicit() && single.Value == "" {
		if err := c.set("hub.type", "aws", "zookeeper.connection"); err != nil {
			return err
		}
	}
	if !c.Cluster() {
		return nil
	}
	var wrong []error
	if !c.settings["app.stable_seconds"].Explicit() {
		wrong = append(wrong, c.set("app.stable_seconds", "5", "hub.type"))
	}
	if shared := c.settings["storage.directory"].Value != ""; !c.settings["storage.type"].Explicit() && !shared {
		wrong = append(wrong, c.set("storage.type", "s3", "hub.type"))
	} else if c.settings["storage.type"].Value == "directory" && !shared {
		wrong = append(wrong, errors.New("storage.type=directory in a cluster needs storage.directory, a folder on a drive that all nodes share; or set storage.type=s3"))
	}
	if _, _, err := c.zooKeeper(); err != nil {
		wrong = append(wrong, err)
	}
	if err := c.consistentTLS(); err != nil {
		wrong = append(wrong, err)
	}
	if _, err := c.trusted(); err != nil {
		wrong = append(wrong, err)
	}
	if a := c.settings["cluster.address"].Value; a != "" {
		host, port, err := net.SplitHostPort(a)
		if err != nil || host == "" || !isPort(port) || coord.CheckName(a) != nil {
			wrong = append(wrong, fmt.Errorf("cluster.address is %q: it must be host:port, with the name or the address of a host, an IPv6 address in brackets", a))
		} else if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
			wrong = append(wrong, fmt.Errorf("cluster.address is %q: it must be the address at which the other nodes reach this one", a))
		}
	}
	return errors.Join(wrong...)
}

// isPort reports whether somebody can be called at a port of TCP.
func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// trusted reads cluster.trusted.
func (c Config) trusted() ([]netip.Prefix, error) {
	var all []netip.Prefix
	for s := range strings.SplitSeq(c.settings["cluster.trusted"].Value, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		if a, err := netip.ParseAddr(s); err == nil {
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("cluster.trusted holds %q: it must be a comma-separated list of IP addresses and networks, such as 10.1.0.0/16", s)
		}
		all = append(all, p)
	}
	return all, nil
}

// deaf is how often a node looks for changed configurations while it cannot be told of them; a single hub makes all changes itself.
func (n *Node) deaf() time.Duration {
	if !n.cfg.Cluster() {
		return 0
	}
	return 2 * time.Second
}

// clusterAddress is where the other nodes reach this one. The listener is there.
func (n *Node) clusterAddress() string {
	if a := n.cfg.Text("cluster.address"); a != "" {
		return a
	}
	host, port, err := net.SplitHostPort(n.address)
	if err != nil {
		return n.name()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = n.env.Host
	}
	return net.JoinHostPort(host, port)
}

// joins reports whether this node holds what is in Spoke, with the others. A read-only node of a cluster serves what is in long-term storage.
func (n *Node) joins() bool { return n.cfg.Cluster() && !n.cfg.Bool("hub.read.only") }

// clusterOptions make Spoke one of several.
func (n *Node) clusterOptions() *spoke.Cluster {
	rule := roster.Half
	if n.cfg.Text("spoke.quorum") == "majority" {
		rule = roster.Majority
	}
	return &spoke.Cluster{
		Node: n.clusterAddress(), Coordinator: n.parts.coordinator, Rule: rule, Dial: n.peerDial(), ForceAfter: n.cfg.Duration("cluster.force_close_seconds"),
		RepairRate: n.cfg.Int("cluster.repair_mb_per_second") * 1e6,
	}
}

const waitNodes = "the other nodes"

// joinCluster opens the doors for the other nodes and runs Spoke. What comes after it starts when this node is one of them and knows all that it has shown.
func (n *Node) joinCluster(ctx context.Context, ready func()) error {
	s := n.parts.spoke
	early, err := n.earlyRoutes()
	if err != nil {
		return err
	}
	n.use(early)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.Run(ctx) })
	g.Go(func() error {
		for said := time.Now(); ; { // until it has joined, or is found among those who left
			look, cancel := context.WithTimeout(ctx, time.Second)
			err := s.Join(look)
			cancel()
			switch {
			case err == nil:
				n.waits.done(waitNodes)
				ready()
				return nil
			case ctx.Err() != nil:
				return nil
			case s.Left():
				return n.left()
			}
			n.waits.on(waitNodes, err)
			if time.Since(said) > waitSay {
				said = time.Now()
				n.log.Warn("waiting for the other nodes", "err", err, "peers", s.Peers())
			}
		}
	})
	return g.Wait()
}
