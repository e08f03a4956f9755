package spoke

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"timehub/hub"
)

const joinLook = 20 * time.Millisecond

// Join waits until this node takes writes and can give stable answers: it is on the list, and its horizon has reached everything that its disk has shown
// before. Run must be running. When ctx ends, the error says what is missing. A node that is alone has joined.
func (n *Node) Join(ctx context.Context) error {
	c := n.cluster
	if c == nil {
		return nil
	}
	for {
		n.mu.Lock()
		wrong := c.writable()
		_, caughtUp := c.horizon()
		why := c.unreached()
		n.mu.Unlock()
		if wrong == nil && caughtUp {
			return nil
		}
		if !hub.Sleep(ctx, joinLook) {
			what := "it has not caught up with what it has shown before"
			if wrong != nil {
				what = strings.TrimSuffix(wrong.Error(), retryHint)
			}
			return tryAgain(fmt.Sprintf("this node has not joined the others: %s%s", what, why))
		}
	}
}

// unreached names the nodes that take no stream of this one, and what cannot be closed, and why. Under mu.
func (c *cluster) unreached() string {
	var b strings.Builder
	if c.notReached != "" {
		fmt.Fprintf(&b, "; %s", c.notReached)
	}
	for _, node := range slices.Sorted(maps.Keys(c.why)) {
		fmt.Fprintf(&b, "; %s: %s", node, c.why[node])
	}
	for _, node := range listed(c.rec) {
		if _, heard := c.clocks[node]; !heard && c.why[node] == "" && node != c.opt.Node {
			fmt.Fprintf(&b, "; %s has not answered yet", node)
		}
	}
	told := map[string]bool{} // all fail for one reason, mostly
	for _, why := range c.unclosed {
		if !told[why] {
			told[why] = true
			fmt.Fprintf(&b, "; what a node has left open cannot be closed: %s", why)
		}
	}
	return b.String()
}

// Peers are the addresses (Cluster.Node) of the other nodes: those on the list as it is known here, and those that have a session. They are sorted.
func (n *Node) Peers() []string {
	c := n.cluster
	if c == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []string
	for _, d := range c.rec.Disks {
		all = append(all, d.Node)
	}
	if c.rec.Next != nil {
		for _, d := range c.rec.Next.Disks {
			all = append(all, d.Node)
		}
	}
	for name := range c.members {
		all = append(all, name)
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(node string) bool { return node == c.opt.Node })
}

// Fresh reports whether this disk has never been one of a cluster's that writes.
func (n *Node) Fresh() bool {
	if n.cluster == nil {
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cluster.fresh
}

// Left reports whether this node was decommissioned and is off the list: it is not to join again before Return.
func (n *Node) Left() bool {
	c := n.cluster
	if c == nil {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return c.rec.Left(c.opt.Node)
}
