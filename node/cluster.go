package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"timehub/hub"
	"timehub/hub/coord"
	"timehub/hub/coord/zk"
	"timehub/spoke"
	"timehub/spoke/roster"
)

const (
	clusterRegister = "cluster/id"
	waitSay         = 10 * time.Second // how often the log says what a start is waiting for
	waitLook        = 200 * time.Millisecond
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
	if _, err := c.trusted(); err != nil {
		wrong = append(wrong, err)
	}
	if a := c.settings["cluster.address"].Value; a != "" {
		host, port, err := net.SplitHostPort(a)
		if err != nil || host == "" || port == "" || coord.CheckName(a) != nil {
			wrong = append(wrong, fmt.Errorf("cluster.address is %q: it must be host:port, with the name or the IPv4 address of a host", a))
		}
	}
	return errors.Join(wrong...)
}

// zooKeeper reads zookeeper.connection: the servers, and the node below which everything lies.
func (c Config) zooKeeper() (servers []string, root string, err error) {
	text := c.settings["zookeeper.connection"].Value
	list, chroot, _ := strings.Cut(text, "/")
	for s := range strings.SplitSeq(list, ",") {
		s = strings.TrimSpace(s)
		if host, port, err := net.SplitHostPort(s); err != nil || host == "" || port == "" {
			return nil, "", fmt.Errorf("zookeeper.connection is %q: it must be a comma-separated list of host:port", text)
		}
		servers = append(servers, s)
	}
	name := c.settings["app.name"].Value + "-" + c.settings["app.environment"].Value
	if coord.CheckName(name) != nil || strings.Contains(name, "/") {
		return nil, "", fmt.Errorf("%q, of app.name and app.environment, cannot be a name in ZooKeeper: letters, digits and ._-:@ can", name)
	}
	return servers, path.Join("/", chroot, name), nil
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

// coordinateCluster keeps the session with ZooKeeper. What comes after it starts when there is one.
func (n *Node) coordinateCluster(ctx context.Context, ready func()) error {
	servers, root, err := n.cfg.zooKeeper()
	if err != nil {
		return err
	}
	session := n.cfg.Duration("zookeeper.session.timeout")
	c, err := zk.New(zk.Options{
		Servers: servers, Root: root, Session: session, Name: n.clusterAddress(), Dial: n.env.Dial, Log: n.log.With("component", "zookeeper"),
	})
	if err != nil {
		return err
	}
	n.parts.coordinator = c
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Run(ctx) })
	g.Go(func() error {
		if n.waitZooKeeper(ctx, c) != nil {
			return nil
		}
		if granted := c.Granted(); granted > session {
			n.log.Warn("ZooKeeper gives longer sessions than asked for: jobs of a node that died stay where they were for that long; lower its tickTime",
				"asked", session, "granted", granted)
		}
		ready()
		return nil
	})
	return g.Wait()
}

// waitZooKeeper returns when ZooKeeper has answered.
func (n *Node) waitZooKeeper(ctx context.Context, c coord.Coordinator) error {
	said := time.Now()
	for {
		_, _, err := c.Get(ctx, clusterRegister)
		if err == nil || hub.Is(err, hub.NotFound) {
			return nil
		}
		if time.Since(said) > waitSay {
			said = time.Now()
			n.log.Warn("waiting for ZooKeeper", "connection", n.cfg.Text("zookeeper.connection"), "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(waitLook):
		}
	}
}

// clusterID is a name for what ZooKeeper holds: whoever finds another one has lost it, or asks the wrong servers.
func (n *Node) clusterID(ctx context.Context) (string, error) {
	for {
		id, _, err := n.parts.coordinator.Get(ctx, clusterRegister)
		if !hub.Is(err, hub.NotFound) {
			return string(id), err
		}
		var b [12]byte
		rand.Read(b[:])
		_, err = n.parts.coordinator.Set(ctx, clusterRegister, []byte(hex.EncodeToString(b[:])), 0)
		if err != nil && !hub.Is(err, hub.Conflict) {
			return "", err
		}
	}
}

// joins reports whether this node holds what is in Spoke, with the others. A read-only node of a cluster serves what is in long-term storage.
func (n *Node) joins() bool { return n.cfg.Cluster() && !n.cfg.Bool("hub.read.only") }

// clusterOptions make Spoke one of several.
func (n *Node) clusterOptions() *spoke.Cluster {
	rule := roster.Half
	if n.cfg.Text("spoke.quorum") == "majority" {
		rule = roster.Majority
	}
	return &spoke.Cluster{Node: n.clusterAddress(), Coordinator: n.parts.coordinator, Rule: rule, Dial: n.peerDial()}
}

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
				ready()
				return nil
			case ctx.Err() != nil:
				return nil
			case s.Left():
				return n.left()
			case time.Since(said) > waitSay:
				said = time.Now()
				n.log.Warn("waiting for the other nodes", "err", err, "peers", s.Peers())
			}
		}
	})
	return g.Wait()
}
