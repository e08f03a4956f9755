package node

import (
	"context"
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
