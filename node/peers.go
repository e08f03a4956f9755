package node

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/web"
)

const (
	peerDoors   = "/internal/spoke/"
	resolveTime = 2 * time.Second
	resolveKeep = 10 * time.Second // how long an address of a name counts, and how often an unknown caller makes us ask again
)

// addPeerDoors puts the doors of Spoke into a router, once there is one.
func (n *Node) addPeerDoors(rt *web.Router) {
	if s := n.parts.spoke; s != nil {
		s.Add(rt)
	}
}

// admitPeers keeps everybody from the doors of Spoke but the other nodes, who come from the addresses that the list names, whoever cluster.trusted names, and
// local callers. Whoever comes through a proxy is somebody else, wherever the proxy runs.
func (n *Node) admitPeers(r *http.Request, pattern string) error {
	if !strings.HasPrefix(pattern, peerDoors) || web.Local(r) {
		return nil
	}
	for name := range r.Header {
		if name == "Forwarded" || name == "Via" || strings.HasPrefix(name, "X-Forwarded-") {
			return hub.E(hub.Forbidden, "this is for the nodes of the cluster among themselves, not through a proxy")
		}
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err == nil && n.parts.peers.admit(r.Context(), n, from.Addr().Unmap()) {
		return nil
	}
	return hub.E(hub.Forbidden, "this is for the nodes of the cluster among themselves: %s is none of them; cluster.trusted can name further addresses", r.RemoteAddr)
}

// peers remembers from which addresses the other nodes come.
type peers struct {
	mu    sync.Mutex // guards what follows; not held while names are looked up
	names []string   // that known was made from
	known map[netip.Addr]bool
	asked time.Time
}

// admit reports whether an address is that of a node.
func (p *peers) admit(ctx context.Context, n *Node, from netip.Addr) bool {
	trusted, _ := n.cfg.trusted() // checked when it was set
	if slices.ContainsFunc(trusted, func(t netip.Prefix) bool { return t.Contains(from) }) {
		return true
	}
	names := n.parts.spoke.Peers()
	p.mu.Lock()
	fresh := slices.Equal(names, p.names) && (p.known[from] || time.Since(p.asked) < resolveKeep)
	ok := p.known[from]
	p.mu.Unlock()
	if fresh {
		return ok
	}
	known := map[netip.Addr]bool{}
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	for _, name := range names {
		host, _, err := net.SplitHostPort(name)
		if err != nil {
			continue
		}
		if a, err := netip.ParseAddr(host); err == nil {
			known[a.Unmap()] = true
			continue
		}
		all, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", host) // one that cannot be found is not let in
		for _, a := range all {
			known[a.Unmap()] = true
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names, p.known, p.asked = names, known, time.Now()
	return known[from]
}

// nodesGroup holds the nodes that are healthy.
const nodesGroup = "nodes"

// memberNote is what a node says of itself there.
type memberNote struct {
	Node string `json:"node"` // as in Hub-Node
}

// members remembers who was there when the coordinator answered last.
type members struct {
	mu    sync.Mutex // guards nodes
	nodes []string   // as in Hub-Node, sorted
}

func (m *members) set(nodes []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodes = nodes
}

func (m *members) get() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nodes
}

// runMembership says that this node is healthy, and looks who else is.
func (n *Node) runMembership(ctx context.Context, ready func()) error {
	c, name := n.parts.coordinator, n.clusterAddress()
	wake, stop := c.WatchMembers(nodesGroup)
	defer stop()
	own, err := json.Marshal(memberNote{n.name()})
	if err != nil {
		return err
	}
	n.parts.members.set([]string{n.name()})
	look := func() {
		list, _, err := c.List(ctx, nodesGroup)
		if err != nil { // those of before stay
			return
		}
		nodes, there := []string{n.name()}, false
		for _, m := range list {
			var note memberNote
			if m.Name == name {
				there = string(m.Value) == string(own)
			} else if json.Unmarshal(m.Value, &note) == nil {
				nodes = append(nodes, note.Node)
			}
		}
		slices.Sort(nodes)
		n.parts.members.set(slices.Compact(nodes))
		if !there {
			if err := c.Join(ctx, nodesGroup, name, own); err != nil && ctx.Err() == nil {
				n.log.Debug("this node could not be announced; it is tried again", "err", err)
			}
		}
	}
	look()
	ready()
	every := time.NewTicker(time.Second) // a session from before may hold the name
	defer every.Stop()
	for {
		select {
		case <-wake:
		case <-every.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if err := c.Leave(last, nodesGroup, name); err != nil { // it ends with the session anyway
				n.log.Debug("this node could not be taken off the list of nodes", "err", err)
			}
			return nil
		}
		look()
	}
}
