package spoke

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
	"timehub/spoke/roster"
)

// TestOldSession: a node that was killed does not wait until the session of its dead process ends; one whose name another disk holds does.
func TestOldSession(t *testing.T) {
	t.Parallel()
	w := newClusterWorld(t, 3, roster.Half)
	n := w.nodes[2]
	w.nodes[0].write("x", "a")
	n.write("x", "b")
	id := n.Identity()
	n.mu.Lock()
	before, err := json.Marshal(member{Disk: id.ID, Stream: n.cluster.ownRecord()})
	n.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	linger := func(value []byte) (end func()) { // a session whose process is dead
		t.Helper()
		ghost := w.store.Session(n.address)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- ghost.Run(ctx) }()
		if err := ghost.Join(ctx, memberGroup, n.address, value); err != nil {
			t.Fatal(err)
		}
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	n.kill()
	end := linger(before)
	n.start()
	want := map[hub.Key]string{n.write("x", "back"): "back"}
	n.waitFor("x", want)
	end() // it has nothing left to take along
	list, _, err := w.nodes[0].session.List(t.Context(), memberGroup)
	if err != nil || !slices.ContainsFunc(list, func(m coord.Member) bool { return m.Name == n.address }) {
		t.Errorf("the end of a dead session took the one of the living along: %v, %v", list, err)
	}

	n.kill()
	other, err := json.Marshal(member{Disk: "another", Stream: roster.Stream{Ordinal: 9}})
	if err != nil {
		t.Fatal(err)
	}
	end = linger(other)
	n.start()
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	if err := n.Join(ctx); err == nil {
		t.Error("a node took the name of one that lives on another disk")
	}
	end()
	n.write("x", "at last")
}
