package replicate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"timehub/hub"
)

// TestFollow: everything there is, then everything that comes, from each sort of source.
func TestFollow(t *testing.T) {
	for name, set := range map[string]func(*source){
		"our own": func(*source) {}, "without events": func(s *source) { s.events = false },
		"the original": func(s *source) { s.original = true }, "the original without events": func(s *source) { s.original, s.events = true, false },
	} {
		t.Run(name, func(t *testing.T) {
			s, g := newSource(t), newTarget(t)
			set(s)
			s.add(55)
			g.put("dst", s.URL+"/channel/src/")
			r, _ := g.start()
			g.equal("dst", s)
			g.eventually("live", func() bool { return g.status(r, "dst").State == Live })
			if got := s.count("bulk"); got != 3 {
				t.Errorf("%d bulk answers for 55 items in pages of 20", got)
			}
			for range 10 {
				s.add(3)
				g.equal("dst", s)
			}
			if st := g.status(r, "dst"); st.Items != 85 || st.LastItem != keyAt(84).String() || st.LagMillis != 0 || len(st.Gone) != 0 || st.LastError != "" {
				t.Errorf("%+v", st)
			}
			g.eventually("the marker follows the clock of the source", func() bool {
				g.mu.Lock()
				defer g.mu.Unlock()
				return g.markers["dst"] == horizon(85)
			})
		})
	}
}

