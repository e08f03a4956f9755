package spoke

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/hub"
	"timehub/spoke/roster"
)

// slow lets what one node sends arrive at 1.6 MB/s.
func (w *simWorld) slow(from *simNode) {
	for _, m := range w.nodes {
		w.setLink(from, m, true, 20*time.Millisecond)
	}
}

// A large item on a slow line holds up nobody: neither other writers on its node nor the horizon.
func TestLargeItemHoldsUpNobody(t *testing.T) {
	for _, parts := range []int{1, 900} {
		t.Run(fmt.Sprint(parts, " parts"), func(t *testing.T) {
			directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
				a := w.nodes[0]
				w.slow(a)
				large := make([][]byte, parts)
				for i := range large {
					large[i] = bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 8<<20/parts/2)
				}
				var wg sync.WaitGroup
				defer wg.Wait()
				began := time.Now()
				done := make(chan struct{})
				var key hub.Key
				wg.Go(func() {
					defer close(done)
					k, err := hub.Key{}, error(nil)
					if parts == 1 {
						k, err = a.node.Write(t.Context(), "large", large[0])
					} else {
						k, err = a.node.WriteBulk(t.Context(), "large", large)
					}
					if err != nil {
						t.Errorf("the large item: %v", err)
					}
					if took := time.Since(began); took < time.Second {
						t.Errorf("8 MiB took %v: the line is not slow", took)
					}
					key = k
				})
				small := 0
				for over := false; !over; {
					select {
					case <-done:
						over = true
					default:
					}
					at := time.Now()
					k := a.write("small", "x")
					if took := time.Since(at); took > 700*time.Millisecond {
						t.Errorf("a small item took %v beside a large one", took)
					}
					for _, n := range w.nodes {
						n.past(k)
					}
					if took := time.Since(at); took > 1500*time.Millisecond {
						t.Errorf("the horizons passed it after %v", took)
					}
					small++
				}
				if small < 3 {
					t.Errorf("only %d small items meanwhile", small)
				}
				for _, n := range w.nodes {
					n.past(key)
					for i := range large {
						k := key
						if parts > 1 {
							k = hub.BulkKey(key, i)
						}
						if item, err := n.node.Read(t.Context(), "large", k); err != nil || !bytes.Equal(item.Data, large[i]) {
							t.Fatalf("%s: %d bytes of part %d, %v", n.name, len(item.Data), i, err)
						}
					}
				}
			})
		})
	}
}

// A node that comes back while a large item is on its way to the others gets it at once, and not when its key is there: else its horizon would wait for all of it.
func TestLargeItemForOneThatComesBack(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		a, late := w.nodes[0], w.nodes[1]
		a.past(a.write("small", "x"))
		w.setLink(a, late, false, 0)
		time.Sleep(streamQuiet + 5*time.Second)
		for _, m := range w.nodes[2:] {
			w.setLink(a, m, true, 20*time.Millisecond)
		}
		done := make(chan hub.Key, 1)
		go func() {
			k, err := a.node.Write(t.Context(), "large", bytes.Repeat([]byte("large"), 8<<20/5))
			if err != nil {
				t.Error(err)
			}
			done <- k
		}()
		time.Sleep(200 * time.Millisecond)
		w.setLink(a, late, true, 20*time.Millisecond)
		key := <-done
		began := time.Now()
		late.past(key)
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("its horizon passed the item %v later", took)
		}
	})
}

