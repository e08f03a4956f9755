package spoke

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	spokelog "timehub/spoke/log"
)

// A write that is decided in the moment in which its time is up gets one answer, and the right one: who is told 503 after it was committed would find the
// item in stable answers.
func TestDecidedInTheLastMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, stop := started(t, memdisk.New(memdisk.Options{}), time.Now)
		defer stop()
		for _, c := range []struct {
			disk error
			ok   func(error) bool
		}{
			{nil, func(err error) bool { return err == nil }},
			{spokelog.ErrLost, func(err error) bool { return hub.Is(err, hub.Unavailable) && !errors.Is(err, errGivenUp) }},
		} {
			r := &request{channel: "a", done: make(chan error, 1)}
			n.mu.Lock()
			r.mark, r.key = n.minter.Mint()
			n.flight.add(r)
			n.mu.Unlock()
			n.board.mu.Lock() // keeps the committer between the decision and the answer
			if c.disk != nil {
				n.board.mu.Unlock()
				n.mu.Lock()
				r.state = givenUp
				n.mu.Unlock()
			} else {
				go n.synced(r, nil)
				for decided := false; !decided; time.Sleep(0) {
					n.mu.Lock()
					decided = r.state == committed
					n.mu.Unlock()
				}
			}
			n.giveUp(r)
			if len(r.done) > 0 {
				t.Errorf("answered: %v", <-r.done)
			}
			if c.disk != nil {
				n.synced(r, c.disk)
			} else {
				n.board.mu.Unlock()
			}
			if err := <-r.done; !c.ok(err) {
				t.Errorf("%v: answered: %v", c.disk, err)
			}
		}
	})
}

// The same without knowing the inside: syncs that take just as long as a write may. What is answered 503 is in no stable answer.
func TestSyncsThatTakeAsLongAsAWriteMay(t *testing.T) {
	doubtful, kept := 0, 0
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			d := memdisk.New(memdisk.Options{})
			n, stop := started(t, d, time.Now)
			defer stop()
			if _, err := n.Write(t.Context(), "a", []byte("x")); err != nil {
				t.Fatal(err)
			}
			d.Inject(memdisk.Rule{Ops: memdisk.OpSync, Name: "spoke/*.seg", Times: 1, Fault: memdisk.Fault{Delay: DefaultWriteTimeout}})
			k, err := n.Write(t.Context(), "a", []byte("y"))
			time.Sleep(time.Second)
			h, herr := n.Horizon(t.Context())
			keys := keysOf(t, n, all("a", true))
			if want := map[bool]int{true: 2, false: 1}[err == nil]; herr != nil || h.Less(k) || len(keys) != want {
				t.Errorf("%v, horizon %v, %v: %v", err, h, herr, keys)
			}
			if err == nil {
				kept++
			} else {
				doubtful++
			}
		})
	}
	t.Logf("%d were acknowledged, %d answered 503", kept, doubtful)
}