// TestBadAnswers: a source that answers badly, now and then or for a while, and then well again. Nothing wrong is stored, nothing is left out.
func TestBadAnswers(t *testing.T) {
	const page = "<html><body>Please log in</body></html>"
	html := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, page)
	}
	status := func(code int) func(*source, http.ResponseWriter, *http.Request) {
		return func(_ *source, w http.ResponseWriter, _ *http.Request) { http.Error(w, page, code) }
	}
	keys := func(change func(all []string) []string) func(*source, http.ResponseWriter, *http.Request) {
		return func(s *source, w http.ResponseWriter, r *http.Request) {
			after, n := asked(s.t, strings.TrimPrefix(r.URL.Path, "/channel/src"))
			s.mu.Lock()
			items := following(s.items, after, n)
			s.mu.Unlock()
			uris := []string{}
			for _, i := range items {
				uris = append(uris, `"http://x/channel/src/`+i.key.String()+`"`)
			}
			fmt.Fprintf(w, `{"_links":{"uris":[%s]}}`, strings.Join(change(uris), ","))
		}
	}
	parts := func(change func(body string) string) func(*source, http.ResponseWriter, *http.Request) {
		return func(s *source, w http.ResponseWriter, r *http.Request) {
			after, n := asked(s.t, strings.TrimPrefix(r.URL.Path, "/channel/src"))
			s.mu.Lock()
			items := following(s.items, after, n)
			s.mu.Unlock()
			w.Header().Set("Content-Type", "multipart/mixed;boundary="+mark)
			fmt.Fprint(w, change(string(s.parts(items))))
		}
	}
	hang := func(_ *source, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "multipart/mixed;boundary="+mark)
		fmt.Fprintf(w, "--%s\r\nContent-Key: http", mark)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	for _, c := range []struct {
		kind, name string
		answer     func(*source, http.ResponseWriter, *http.Request)
		unharmful  bool // it is an answer that can be understood
	}{
		{"channel", "a page", func(_ *source, w http.ResponseWriter, _ *http.Request) { html(w) }, false},
		{"channel", "500", status(500), false},
		{"channel", "404", status(404), false},
		{"channel", "redirect", func(_ *source, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}, false},
		{"list", "a page", func(_ *source, w http.ResponseWriter, _ *http.Request) { html(w) }, false},
		{"list", "503", status(503), false},
		{"list", "404", status(404), false},
		{"list", "redirect", func(_ *source, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}, false},
		{"list", "no JSON", func(_ *source, w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"_links":{"uris":["http://`) }, false},
		{"list", "no end", func(_ *source, w http.ResponseWriter, r *http.Request) { // valid JSON, if it ever ended; nobody reads on behind maxList
			for sent := 0; r.Context().Err() == nil; sent += 1 << 20 {
				if sent > 4*maxList {
					t.Error("an endless list was read to its end")
					return
				}
				if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
					return
				}
			}
		}, false},
		{"list", "no keys", keys(func([]string) []string { return []string{`"http://x/channel/src/2021/99/99"`} }), false},
		{"list", "descending", keys(func(all []string) []string { all[0], all[1] = all[1], all[0]; return all }), false},
		{"list", "twice", keys(func(all []string) []string { all[1] = all[0]; return all }), false},
		{"list", "before the cursor", keys(func(all []string) []string {
			return append([]string{`"http://x/channel/src/2001/01/01/00/00/00/000/aaaaaa"`}, all...)
		}), false},
		{"list", "in the far future", keys(func(all []string) []string {
			return append(all[:1], `"http://x/channel/src/9001/01/01/00/00/00/000/aaaaaa"`)
		}), false},
		{"list", "too many", keys(func(all []string) []string {
			for i := range 30 {
				all = append(all, fmt.Sprintf(`"http://x/channel/src/%s"`, hub.NewKey(time.Now(), fmt.Sprintf("%06d", i))))
			}
			return all
		}), false},
		{"bulk", "a page", func(_ *source, w http.ResponseWriter, _ *http.Request) { html(w) }, true},
		{"bulk", "500", status(500), true},
		{"bulk", "406", status(406), true},
		{"bulk", "nothing", parts(func(string) string { return "--" + mark + "--" }), true},
		{"bulk", "503", status(503), false},
		{"bulk", "half", parts(func(b string) string { return b[:len(b)/2] }), false},
		{"bulk", "no end", parts(func(b string) string { return b[:len(b)-2] }), false},
		{"bulk", "cut in a head", parts(func(b string) string { return b[:strings.LastIndex(b, "Content-Key")+20] }), false},
		{"bulk", "another boundary", parts(func(b string) string { return strings.ReplaceAll(b, mark, "other") }), true},
		{"bulk", "wrong key", parts(func(b string) string {
			return strings.Replace(b, keyAt(25).String(), keyAt(25).String()[:24]+"zzzzzz", 1)
		}), false},
		{"bulk", "no key", parts(func(b string) string { return strings.Replace(b, "Content-Key", "X-Key", 3) }), true},
		{"bulk", "backwards", parts(func(b string) string {
			all := strings.Split(b, "--"+mark)
			if len(all) > 4 {
				all[1], all[2] = all[2], all[1]
			}
			return strings.Join(all, "--"+mark)
		}), false},
		{"bulk", "silence", hang, false},
		{"events", "a page", func(_ *source, w http.ResponseWriter, _ *http.Request) { html(w) }, true},
		{"events", "405", status(405), true},
		{"events", "500", status(500), false},
		{"events", "ends", func(_ *source, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, ": \n\n")
		}, false},
		{"events", "garbage", func(_ *source, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "id: garbage\ndata: x\n\n")
		}, false},
	} {
		t.Run(c.kind+" "+c.name, func(t *testing.T) {
			t.Parallel()
			s, g := newSource(t), newTarget(t)
			s.add(65)
			var left atomic.Int32
			left.Store(4)
			s.bad = func(w http.ResponseWriter, r *http.Request) bool {
				if kindOf(r) != c.kind || left.Add(-1) < 0 {
					return false
				}
				c.answer(s, w, r)
				return true
			}
			g.put("dst", s.URL+"/channel/src")
			stall := 5 * time.Second
			if c.name == "silence" {
				stall = 50 * time.Millisecond
			}
			r, _ := g.start(func(o *Options) { o.StallAfter = stall })
			g.equal("dst", s)
			g.eventually("it has answered badly", func() bool { return left.Load() < 3 || c.unharmful && left.Load() < 4 })
			s.add(3)
			g.equal("dst", s)
			if st := g.status(r, "dst"); !c.unharmful && (st.LastError == "" || st.LastErrorTime == "") {
				t.Errorf("the status does not tell: %+v", st)
			}
		})
	}
}

