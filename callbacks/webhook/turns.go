package webhook

import "sync"

// turns lets one after the other change something, by name. Across nodes the catalog's conditional writes decide; here it keeps a deletion from clearing up
// after its successor.
type turns struct {
	mu      sync.Mutex // guards waiting and the counts in it, for moments only
	waiting map[string]*turn
}

type turn struct {
	free  chan struct{} // holds one token while nobody has the turn
	count int           // who has it or waits for it
}

// take waits for the turn of a name and returns what gives it back.
func (t *turns) take(name string) (giveBack func()) {
	t.mu.Lock()
	one := t.waiting[name]
	if one == nil {
		one = &turn{free: make(chan struct{}, 1)}
		one.free <- struct{}{}
		t.waiting[name] = one
	}
	one.count++
	t.mu.Unlock()
	<-one.free
	return func() {
		one.free <- struct{}{}
		t.mu.Lock()
		defer t.mu.Unlock()
		if one.count--; one.count == 0 {
			delete(t.waiting, name)
		}
	}
}