// Large and small items, from all nodes, with lines that break: everything arrives whole, and nothing stays with the peers.
func TestLargeItemsOverBrokenLines(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		var mu sync.Mutex
		want := map[hub.Key]string{}
		var wg sync.WaitGroup
		for i, n := range w.nodes {
			w.slow(n)
			for j := range 3 {
				wg.Go(func() {
					for k := range 12 {
						data := strings.Repeat(fmt.Sprint(i, j, k, " "), 100+k*60_000*(j%2))
						key, err := n.node.Write(t.Context(), "x", []byte(data))
						if err != nil && !hub.Is(err, hub.Unavailable) {
							t.Errorf("%s: %v", n.name, err)
						}
						if err == nil {
							mu.Lock()
							want[key] = data
							mu.Unlock()
						}
						time.Sleep(100 * time.Millisecond)
					}
				})
			}
		}
		for i := range 6 {
			time.Sleep(700 * time.Millisecond)
			a, b := w.nodes[i%3], w.nodes[(i+1)%3]
			w.setLink(a, b, false, 0)
			time.Sleep(6 * time.Second)
			w.setLink(a, b, true, 20*time.Millisecond)
		}
		wg.Wait()
		if len(want) < 20 {
			t.Errorf("only %d items were taken", len(want))
		}
		for _, n := range w.nodes {
			for k, data := range want {
				n.past(k)
				if item, err := n.node.Read(t.Context(), "x", k); err != nil || string(item.Data) != data {
					t.Fatalf("%s: %d bytes, %v", n.name, len(item.Data), err)
				}
			}
			w.until("nothing is on its way", func() bool {
				n.node.mu.Lock()
				defer n.node.mu.Unlock()
				left := len(n.node.cluster.loads)
				for tl := range n.node.cluster.tails {
					left += tl.held + len(tl.offers) + len(tl.queue) + len(tl.there)
				}
				return left == 0
			})
		}
	})
}

// When too few take the bytes, the writer is told, and nothing was minted.
func TestLargeItemThatNobodyTakes(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		a := w.nodes[0]
		for _, m := range w.nodes[1:] {
			w.setLink(a, m, false, 0)
		}
		began := time.Now()
		key, err := a.node.Write(t.Context(), "x", make([]byte, 1<<20))
		if !hub.Is(err, hub.Unavailable) || key != (hub.Key{}) {
			t.Errorf("%v, %v", key, err)
		}
		if took := time.Since(began); took > 7*time.Second {
			t.Errorf("it took %v to say so", took)
		}
		w.openLinks()
		w.whole()
		k := a.write("x", "after")
		for _, n := range w.nodes {
			n.past(k)
			if page := n.stable("x"); page == nil || len(page.Keys) != 1 {
				t.Errorf("%s: %v", n.name, page)
			}
		}
	})
}

func TestPiece(t *testing.T) {
	g := &cargo{}
	var all []byte
	for i := range 300 {
		d := bytes.Repeat([]byte{byte(i)}, (i*7919)%1500)
		if i == 100 {
			d = bytes.Repeat([]byte("abc"), 100_000)
		}
		g.data, g.size, all = append(g.data, d), g.size+len(d), append(all, d...)
	}
	for at := 0; at < g.size; {
		p := g.piece(at)
		if want := min(64<<10, g.size-at); len(p) != want || !bytes.Equal(p, all[at:at+want]) {
			t.Fatalf("at %d: %d bytes, want %d", at, len(p), want)
		}
		at += len(p)
	}
}

// A queue that overflows is read from the disk again, from where the peer stands then, on the same connection; memory is bounded meanwhile.
func TestPeerFarBehind(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		a, c := w.nodes[0], w.nodes[2]
		w.setLink(a, c, true, 30*time.Millisecond) // 1 MB/s
		data := strings.Repeat("0123456789abcdef", 8<<10)
		var last hub.Key
		for range 1400 { // 175 MB at 12 MB/s
			last = a.write("x", data)
			time.Sleep(10 * time.Millisecond)
			a.node.mu.Lock()
			for tl := range a.node.cluster.tails {
				if tl.bytes > tailRoom {
					t.Fatalf("%d bytes wait for a peer", tl.bytes)
				}
			}
			a.node.mu.Unlock()
		}
		w.nodes[1].past(last)
		w.setLink(a, c, true, 0)
		c.past(last)
		if page := c.stable("x"); page == nil || len(page.Keys) != 1400 {
			t.Errorf("%v", page)
		}
	})
}