// TestWrongKeys: lists of keys that cannot be, although the items are there: nothing of them is taken.
func TestWrongKeys(t *testing.T) {
	for name, change := range map[string]func(items []sourceItem) []sourceItem{
		"backwards": func(items []sourceItem) []sourceItem { slices.Reverse(items); return items },
		"twice":     func(items []sourceItem) []sourceItem { return append(items, items[len(items)-1]) },
		"old": func(items []sourceItem) []sourceItem {
			return []sourceItem{{key: hub.NewKey(epoch.AddDate(-3, 0, 0), "aaaaaa"), body: []byte("old")}}
		},
		"far future": func([]sourceItem) []sourceItem {
			return []sourceItem{{key: hub.NewKey(time.Now().AddDate(0, 0, 2), "future"), body: []byte("wrong")}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, g := newSource(t), newTarget(t)
			s.add(15)
			var wrong atomic.Bool
			wrong.Store(true)
			s.bad = func(w http.ResponseWriter, r *http.Request) bool {
				kind := kindOf(r)
				if kind != "list" && kind != "bulk" || !wrong.Load() {
					return false
				}
				s.mu.Lock()
				after, _ := asked(s.t, strings.TrimPrefix(r.URL.Path, "/channel/src"))
				items := change(following(s.items, after, 10))
				s.mu.Unlock()
				if kind == "bulk" {
					s.bulk(w, items)
				} else {
					s.list(w, items, 15, false)
				}
				return true
			}
			g.put("dst", s.URL+"/channel/src")
			r, _ := g.start()
			g.eventually("it is refused", func() bool { return strings.Contains(g.status(r, "dst").LastError, errWrong.Error()) })
			g.mu.Lock()
			if len(g.order["dst"]) > 0 || g.markers["dst"] != oldest {
				t.Errorf("%v, complete up to %v", g.order["dst"], g.markers["dst"])
			}
			g.mu.Unlock()
			wrong.Store(false)
			g.equal("dst", s)
		})
	}
}

// TestSingles: items that the bulk answer leaves out are asked for one by one; only what the source itself denies is left out.
func TestSingles(t *testing.T) {
	s, g := newSource(t), newTarget(t)
	s.add(30)
	s.items[3].gone, s.items[19].gone, s.items[29].gone = true, true, true
	page := atomic.Int32{}
	s.bad = func(w http.ResponseWriter, r *http.Request) bool {
		if kindOf(r) != "item" || page.Add(1) > 3 {
			return false
		}
		switch page.Load() {
		case 1:
			http.Error(w, "busy", http.StatusServiceUnavailable)
		case 2:
			fmt.Fprint(w, "<html>")
		case 3:
			w.WriteHeader(http.StatusGone)
		}
		return true
	}
	g.put("dst", s.URL+"/channel/src")
	g.start()
	g.equal("dst", s)
}

// TestLying: an answer for one item that cannot be it is not taken for it.
func TestLying(t *testing.T) {
	for name, answer := range map[string]func(*source, http.ResponseWriter){
		"a page":      func(_ *source, w http.ResponseWriter) { fmt.Fprint(w, "<html>") },
		"another day": func(s *source, w http.ResponseWriter) { s.item(w, sourceItem{key: keyAt(100), body: []byte("wrong")}) },
		"too short": func(s *source, w http.ResponseWriter) {
			w.Header().Set("Creation-Date", hub.ISO(keyAt(1).Time()))
			w.Header().Set("X-Item-Length", "100")
			fmt.Fprint(w, "wrong")
		},
		"too long": func(s *source, w http.ResponseWriter) {
			w.Header().Set("Creation-Date", hub.ISO(keyAt(1).Time()))
			w.Header().Set("X-Item-Length", "1")
			fmt.Fprint(w, "wrong")
		},
		"a redirect": func(_ *source, w http.ResponseWriter) {
			w.Header().Set("Location", "/channel/src/"+keyAt(0).String())
			w.WriteHeader(303)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, g := newSource(t), newTarget(t)
			s.add(2)
			var asked atomic.Int32
			s.bad = func(w http.ResponseWriter, r *http.Request) bool {
				switch kindOf(r) {
				case "bulk":
					s.bulk(w, nil)
				case "item":
					if !strings.HasSuffix(r.URL.Path, keyAt(1).Hash()) || asked.Add(1) > 3 {
						return false
					}
					answer(s, w)
				default:
					return false
				}
				return true
			}
			g.put("dst", s.URL+"/channel/src")
			s.items[0].contentType, s.items[1].contentType = "text/plain", "text/plain"
			g.start()
			g.equal("dst", s)
		})
	}
}

