package node

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"timehub/hub"
	"timehub/hub/coord"
	"timehub/hub/coord/zk"
)

const (
	clusterRegister = "cluster/id"
	waitSay         = 10 * time.Second // how often the log says what a start is waiting for
	waitLook        = 200 * time.Millisecond
)

// zooKeeper reads zookeeper.connection: the servers, and the node below which everything lies.
func (c Config) zooKeeper() (servers []string, root string, err error) {
	text := c.settings["zookeeper.connection"].Value
	list, chroot, _ := strings.Cut(text, "/")
	for s := range strings.SplitSeq(list, ",") {
		s = strings.TrimSpace(s)
		if host, port, err := net.SplitHostPort(s); err != nil || host == "" || !isPort(port) {
			return nil, "", fmt.Errorf("zookeeper.connection is %q: it must be a comma-separated list of host:port", text)
		}
		servers = append(servers, s)
	}
	name := c.settings["app.name"].Value + "-" + c.settings["app.environment"].Value
	if coord.CheckName(name) != nil || strings.Contains(name, "/") {
		return nil, "", fmt.Errorf("%q, of app.name and app.environment, cannot be a name in ZooKeeper: letters, digits and ._-:@[] can", name)
	}
	return servers, path.Join("/", chroot, name), nil
}

// zkNames puts what has a counterpart in the original where that has it (spec 04 §11). The values are ours.
func zkNames() zk.Names {
	return zk.Names{
		Registers: map[string]string{
			"webhook": "GroupLastCompleted", "replicate/cursor": "ReplicatedLastUpdated", "archive/verified": "S3VerifierSingleLastVerified",
			"catalog/channels": "channels/cache", "catalog/webhooks": "webhooks/cache", shutdownRegister: "ShutdownManager",
		},
		Leases: map[string]string{
			"webhook": "WebhookLeader", "archive/lease/verifier": "S3VerifierSingleService", "archive/lease/lifecycle": "S3ConfigLock",
		},
		Groups: map[string]string{nodesGroup: "HubCluster", "spoke": "SpokeCluster"},
	}
}

var tlsFiles = []string{"zookeeper.tls.authority", "zookeeper.tls.certificate", "zookeeper.tls.key"}

// consistentTLS checks what the properties of TLS say together; the files are read at the start.
func (c Config) consistentTLS() error {
	if c.settings["zookeeper.tls"].Value != "true" {
		for _, name := range tlsFiles {
			if c.settings[name].Value != "" {
				return fmt.Errorf("%s is set, but zookeeper.tls is not true", name)
			}
		}
	}
	if (c.settings["zookeeper.tls.certificate"].Value == "") != (c.settings["zookeeper.tls.key"].Value == "") {
		return errors.New("zookeeper.tls.certificate and zookeeper.tls.key must be set both, or none of them")
	}
	return nil
}

// zooKeeperTLS reads what zookeeper.tls names; nil: plain.
func (c Config) zooKeeperTLS() (*tls.Config, error) {
	if !c.Bool("zookeeper.tls") {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if name := c.Text("zookeeper.tls.authority"); name != "" {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read zookeeper.tls.authority: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("zookeeper.tls.authority: %s holds no certificate in PEM", name)
		}
	}
	if name := c.Text("zookeeper.tls.certificate"); name != "" {
		pair, err := tls.LoadX509KeyPair(name, c.Text("zookeeper.tls.key"))
		if err != nil {
			return nil, fmt.Errorf("read zookeeper.tls.certificate and zookeeper.tls.key: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// coordinateCluster keeps the session with ZooKeeper. What comes after it starts when there is one.
func (n *Node) coordinateCluster(ctx context.Context, ready func()) error {
	servers, root, err := n.cfg.zooKeeper()
	if err != nil {
		return err
	}
	secure, err := n.cfg.zooKeeperTLS()
	if err != nil {
		return err
	}
	c, err := zk.New(zk.Options{
		Servers: servers, Root: root, Session: n.cfg.Duration("zookeeper.session.timeout"), Name: n.clusterAddress(), Dial: n.env.Dial, TLS: secure, Names: zkNames(),
		Log: n.log.With("component", "zookeeper"),
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
		ready()
		return nil
	})
	return g.Wait()
}

// waitZooKeeper returns when ZooKeeper has answered.
func (n *Node) waitZooKeeper(ctx context.Context, c coord.Coordinator) error {
	defer n.waits.done("ZooKeeper")
	said := time.Now()
	for {
		_, _, err := c.Get(ctx, clusterRegister)
		if err == nil || hub.Is(err, hub.NotFound) {
			return nil
		}
		n.waits.on("ZooKeeper", err)
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

// clusterID is a name for what ZooKeeper holds: whoever finds another one has lost it, or asks the wrong servers. A session that is lost meanwhile is
// waited for: it is no reason not to start.
func (n *Node) clusterID(ctx context.Context) (string, error) {
	said := time.Now()
	for {
		id, err := n.readClusterID(ctx)
		if err == nil {
			return id, nil
		}
		if time.Since(said) > waitSay {
			said = time.Now()
			n.log.Warn("waiting for ZooKeeper", "connection", n.cfg.Text("zookeeper.connection"), "err", err)
		}
		if !hub.Sleep(ctx, waitLook) {
			return "", context.Cause(ctx)
		}
	}
}

// readClusterID reads the name, or gives one.
func (n *Node) readClusterID(ctx context.Context) (string, error) {
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
