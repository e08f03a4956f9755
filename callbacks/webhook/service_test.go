package webhook

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
)

func at(ms int64, hash string) hub.Key { return hub.KeyAt(testTime.UnixMilli()+ms, hash) }

// TestStart: where a webhook stands after it was made with, or without, a startItem.
func TestStart(t *testing.T) {
	const prefix = "http://hub.example/channel/orders/"
	for _, c := range []struct {
		name, extra string
		want        string // lastCompleted, below prefix
		kind        hub.Kind
	}{
		{"now", ``, "2021/03/04/05/06/07/089/initial", 0},
		{"now, minutes", `,"batch":"MINUTE"`, "2021/03/04/05/05", 0},
		{"now, seconds", `,"batch":"second"`, "2021/03/04/05/06/06", 0},
		{"lastCompleted is no start", `,"lastCompleted":"` + prefix + `2014/01/13/10/42/31/759/s03ub2"`, "2021/03/04/05/06/07/089/initial", 0},
		{"item", `,"startItem":"` + prefix + `2014/01/13/10/42/31/759/s03ub2"`, "2014/01/13/10/42/31/759/s03ub2", 0},
		{"item of another hub", `,"startItem":"https://x/y/channel/other/2014/01/13/10/42/31/759/s03ub2?a=b"`, "2014/01/13/10/42/31/759/s03ub2", 0},
		{"item with an escape", `,"startItem":"` + prefix + `2014/01/13/10/42/31/759/a%7Eb"`, "2014/01/13/10/42/31/759/a~b", 0},
		{"minute", `,"startItem":"` + prefix + `2014/01/13/10/42"`, "2014/01/13/10/42", 0},
		{"second", `,"startItem":"` + prefix + `2014/01/13/10/42/31/"`, "2014/01/13/10/42/31", 0},
		{"item for minutes", `,"batch":"MINUTE","startItem":"` + prefix + `2014/01/13/10/42/31/759/s03ub2"`, "2014/01/13/10/42/31/759/s03ub2", 0},
		{"before 1980, new", `,"startItem":"` + prefix + `1970/01/01/00/00"`, "1970/01/01/00/00", 0},
		{"day", `,"startItem":"` + prefix + `2014/01/13"`, "2021/03/04/05/06/07/089/initial", 0},
		{"hour", `,"startItem":"` + prefix + `2014/01/13/10"`, "2021/03/04/05/06/07/089/initial", 0},
		{"millisecond", `,"startItem":"` + prefix + `2014/01/13/10/42/31/759"`, "2021/03/04/05/06/07/089/initial", 0},
		{"impossible", `,"startItem":"` + prefix + `2014/13/13/10/42/31/759/s03ub2"`, "2021/03/04/05/06/07/089/initial", 0},
		{"unpadded", `,"startItem":"` + prefix + `2014/1/13/10/42"`, "2021/03/04/05/06/07/089/initial", 0},
		{"control character", `,"startItem":"` + prefix + `2014/01/13/10/42/31/759/a%0Ab"`, "2021/03/04/05/06/07/089/initial", 0},
		{"no UTF-8", `,"startItem":"` + prefix + `2014/01/13/10/42/31/759/a%FFb"`, "2021/03/04/05/06/07/089/initial", 0},
		{"too long", `,"startItem":"` + prefix + `2014/01/13/10/42/31/759/` + strings.Repeat("x", 1000) + `"`, "2021/03/04/05/06/07/089/initial", 0},
		{"nonsense", `,"startItem":"yesterday"`, "2021/03/04/05/06/07/089/initial", 0},
		{"empty", `,"startItem":""`, "2021/03/04/05/06/07/089/initial", 0},
		{"null", `,"startItem":null`, "2021/03/04/05/06/07/089/initial", 0},
		{"no string", `,"startItem":5`, "", hub.Invalid},
		{"previous", `,"startItem":"Previous"`, "2021/03/04/05/05/00/089/bbb", 0},
		{"previous, minutes", `,"batch":"MINUTE","startItem":"previous"`, "2021/03/04/05/06/00/088/A", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.channels.add("Orders")
			w.channels.insert("orders", at(-67_000, "bbb"), at(-7_000, "ccc"))
			_, _, err := w.put("p", `{`+minimal+c.extra+`}`)
			if c.kind != 0 || err != nil {
				if !hub.Is(err, c.kind) {
					t.Fatal(err)
				}
				return
			}
			if got := w.status("p").LastCompleted; got != prefix+c.want {
				t.Errorf("got %s, want %s", got, prefix+c.want)
			}
			w.node(nil) // it was durable
			if got := w.status("p").LastCompleted; got != prefix+c.want {
				t.Errorf("after a restart: %s, want %s", got, prefix+c.want)
			}
		})
	}
}