// TestGreatItems: those that pass through memory, those that do not, and those of which the bulk answer has the index only.
func TestGreatItems(t *testing.T) {
	s, g := newSource(t), newTarget(t)
	great := func(n, size int, large bool) sourceItem {
		return sourceItem{key: keyAt(n), contentType: "application/x", body: []byte(strings.Repeat(fmt.Sprint(n), size)), large: large}
	}
	s.items = []sourceItem{great(0, 10, false), great(1, 1<<20, false), great(2, 2<<20, false), great(3, 9, false), great(4, 5<<20, true), great(5, 10, true), great(6, 7, false)}
	g.put("dst", s.URL+"/channel/src")
	g.start()
	g.equal("dst", s)

	// A source whose bulk answers hold everything.
	s2 := newSource(t)
	s2.items = []sourceItem{great(0, 3<<20, false), great(1, 3<<20+1, false), great(2, 3<<20-1, false)}
	g.put("two", s2.URL+"/channel/src")
	g.eventually("all are there", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.order["two"]) == 3
	})
	for n, large := range []bool{true, true, false} {
		if got := g.items["two"][keyAt(n)]; got.large != large || string(got.body) != string(s2.items[n].body) {
			t.Errorf("item %d: %d bytes, large %v", n, len(got.body), got.large)
		}
	}
}

// TestResume: whoever takes over goes on where the last one ended, and writes nothing twice.
func TestResume(t *testing.T) {
	s, g := newSource(t), newTarget(t)
	s.add(100)
	g.put("dst", s.URL+"/channel/src")
	_, stop := g.start()
	g.equal("dst", s)
	stop()
	lists := s.count("bulk")
	s.add(10)
	r, stop := g.start()
	g.equal("dst", s)
	if more := s.count("bulk") - lists; more != 1 {
		t.Errorf("%d bulk answers for 10 more items", more)
	}
	if st := g.status(r, "dst"); st.Items != 110 {
		t.Errorf("%+v", st)
	}
	stop()
	// The cursor is lost, or older than what was written: the keys tell.
	g.forget("dst")
	lists = s.count("bulk")
	g.start()
	s.add(1)
	g.equal("dst", s)
	if more := s.count("bulk") - lists; more != 1 {
		t.Errorf("%d bulk answers, all but one item were there", more)
	}
}

// TestGone: what the source has let go while nobody looked is named.
func TestGone(t *testing.T) {
	for name, set := range map[string]func(*source){
		"by age": func(s *source) { s.ttlDays = 1 }, "by number": func(s *source) { s.maxItems = 10 },
	} {
		t.Run(name, func(t *testing.T) {
			s, g := newSource(t), newTarget(t)
			set(s)
			s.original = true
			s.add(5)
			s.bad = func(w http.ResponseWriter, r *http.Request) bool { // its stable time stands still, so that the cursor stays at an item
				if kindOf(r) != "time" {
					return false
				}
				fmt.Fprintf(w, `{"stable":{"millis":%d}}`, keyAt(4).Millis())
				return true
			}
			g.put("dst", s.URL+"/channel/src")
			r, stop := g.start()
			g.equal("dst", s)
			g.eventually("live", func() bool { return g.status(r, "dst").State == Live })
			if st := g.status(r, "dst"); len(st.Gone) > 0 {
				t.Errorf("at the beginning nothing is gone: %+v", st)
			}
			stop()
			s.add(20)
			s.change(func() { s.items = s.items[15:] })
			r, stop = g.start()
			g.eventually("the rest is there", func() bool {
				g.mu.Lock()
				defer g.mu.Unlock()
				return len(g.order["dst"]) == 15
			})
			want := Range{From: keyAt(4).String(), To: keyAt(15).String()}
			for range 2 {
				if st := g.status(r, "dst"); len(st.Gone) != 1 || st.Gone[0] != want {
					t.Errorf("%+v, want %+v", st.Gone, want)
				}
				stop()
				r, stop = g.start()
				g.eventually("begun", func() bool { return g.status(r, "dst").State == Live })
			}
			stop()
		})
	}
}

