package log

import (
	"context"
	"errors"
	"testing"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
)

// What was said to be lost stays lost when the segment that says so fails in its turn, before it held anything, and nothing comes after it.
func TestLostStaysLost(t *testing.T) {
	for _, stopped := range []bool{true, false} {
		bubble(t, func(t *testing.T, d *memdisk.Disk) {
			opt := Options{Disk: d, MinFree: -1}
			l := mem(t, opt)
			kept := fill(l, 3)
			rule := memdisk.Rule{Ops: memdisk.OpSync, Name: "spoke/*.seg", Times: 1, Fault: memdisk.Fault{Err: errInjected, Effect: memdisk.All}}
			d.Inject(rule)
			if err := l.put(rec("a", 1, "lost")); !errors.Is(err, ErrLost) {
				t.Fatal(err)
			}
			// the successor is there; its first group fails too, and then no other segment can be begun
			d.Inject(rule)
			d.Inject(memdisk.Rule{Ops: memdisk.OpCreate, Fault: memdisk.Fault{Err: errInjected}})
			if err := l.Enqueue(&Batch{Records: []Record{rec("a", 2, "unknown")}, Done: func(error) {}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
			_ = l.Sweep(t.Context())
			if stopped {
				l.stop()
			}
			next := d.Restart(memdisk.ProcessKill, 1)
			if !stopped {
				l.stop()
			}
			l = mem(t, Options{Disk: next, MinFree: -1})
			if r, err := l.Get(context.Background(), "a", key(1, "000001")); !hub.Is(err, hub.NotFound) {
				t.Errorf("stopped %v: what was lost is there: %+v, %v", stopped, r, err)
			}
			for _, r := range kept {
				if _, err := l.Get(context.Background(), "a", r.Key); err != nil {
					t.Error(err)
				}
			}
			l.stop()
		})
	}
}