func TestPrevious(t *testing.T) {
	w := newWorld(t, nil)
	if _, _, err := w.put("p", `{`+minimal+`,"startItem":"previous"}`); !hub.Is(err, hub.NotFound) {
		t.Errorf("unknown channel: %v", err)
	}
	w.channels.add("orders")
	h := w.mustPut("p", `{`+minimal+`,"startItem":"previous"}`)
	if h.Start != "2021/03/04/05/06/07/089/initial" {
		t.Errorf("empty channel: %s", h.Start)
	}
	if again := w.mustPut("p", `{`+minimal+`,"startItem":"previous"}`); again.Born != h.Born {
		t.Error("previous of an empty channel has moved a webhook that exists")
	}
	w.channels.insert("orders", at(5, "abc"))
	if h = w.mustPut("p", `{`+minimal+`,"startItem":"previous"}`); h.Start != "2021/03/04/05/06/07/093/A" {
		t.Errorf("one item: %s", h.Start)
	}
	if k, err := CursorAt(h.Start); err != nil || !k.Less(at(5, "abc")) {
		t.Errorf("%v, %v", k, err)
	}
	if _, _, err := w.put("p", `{"startItem":"previous"}`); !hub.Is(err, hub.Invalid) {
		t.Errorf("without channelUrl: %v", err)
	}
	w.channels.fail = errTest
	if _, _, err := w.put("p", `{`+minimal+`,"startItem":"previous"}`); err == nil {
		t.Error("a channel that cannot be read counts as empty")
	}
}

// TestPutAgain is the list of spec 03 §1.3.
func TestPutAgain(t *testing.T) {
	w := newWorld(t, nil)
	w.channels.add("orders")
	h := w.mustPut("p", `{`+minimal+`,"maxAttempts":2}`)
	w.moved("p", at(0, "x"), State{Last: at(0, "x").String(), InFlight: []Flight{{Path: at(9, "y").String()}}, Errors: []Line{{Time: testTime.UnixMilli(), Path: "p", Text: "503"}}})

	stored, _ := w.catalog.Get(t.Context(), "p")
	same, created, err := w.put("p", `{`+minimal+`,"maxAttempts":2,"lastCompleted":"http://hub.example/channel/orders/2014/01/13/10/42"}`)
	if err != nil || created || *same != *h {
		t.Errorf("the same again: %+v, created %v, %v", same, created, err)
	}
	if now, _ := w.catalog.Get(t.Context(), "p"); now != stored {
		t.Error("the same again was written")
	}
	if other := w.mustPut("p", `{"channelUrl":"https://elsewhere.example/channel/ORDERS/"}`); other.Born != h.Born || other.ChannelURL != "https://elsewhere.example/channel/ORDERS" {
		t.Errorf("another host: %+v", other)
	}
	if _, _, err := w.put("p", `{"channelUrl":"http://hub.example/channel/beans"}`); !hub.Is(err, hub.Conflict) {
		t.Errorf("another channel: %v", err)
	}
	if _, _, err := w.put("p", `{"channelUrl":null,"tagUrl":"http://hub.example/tag/beans"}`); !hub.Is(err, hub.Conflict) {
		t.Errorf("a tag: %v", err)
	}
	if st := w.status("p"); len(st.InFlight) != 1 || len(st.Errors) != 1 || len(w.runs.stopped) != 0 {
		t.Errorf("the state did not survive a change of settings: %+v, stopped %v", st, w.runs.stopped)
	}
	if old := w.mustPut("p", `{"startItem":"http://h/channel/orders/1979/12/31/23/58"}`); old.Born != h.Born {
		t.Error("a start before 1980 was taken")
	}
	moved := w.mustPut("p", `{"channelUrl":"http://hub.example/channel/beans","startItem":"http://h/channel/orders/2020/12/31/23/58"}`)
	if moved.Born == h.Born || moved.ChannelName() != "beans" || len(w.runs.stopped) != 1 {
		t.Errorf("a start: %+v, stopped %v", moved, w.runs.stopped)
	}
	if st := w.status("p"); st.LastCompleted != "http://hub.example/channel/beans/2020/12/31/23/58" || len(st.InFlight)+len(st.Errors) != 0 {
		t.Errorf("the state survived a start: %+v", st)
	}
}

