package spoke

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"timehub/e2e/memdisk"
	"timehub/e2e/memnet"
	"timehub/hub"
	"timehub/spoke/roster"
)

// directed plays one course of events on nodes in memory, in virtual time; nobody but play writes or reads.
func directed(t *testing.T, nodes int, rule roster.Rule, play func(t *testing.T, w *simWorld)) {
	synctest.Test(t, func(t *testing.T) {
		w := newSim(t, 1)
		w.rule = rule
		for range nodes {
			w.member()
		}
		defer func() {
			w.openLinks()
			for _, n := range w.nodes {
				n.end("stop")
			}
			close(w.over)
			for _, l := range w.doors {
				_ = l.Close()
			}
			for _, n := range w.nodes {
				n.net.Cut()
			}
			w.pumps.Wait()
			if bad := w.judge.verdict(); bad != "" {
				t.Error(bad)
			} else if *simTrace {
				t.Log(w.judge.story())
			}
		}()
		w.until("all are on the list", func() bool { r := w.list(); return r.Next == nil && len(r.Disks) == nodes })
		w.whole()
		play(t, w)
	})
}

// member makes a node with an empty disk and starts it.
func (w *simWorld) member() *simNode {
	n := &simNode{w: w, name: fmt.Sprintf("n%d:80", len(w.nodes)), net: memnet.New(), disk: memdisk.New(memdisk.Options{}), awake: closedChannel()}
	for _, m := range w.nodes {
		w.connect(n, m)
		w.connect(m, n)
	}
	w.nodes = append(w.nodes, n)
	n.start()
	return n
}

// until waits until ok says so, in virtual time.
func (w *simWorld) until(what string, ok func() bool) {
	w.t.Helper()
	for began := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 2*time.Minute {
			w.t.Fatalf("waited in vain: %s\n%s", what, w.dump())
		}
	}
}

// whole waits until every node that lives writes and gives stable answers.
func (w *simWorld) whole() {
	w.t.Helper()
	w.until("all write and give stable answers", func() bool {
		for _, n := range w.nodes {
			if n.node == nil {
				continue
			}
			n.node.mu.Lock()
			_, ok := n.node.cluster.horizon()
			ok = ok && n.node.cluster.writable() == nil
			n.node.mu.Unlock()
			if !ok {
				return false
			}
		}
		return true
	})
}

func (n *simNode) write(channel, data string) hub.Key {
	n.w.t.Helper()
	k, err := n.node.Write(n.w.t.Context(), channel, []byte(data))
	if err != nil {
		n.w.t.Fatalf("%s: %v", n.name, err)
	}
	return k
}

// stable is everything that the node says is stable; nil if it says nothing.
func (n *simNode) stable(channel string) *hub.Page {
	page, err := n.node.Keys(n.w.t.Context(), hub.Query{Channel: channel, From: hub.MinKey, To: hub.MaxKey, Stable: true})
	if err != nil {
		return nil
	}
	return &page
}

// past waits until the horizon of the node has passed a key.
func (n *simNode) past(k hub.Key) {
	n.w.t.Helper()
	n.w.until(n.name+" has "+k.String()+" below its horizon", func() bool {
		h, err := n.node.Horizon(n.w.t.Context())
		return err == nil && k.Less(h)
	})
}