// TestConfiguration: sources are set, exchanged, cleared; channels are deleted. Each takes effect at once, also while the source does not answer.
func TestConfiguration(t *testing.T) {
	first, second, g := newSource(t), newSource(t), newTarget(t)
	first.add(10)
	second.add(30)
	r, _ := g.start()
	g.put("dst", first.URL+"/channel/src")
	g.equal("dst", first)
	second.change(func() {
		for i := range second.items { // between those of the first, and after them
			second.items[i].key = hub.KeyAt(second.items[i].key.Millis()+500, second.items[i].key.Hash())
		}
	})
	g.put("dst", second.URL+"/channel/src")
	g.eventually("it has both", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.order["dst"]) == 40
	})
	if st := g.status(r, "dst"); st.Items != 30 {
		t.Errorf("%+v", st)
	}
	hung := make(chan struct{})
	second.change(func() { second.bad = func(_ http.ResponseWriter, r *http.Request) bool { <-hung; return true } })
	defer close(hung)
	second.CloseClientConnections()
	g.put("dst", "")
	g.eventually("it has stopped", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.followers) == 0
	})
	if _, ok := r.Status(t.Context(), g.channels["dst"]); ok {
		t.Error("an ordinary channel has a state of replication")
	}
	lists := first.count("list")
	g.put("dst", first.URL+"/channel/src")
	g.eventually("it goes on", func() bool { return first.count("list") > lists })
	g.remove("dst")
	g.eventually("its cursor is gone", func() bool {
		names, err := g.store.Session("looker").Names(context.Background(), cursorPrefix)
		return err == nil && len(names) == 0
	})
	for _, bad := range []string{"ftp://x/channel/y", "http://x/y", "http://x/channel/", "not a URL", "http://x/channel/y?z=1"} {
		g.put("odd", bad)
		g.eventually("it is refused: "+bad, func() bool {
			st := g.status(r, "odd")
			return st.State == Unusable && st.LastError != ""
		})
		g.put("odd", "") // or the next one would be met in the state of this one
		g.eventually("it is forgotten", func() bool { _, ok := r.Status(t.Context(), g.channels["odd"]); return !ok })
	}
}

// TestMany: several targets of one source.
func TestMany(t *testing.T) {
	s, g := newSource(t), newTarget(t)
	s.add(40)
	for i := range 10 {
		g.put(fmt.Sprint("dst", i), s.URL+"/channel/src")
	}
	g.start()
	s.add(5)
	for i := range 10 {
		g.equal(fmt.Sprint("dst", i), s)
	}
}

// TestStoreFails: our own store refuses; nothing is lost by it.
func TestStoreFails(t *testing.T) {
	s, g := newSource(t), newTarget(t)
	s.add(50)
	g.fail = hub.E(hub.Full, "the disk is full")
	g.put("dst", s.URL+"/channel/src")
	r, _ := g.start()
	g.eventually("the status says so", func() bool { return strings.Contains(g.status(r, "dst").LastError, "full") })
	g.mu.Lock()
	g.fail = nil
	g.mu.Unlock()
	g.equal("dst", s)
}

func TestSplitSource(t *testing.T) {
	for in, want := range map[string]string{
		"http://h/channel/a": "http://h a", "https://h:8/channel/a/": "https://h:8 a", "http://h/hub/one/channel/B-c_1": "http://h/hub/one B-c_1",
		"http://h/channel/channel/a": "http://h/channel a", "http://h/channel/a%62": "http://h ab",
	} {
		if base, name, err := splitSource(in); err != nil || base+" "+name != want {
			t.Errorf("%s: %q %q %v", in, base, name, err)
		}
	}
}

// TestShown: neither a log line nor an error says the password of a source.
func TestShown(t *testing.T) {
	for in, want := range map[string]string{
		"http://h/channel/a": "http://h/channel/a", "http://u:pw@h/channel/a": "http://u:xxxxx@h/channel/a", "ftp://u:pw@h/channel/a": "ftp://u:xxxxx@h/channel/a",
		"http://u:p w@h/channel/a": "xxxxx@h/channel/a", "u:pw@h/channel/a": "xxxxx@h/channel/a", "": "",
	} {
		if got := shown(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
		if _, _, err := splitSource(in); err != nil && strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("accepted")
	}
}

// TestGuard: a body of which nothing comes ends; one whose reader is slow does not.
func TestGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			go func() { // ends with the connection
				defer there.Close()
				in := bufio.NewReader(there)
				r, err := http.ReadRequest(in)
				if err != nil {
					t.Error(err)
					return
				}
				io.WriteString(there, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\na")
				if r.URL.Path == "/slow" {
					io.Copy(io.Discard, in)
				}
				io.WriteString(there, "b")
			}()
			return here, nil
		}
		const stall = 50 * time.Millisecond
		c := &http.Client{Transport: newGuard(dial, stall)}
		for path, ok := range map[string]bool{"/slow": false, "/fine": true} {
			resp, err := c.Get("http://127.0.0.1" + path) // of no proxy
			if err != nil {
				t.Fatal(err)
			}
			var b [1]byte
			if _, err := resp.Body.Read(b[:]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(4 * stall) // our own time
			n, err := resp.Body.Read(b[:])
			if (n > 0) != ok || errors.Is(err, context.Canceled) || !ok && !errors.Is(err, errStalled) {
				t.Errorf("%s: %v", path, err)
			}
			resp.Body.Close()
		}
	})
}
