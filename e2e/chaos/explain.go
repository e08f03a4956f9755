package chaos

import (
	"strings"
	"time"
)

// explain logs who does what when the run waits in vain: what each hub says of the webhooks, and what each ZooKeeper server has of sessions and leases.
func (r *Run) explain() {
	if err := r.rec.Flush(); err != nil {
		r.t.Log(err)
	}
	c := r.client("explain", 10*time.Second)
	for _, s := range r.sinks {
		for node := range r.s.Hubs {
			op := Op{Node: node, Path: "/webhook/" + s.proc}
			a, err := c.ask(r.t.Context(), &op, "GET", nil)
			r.t.Logf("%s at hub %d: %d %s %v", s.proc, node, a.status, strings.Join(strings.Fields(string(a.body)), " "), err)
		}
	}
	for i, z := range r.s.ZK {
		for _, word := range []string{"srvr", "dump"} {
			text, err := z.Ask(word)
			r.t.Logf("ZooKeeper %d, %s: %s %v", i, word, text, err)
		}
	}
}
