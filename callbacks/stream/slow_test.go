package stream

import (
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"timehub/hub"
)

// notRead is how long a client reads nothing: its server has to have noticed by then, on a busy machine too.
const notRead = time.Second

// TestSlowClose: a client that was up to date, and then takes too little for too long, is told the last key that it was sent.
func TestSlowClose(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Patience = 150 * time.Millisecond })
	w.put("c")
	socket := w.ws("/channel/c/ws")
	keys := []hub.Key{w.post("c", "", "x")}
	socket.want(w.url("c", keys[0]))
	for range 3000 {
		keys = append(keys, w.post("c", "", "x"))
	}
	time.Sleep(notRead)
	last := keys[0]
	for i := 1; ; i++ {
		text, err := socket.next()
		var e *websocket.CloseError
		if errors.As(err, &e) {
			if e.Code != 1013 || e.Text != "too slow; last sent "+last.String() {
				t.Errorf("closed with %v; the last key was %v", e, last)
			}
			if i >= len(keys) {
				t.Error("it had been sent everything")
			}
			break
		}
		if err != nil || text != w.url("c", keys[i]) {
			t.Fatalf("message %d: %q, %v", i, text, err)
		}
		last = keys[i]
	}
	// It goes on from there, as far behind as it likes: it has not been up to date yet.
	again := w.ws("/channel/c/" + last.String() + "/ws")
	time.Sleep(notRead)
	for _, k := range keys {
		if last.Less(k) {
			again.want(w.url("c", k))
		}
	}
}

// TestSlowGap: with slow=gap it is told what it missed, exactly, and goes on.
func TestSlowGap(t *testing.T) {
	for _, query := range []string{"?slow=gap", "?slow=gap&payload=items"} {
		w := newWorld(t, func(o *Options) { o.Patience = 150 * time.Millisecond })
		w.put("c")
		socket := w.ws("/channel/c/ws" + query)
		keys := []hub.Key{w.post("c", "", "x")}
		if _, err := socket.next(); err != nil {
			t.Fatal(err)
		}
		for range 3000 {
			keys = append(keys, w.post("c", "", "x"))
		}
		time.Sleep(notRead)
		gaps := 0
		for i := 1; i < len(keys); {
			text, err := socket.next()
			if err != nil {
				t.Fatal(err)
			}
			var m struct {
				Gap struct {
					From, To string
					Count    int
				}
				Key string
			}
			switch {
			case !strings.HasPrefix(text, "{"):
				m.Key = strings.TrimPrefix(text, "http://"+w.addr+"/channel/c/")
			case json.Unmarshal([]byte(text), &m) != nil:
				t.Fatal(text)
			}
			if m.Key != "" {
				if m.Key != keys[i].String() {
					t.Fatalf("%d: %s", i, text)
				}
				i++
				continue
			}
			gaps++
			if m.Gap.From != keys[i].String() || m.Gap.Count < pageKeys || m.Gap.To != keys[i+m.Gap.Count-1].String() {
				t.Fatalf("after %d: %s", i, text)
			}
			i += m.Gap.Count
		}
		if gaps == 0 {
			t.Error("no gap")
		}
	}
}

// TestManyReaders: some of many readers stop reading. All others get everything, the writer is not held up, and memory stays bounded.
func TestManyReaders(t *testing.T) {
	readers, stopped, items := 500, 50, 600
	if os.Getenv("STREAM_FULL") != "" {
		readers, stopped = 5000, 500
	}
	w := newWorld(t, func(o *Options) { o.Patience, o.Stall = time.Hour, time.Hour })
	w.put("c")
	var all []client
	for range readers {
		all = append(all, w.ws("/channel/c/ws"))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	keys := make([]hub.Key, items)
	for i := range keys {
		keys[i] = w.post("c", "", "x")
	}
	writing := time.Since(began)
	var wg sync.WaitGroup
	for _, c := range all[stopped:] {
		wg.Go(func() {
			for i := range keys {
				if text, err := c.next(); err != nil || text != w.url("c", keys[i]) {
					t.Errorf("message %d is %q, %v", i, text, err)
					return
				}
			}
		})
	}
	wg.Wait()
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d items written in %v, read by %d in %v; heap %d KiB more", items, writing, readers-stopped, time.Since(began), (int64(after.HeapInuse)-int64(before.HeapInuse))>>10)
	for _, c := range all[:stopped] {
		c.ws.Close()
	}
	for w.open() > readers-stopped {
		if time.Since(began) > 4*patience {
			t.Fatalf("%d sockets are open", w.open())
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.post("c", "", "y")
	if _, err := all[readers-1].next(); err != nil {
		t.Error(err)
	}
}

// TestSeam: from long-term history into the present nothing is missed and nothing comes twice, while items move from the one store to the other.
func TestSeam(t *testing.T) {
	w := newWorld(t, nil)
	w.put("c")
	ch, err := w.svc.Channel(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	var keys []hub.Key
	write := func(n int) {
		for range n {
			keys = append(keys, w.post("c", "text/plain", "x"))
		}
	}
	move := func() { // all but the newest few
		all := w.short.All("c")
		all = all[:max(0, len(all)-50)]
		w.long.Archive(ch, all...)
		if len(all) > 0 {
			w.short.Sweep("c", all[len(all)-1].Key.After())
		}
	}
	write(500)
	move()
	day := "/channel/c/" + keys[0].Time().Format("2006/01/02")
	urls, bodies := w.ws(day+"/ws"), w.ws(day+"/ws?payload=items")
	later := w.events("/channel/c/" + keys[99].String() + "/events")
	var wg sync.WaitGroup
	const total = 3000
	var got [3][]string
	wg.Go(func() {
		for range total {
			text, err := urls.next()
			if err != nil {
				t.Error(err)
				return
			}
			got[0] = append(got[0], strings.TrimPrefix(text, "http://"+w.addr+"/channel/c/"))
		}
	})
	wg.Go(func() {
		for range total {
			text, err := bodies.next()
			if err != nil {
				t.Error(err)
				return
			}
			var m struct{ Key string }
			if err := json.Unmarshal([]byte(text), &m); err != nil {
				t.Error(err)
			}
			got[1] = append(got[1], m.Key)
		}
	})
	wg.Go(func() {
		for range total - 100 {
			e, _, err := later.next()
			if err != nil {
				t.Error(err)
				return
			}
			got[2] = append(got[2], strings.TrimPrefix(e.id, "http://"+w.addr+"/channel/c/"))
		}
	})
	for len(keys) < total {
		write(100)
		move()
	}
	wg.Wait()
	for i, from := range []int{0, 0, 100} {
		for j, k := range keys[from:] {
			if j >= len(got[i]) || got[i][j] != k.String() {
				t.Errorf("follower %d: item %d of %d is not what it should be", i, j, len(got[i]))
				break
			}
		}
	}
}