func TestMoveCursor(t *testing.T) {
	w := newWorld(t, nil)
	w.mustPut("p", `{`+minimal+`}`)
	w.mustPut("proto", `{"callbackUrl":"http://h/","tagUrl":"http://hub.example/tag/t"}`)
	w.moved("p", at(0, "x"), State{Last: at(0, "x").String(), Errors: []Line{{Time: testTime.UnixMilli()}}})
	for _, to := range []string{"2014/01/13/10/42/31/759/s03ub2", "2030/01/13/10/42", "2014/01/13/10/42/31"} {
		if err := w.svc.MoveCursor(t.Context(), "p", "http://hub.example/channel/orders/"+to); err != nil {
			t.Fatal(err)
		}
		if st := w.status("p"); st.LastCompleted != "http://hub.example/channel/orders/"+to || len(st.Errors) != 0 {
			t.Errorf("moved to %s: %+v", to, st)
		}
	}
	if len(w.runs.stopped) != 3 {
		t.Errorf("stopped %v", w.runs.stopped)
	}
	for _, bad := range []string{"", "nonsense", "http://h/channel/orders", "http://h/channel/orders/2014/01/13", "http://h/channel/orders/2014/01/13/10", "http://h/orders/2014/01/13/10/42", "2014/01/13/10/42"} {
		if err := w.svc.MoveCursor(t.Context(), "p", bad); !hub.Is(err, hub.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, name := range []string{"none", "a b", "proto"} {
		if err := w.svc.MoveCursor(t.Context(), name, "http://h/channel/orders/2014/01/13/10/42"); !hub.Is(err, hub.NotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestDelete(t *testing.T) {
	w := newWorld(t, nil)
	h := w.mustPut("p", `{`+minimal+`}`)
	w.moved("p", at(0, "x"), State{Last: at(0, "x").String()})
	if err := w.svc.Delete(t.Context(), "p"); err != nil {
		t.Fatal(err)
	}
	if len(w.runs.stopped) != 1 || w.diary.removed[len(w.diary.removed)-1] != "p" {
		t.Errorf("stopped %v, forgotten %v", w.runs.stopped, w.diary.removed)
	}
	if p, err := w.cursors.Get(t.Context(), "p"); err != nil || !p.Key.IsZero() {
		t.Errorf("the cursor is still there: %+v, %v", p, err)
	}
	if err := w.svc.Delete(t.Context(), "p"); !hub.Is(err, hub.NotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	again, created, err := w.put("p", `{`+minimal+`}`)
	if err != nil || !created || again.Born == h.Born {
		t.Errorf("made again: %+v, %v, %v", again, created, err)
	}
}

// TestDeadCursor: a process that died between removing the webhook and its cursor, or a loop that wrote once more, leave a cursor that means nothing.
func TestDeadCursor(t *testing.T) {
	w := newWorld(t, nil)
	w.mustPut("p", `{`+minimal+`}`)
	w.moved("p", at(50_000, "x"), State{Last: at(50_000, "x").String()})
	p, err := w.cursors.Get(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.svc.Delete(t.Context(), "p"); err != nil {
		t.Fatal(err)
	}
	w.mustPut("p", `{`+minimal+`}`)
	if _, err := w.cursors.Reset(t.Context(), "p", p.Key, p.Payload); err != nil {
		t.Fatal(err)
	}
	if st := w.status("p"); !strings.HasSuffix(st.LastCompleted, "/initial") {
		t.Errorf("a webhook stands where its predecessor stood: %s", st.LastCompleted)
	}
}

// TestDeleteAndMakeAgain: who makes a webhook while one of the name is being removed does not lose its cursor to that.
func TestDeleteAndMakeAgain(t *testing.T) {
	w := newWorld(t, nil)
	w.mustPut("p", `{`+minimal+`}`)
	made := make(chan struct{})
	w.runs.stop = func() {
		w.runs.stop = nil
		go func() {
			defer close(made)
			w.mustPut("p", `{`+minimal+`}`)
			w.moved("p", at(9, "x"), State{Last: at(9, "x").String()})
		}()
		time.Sleep(50 * time.Millisecond) // enough to overtake, if it could
	}
	if err := w.svc.Delete(t.Context(), "p"); err != nil {
		t.Fatal(err)
	}
	<-made
	if st := w.status("p"); !strings.HasSuffix(st.LastCompleted, "/x") {
		t.Errorf("it stands at %s", st.LastCompleted)
	}
}

func TestAt(t *testing.T) {
	h := &Webhook{Born: "b", Start: "2014/01/13/10/42"}
	end := hub.First(time.Date(2014, 1, 13, 10, 43, 0, 0, time.UTC))
	own, _ := State{Born: "b", Last: "l"}.Encode()
	other, _ := State{Born: "a", Last: "l"}.Encode()
	for name, c := range map[string]struct {
		p     coord.Position
		want  hub.Key
		fresh bool
	}{
		"no cursor":      {coord.Position{}, end, true},
		"taken, not set": {coord.Position{Fence: 7}, end, true},
		"another life":   {coord.Position{Key: at(0, "x"), Payload: other}, end, true},
		"without state":  {coord.Position{Key: at(0, "x")}, end, true},
		"own, no key":    {coord.Position{Payload: own}, end, true},
		"own":            {coord.Position{Key: at(0, "x"), Payload: own}, at(0, "x"), false},
	} {
		k, s, fresh, err := h.At(c.p)
		if err != nil || k != c.want || fresh != c.fresh || s.Born != "b" {
			t.Errorf("%s: %v %+v %v %v", name, k, s, fresh, err)
		}
	}
	if _, _, _, err := h.At(coord.Position{Key: at(0, "x"), Payload: []byte("garbage")}); err == nil {
		t.Error("a state that cannot be read was guessed")
	}
}

func TestErrorChannel(t *testing.T) {
	w := newWorld(t, nil)
	w.channels.add("There")
	w.mustPut("p", `{`+minimal+`,"errorChannelUrl":"http://hub.example/channel/there"}`)
	w.mustPut("p", `{"errorChannelUrl":"http://hub.example/channel/fails"}`)
	w.channels.drop("fails")
	w.mustPut("p", `{"errorChannelUrl":"http://hub.example/channel/fails","maxAttempts":3}`)
	if got := fmt.Sprint(w.channels.made); got != "[fails]" {
		t.Errorf("made %v", got)
	}
	w = newWorld(t, func(o *Options) { o.MakeChannel = func(context.Context, string) error { return errTest } })
	if _, _, err := w.put("p", `{`+minimal+`,"errorChannelUrl":"http://hub.example/channel/fails"}`); err == nil || len(w.names()) != 0 {
		t.Errorf("made without its error channel: %v", err)
	}
}

func TestPauseByHub(t *testing.T) {
	w := newWorld(t, nil)
	h := w.mustPut("p", `{`+minimal+`}`)
	for _, c := range []struct{ name, born string }{{"none", h.Born}, {"p", "other"}} {
		if err := w.svc.PauseByHub(t.Context(), c.name, c.born, "gone"); err != nil {
			t.Error(err)
		}
	}
	if w.status("p").Paused {
		t.Error("paused in another life")
	}
	if err := w.svc.PauseByHub(t.Context(), "p", h.Born, "the consumer said 410 Gone"); err != nil {
		t.Fatal(err)
	}
	if st := w.status("p"); !st.Paused || st.PausedReason == "" || st.Born != h.Born {
		t.Errorf("%+v", st.Webhook)
	}
	if h = w.mustPut("p", `{"maxAttempts":7}`); !h.Paused || h.PausedReason == "" {
		t.Errorf("another change goes on with it: %+v", h)
	}
	if h = w.mustPut("p", `{"paused":false}`); h.Paused || h.PausedReason != "" {
		t.Errorf("%+v", h)
	}
}

// TestManyAtOnce: whatever is asked at the same time, by two nodes, there is one webhook or none, made exactly once per life.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	first := w.svc
	second := w.node(nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	created, deleted := 0, 0
	for i := range 16 {
		svc := first
		if i%2 == 0 {
			svc = second
		}
		wg.Go(func() {
			for range 10 {
				p, err := ParsePatch([]byte(`{` + minimal + `}`))
				if err != nil {
					t.Error(err)
					return
				}
				_, c, err := svc.Put(t.Context(), "p", p)
				if err != nil {
					t.Error(err)
				}
				derr := svc.Delete(t.Context(), "p")
				if derr != nil && !hub.Is(derr, hub.NotFound) {
					t.Error(derr)
				}
				mu.Lock()
				if c {
					created++
				}
				if derr == nil {
					deleted++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if created != deleted || len(w.names()) != 0 {
		t.Errorf("created %d times, deleted %d times, left %v", created, deleted, w.names())
	}
	if len(first.turns.waiting)+len(second.turns.waiting) != 0 {
		t.Error("turns were left behind")
	}
}

func TestStatus(t *testing.T) {
	w := newWorld(t, nil)
	w.mustPut("p", `{`+minimal+`}`)
	if st := w.status("p"); st.LagMillis != nil || st.ItemsBehind != nil || st.ChannelLatest != "" || st.StableTime.IsZero() {
		t.Errorf("without a channel: %+v", st)
	}
	w.channels.add("Orders")
	if st := w.status("p"); *st.LagMillis != 0 || *st.ItemsBehind != 0 || st.ChannelLatest != "" {
		t.Errorf("empty: %+v", st)
	}
	w.channels.insert("orders", at(10, "a"), at(20, "b"), at(30, "c"))
	if st := w.status("p"); *st.LagMillis != 30 || *st.ItemsBehind != 3 || st.ChannelLatest != "http://hub.example/channel/orders/2021/03/04/05/06/07/119/c" {
		t.Errorf("three behind: %+v %d %d", st, *st.LagMillis, *st.ItemsBehind)
	}
	old := testTime.Add(-25 * time.Hour).UnixMilli()
	state := State{Last: at(30, "c").String(), Finished: []string{at(30, "c").String()}, InFlight: []Flight{{Path: at(20, "b").String(), Attempts: 2}},
		Errors: []Line{{Time: old, Path: "x", Text: "too old"}, {Time: testTime.UnixMilli(), Path: at(20, "b").String(), Text: "503 Service Unavailable"}}}
	w.moved("p", at(10, "a"), state)
	st := w.status("p")
	if *st.ItemsBehind != 1 || *st.LagMillis != 20 || len(st.InFlight) != 1 || !strings.HasSuffix(st.LastCompleted, "/c") {
		t.Errorf("%+v", st)
	}
	if fmt.Sprint(st.Errors) != "[2021-03-04T05:06:07.089Z 2021/03/04/05/06/07/109/b 503 Service Unavailable]" {
		t.Errorf("errors %q", st.Errors)
	}

	// The leader's word counts, if it is about this life.
	h, _ := w.svc.Get(t.Context(), "p")
	w.runs.live["p"] = Live{Born: "another", Cursor: at(0, ""), State: State{Last: "wrong"}}
	if st := w.status("p"); *st.ItemsBehind != 1 {
		t.Error("the word of another life counts")
	}
	w.runs.live["p"] = Live{Born: h.Born, Cursor: at(30, "c"), State: State{Last: at(30, "c").String()}}
	if st := w.status("p"); *st.ItemsBehind != 0 || *st.LagMillis != 0 || len(st.InFlight) != 0 {
		t.Errorf("the leader's word does not count: %+v", st)
	}
	lines, err := w.svc.Errors(t.Context(), "p")
	if err != nil || len(lines) != 1 || len(lines[0].Lines) != 0 {
		t.Errorf("%+v, %v", lines, err)
	}
}

func TestManyBehind(t *testing.T) {
	w := newWorld(t, nil)
	w.channels.add("orders")
	w.mustPut("p", `{`+minimal+`,"batch":"MINUTE"}`)
	var keys []hub.Key
	for i := range 2 * MaxBehind {
		keys = append(keys, at(int64(i), "x"))
	}
	w.channels.insert("orders", keys...)
	if st := w.status("p"); *st.ItemsBehind != MaxBehind {
		t.Errorf("%d behind", *st.ItemsBehind)
	}
	w.moved("p", at(-60_000, ""), State{Finished: []string{"2021/03/04/05/06"}, Last: "2021/03/04/05/06"})
	if st := w.status("p"); *st.ItemsBehind != 0 {
		t.Errorf("%d behind, but the minute is finished", *st.ItemsBehind)
	}
}

func TestReplay(t *testing.T) {
	w := newWorld(t, nil)
	w.channels.add("orders")
	w.channels.insert("orders", at(10, "a"), at(20, "b"))
	w.mustPut("p", `{`+minimal+`}`)
	w.mustPut("m", `{`+minimal+`,"batch":"MINUTE"}`)
	w.mustPut("proto", `{"callbackUrl":"http://h/","tagUrl":"http://hub.example/tag/t"}`)
	w.moved("p", at(10, "a"), State{Last: at(10, "a").String()})
	w.diary.failed["p"] = []string{at(20, "b").String(), at(10, "a").String()}
	const u = "http://hub.example/channel/orders/"
	for _, c := range []struct {
		hook string
		what Again
		want string
		kind hub.Kind
	}{
		{"p", Again{Item: u + at(10, "a").String()}, "{  [2021/03/04/05/06/07/099/a]}", 0},
		{"p", Again{Item: "/2021/3/4/5/6/7/99/a"}, "{  [2021/03/04/05/06/07/099/a]}", 0},
		{"m", Again{Item: at(10, "a").String()}, "{  [2021/03/04/05/06]}", 0},
		{"m", Again{Item: u + "2021/03/04/05/06"}, "{  [2021/03/04/05/06]}", 0},
		{"p", Again{Failed: true}, "{  [2021/03/04/05/06/07/099/a 2021/03/04/05/06/07/109/b]}", 0},
		{"m", Again{Failed: true}, "", 0},
		{"p", Again{From: "2021/03/04", To: u + "2021/03/04/05/06/07/099/a"}, "{2021/03/04/00/00/00/000/ 2021/03/04/05/06/07/099/a []}", 0},
		{"p", Again{From: "2021/03/04"}, "{2021/03/04/00/00/00/000/ 2021/03/04/05/06/07/099/a\x00 []}", 0},
		{"p", Again{From: "2021/03/04", To: "2022/01/01"}, "{2021/03/04/00/00/00/000/ 2021/03/04/05/06/07/099/a\x00 []}", 0},
		{"p", Again{From: "2021/03/05"}, "", 0},
		{"p", Again{From: "2021/03/04", To: "2021/03/03"}, "", hub.Invalid},
		{"p", Again{To: "2021/03/03"}, "", hub.Invalid}, {"p", Again{From: "yesterday"}, "", hub.Invalid}, {"p", Again{From: "2021/13/01"}, "", hub.Invalid},
		{"p", Again{}, "", hub.Invalid}, {"p", Again{Item: "x", Failed: true}, "", hub.Invalid}, {"p", Again{Item: "x", From: "2021/03/03"}, "", hub.Invalid},
		{"p", Again{Item: "2021/03/04/05/06"}, "", hub.Invalid}, {"p", Again{Item: u}, "", hub.Invalid},
		{"p", Again{Item: "http://h/channel/beans/" + at(10, "a").String()}, "", hub.Invalid},
		{"p", Again{Item: u + at(11, "a").String()}, "", hub.NotFound},
		{"proto", Again{Failed: true}, "", hub.Invalid}, {"none", Again{Failed: true}, "", hub.NotFound},
	} {
		w.runs.ranges = nil
		n, err := w.svc.Replay(t.Context(), c.hook, c.what)
		if c.kind != 0 || err != nil {
			if !hub.Is(err, c.kind) {
				t.Errorf("%s %+v: %v", c.hook, c.what, err)
			}
			continue
		}
		got := ""
		if len(w.runs.ranges) > 0 {
			got = fmt.Sprint(w.runs.ranges[0])
		}
		if got != c.want || (n == 0) != (c.want == "") {
			t.Errorf("%s %+v: %d, %q, want %q", c.hook, c.what, n, got, c.want)
		}
	}
}

func FuzzPositionOf(f *testing.F) {
	for _, s := range []string{
		"", "http://h/channel/c/2014/01/13/10/42/31/759/s03ub2", "http://h/channel/c/2014/01/13/10/42", "http://h/channel/c/2014/01/13/10/42/31/?a=b#c",
		"/channel//2014/01/13/10/42", "http://h/channel/c/0000/01/01/00/00/00/000/%00", "http://h/channel/c/9999/12/31/23/59", "http://h/channel/c/2014-01-13T10:42:31.759Zs",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path, ok := positionOf(s)
		if !ok {
			return
		}
		k, err := CursorAt(path)
		if err != nil {
			t.Fatalf("%q is %q, which is no place: %v", s, path, err)
		}
		if _, err := hub.ParseWindow(path); err != nil && k.String() != path {
			t.Fatalf("%q is %q, which is read as %v", s, path, k)
		}
	})
}
