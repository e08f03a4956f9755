package log

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"timehub/hub"
	"timehub/hub/disk"
)

// testLog is a log that runs.
type testLog struct {
	*Log
	t    testing.TB
	stop func()
}

func openDir(t testing.TB) disk.Disk {
	t.Helper()
	d, err := disk.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// start opens a log and runs it until stop, or the end of the test.
func start(t testing.TB, opt Options) (*testLog, Recovered) {
	t.Helper()
	if opt.MinFree == 0 {
		opt.MinFree = -1
	}
	l, rec, err := Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
			if err := l.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return &testLog{Log: l, t: t, stop: stop}, rec
}

// put writes records as one batch and waits.
func (l *testLog) put(recs ...Record) error {
	done := make(chan error, 1)
	if err := l.Enqueue(&Batch{Records: recs, Done: func(err error) { done <- err }}); err != nil {
		return err
	}
	return <-done
}

func (l *testLog) mustPut(recs ...Record) {
	l.t.Helper()
	if err := l.put(recs...); err != nil {
		l.t.Fatal(err)
	}
}

const t0 = 1_700_000_000_000 // some milliseconds

func key(ms int, hash string) hub.Key { return hub.KeyAt(t0+int64(ms), hash) }

func rec(channel string, ms int, data string) Record {
	return Record{Channel: channel, Key: key(ms, fmt.Sprintf("%06d", ms)), Stream: Stream{Ordinal: 3, Incarnation: 7}, Data: []byte(data)}
}

// sealAll waits until all segments but the active one have footers.
func (l *testLog) sealAll() {
	l.t.Helper()
	for range 3000 {
		if l.Status().Unfootered <= 1 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.t.Fatal("the footers were not written")
}

func (l *testLog) keys(channel string, from, to hub.Key, limit int, reverse bool) ([]hub.Key, bool) {
	l.t.Helper()
	k, more, err := l.Keys(l.t.(*testing.T).Context(), channel, from, to, limit, reverse)
	if err != nil {
		l.t.Fatal(err)
	}
	return k, more
}

func (l *testLog) items(channel string, from, to hub.Key, limit int, reverse bool) (all []Record) {
	l.t.Helper()
	for r, err := range l.Items(context.Background(), channel, from, to, limit, reverse) {
		if err != nil {
			l.t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func TestAppendReadReopen(t *testing.T) {
	d := openDir(t)
	l, r := start(t, Options{Disk: d})
	if r.Segments != 0 || r.Records != 0 || len(r.Holes) > 0 {
		t.Fatalf("a new log has %+v", r)
	}
	for i := range 100 {
		l.mustPut(rec("a", i, fmt.Sprint("data ", i)), rec("b", i, ""))
	}
	check := func(l *testLog) {
		t.Helper()
		for i := range 100 {
			got, err := l.Get(t.Context(), "a", rec("a", i, "").Key)
			if err != nil || string(got.Data) != fmt.Sprint("data ", i) || got.Stream != (Stream{Ordinal: 3, Incarnation: 7}) || got.Flags != MoreFollows {
				t.Fatalf("Get %d: %+v, %v", i, got, err)
			}
		}
		if k, more := l.keys("a", hub.MinKey, hub.MaxKey, 0, false); len(k) != 100 || more || !slices.IsSortedFunc(k, hub.Key.Compare) {
			t.Fatalf("%d keys, more %v", len(k), more)
		}
		if k, more := l.keys("b", key(10, "000010"), key(20, "000020"), 3, true); len(k) != 3 || !more || k[0] != rec("b", 19, "").Key {
			t.Fatalf("keys %v, more %v", k, more)
		}
		if k, more := l.keys("b", key(10, "000010"), key(20, "000020"), 10, false); len(k) != 10 || more || k[0] != rec("b", 10, "").Key {
			t.Fatalf("keys %v, more %v", k, more)
		}
		if _, err := l.Get(t.Context(), "c", key(1, "000001")); !hub.Is(err, hub.NotFound) {
			t.Fatalf("a channel that is not there: %v", err)
		}
		if got := l.items("a", hub.MinKey, hub.MaxKey, 0, true); len(got) != 100 || string(got[0].Data) != "data 99" || string(got[99].Data) != "data 0" {
			t.Fatalf("%d items", len(got))
		}
		ch, err := l.Channels(t.Context())
		if want := (Range{rec("a", 0, "").Key, rec("a", 99, "").Key, 100}); err != nil || len(ch) != 2 || ch["a"] != want {
			t.Fatalf("channels %v, %v", ch, err)
		}
	}
	check(l)
	l.stop()
	if err := l.Enqueue(&Batch{Records: []Record{rec("a", 1, "")}, Done: func(error) {}}); !hub.Is(err, hub.Unavailable) {
		t.Errorf("Enqueue after the end: %v", err)
	}
	l, r = start(t, Options{Disk: d})
	if r.Segments != 1 || r.Scanned != 0 || r.Records != 200 || r.Last != rec("a", 99, "").Key || r.Cut != 0 {
		t.Fatalf("recovered %+v", r)
	}
	check(l)
	l.mustPut(rec("a", 100, "more"))
	if k, _ := l.keys("a", hub.MinKey, hub.MaxKey, 1, true); k[0] != rec("a", 100, "").Key {
		t.Fatalf("latest is %v", k)
	}
}

func TestGivenUpHides(t *testing.T) {
	d := openDir(t)
	l, _ := start(t, Options{Disk: d, SegmentRecords: 2})
	for i := range 10 {
		l.mustPut(rec("a", i, "x"))
	}
	name := rec("a", 4, "")
	name.Flags, name.Data = GivenUp, nil
	l.mustPut(name)
	back := rec("a", 6, "x") // taken back before and after names of it
	for _, f := range []Flags{GivenUp, Taken, GivenUp} {
		r := back
		if r.Flags = f; f == GivenUp {
			r.Data = nil
		}
		l.mustPut(r)
	}
	for i := 10; i < 20; i++ {
		l.mustPut(rec("a", i, "x"))
	}
	for range 3 {
		if r, err := l.Get(t.Context(), "a", back.Key); err != nil || string(r.Data) != "x" {
			t.Fatalf("a key that was taken back: %q, %v", r.Data, err)
		}
		if r, err := l.Held(t.Context(), "a", name.Key); err != nil || string(r.Data) != "x" {
			t.Fatalf("what is held of a given-up key: %q, %v", r.Data, err)
		}
		if _, err := l.Get(t.Context(), "a", name.Key); !hub.Is(err, hub.NotFound) {
			t.Fatalf("a given-up key: %v", err)
		}
		k, _ := l.keys("a", hub.MinKey, hub.MaxKey, 0, false)
		if len(k) != 19 || slices.Contains(k, name.Key) {
			t.Fatalf("keys %v", k)
		}
		dg, err := l.Minute(t.Context(), "a", name.Key.Time())
		var want Digest
		for _, k := range k {
			want.Add(k)
		}
		if err != nil || dg != want {
			t.Fatalf("digest %v, want %v, %v", dg, want, err)
		}
		l.stop()
		l, _ = start(t, Options{Disk: d})
	}
}

// modelOp is the oracle of TestModel: what was written, and which names were given up.
type model struct {
	data  map[string]map[hub.Key]string
	given map[string]map[hub.Key]bool
	taken map[string]bool
}

func (m *model) keys(channel string, from, to hub.Key) (list []hub.Key) {
	for k := range m.data[channel] {
		if !m.given[channel][k] && !k.Less(from) && k.Less(to) {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, hub.Key.Compare)
	return list
}

func TestModel(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runModel(t, seed) })
	}
}

func runModel(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	m := model{map[string]map[hub.Key]string{}, map[string]map[hub.Key]bool{}, map[string]bool{}}
	now := time.UnixMilli(t0)
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	archived := map[string]hub.Key{}
	opt := Options{
		Disk: openDir(t), SegmentRecords: 20 + rng.IntN(400), SegmentBytes: int64(2000 + rng.IntN(100_000)), Clock: clock, TTL: time.Minute, Sync: SyncMode(seed % 3),
		Archived: func(ch string) (hub.Key, bool) {
			mu.Lock()
			defer mu.Unlock()
			k, ok := archived[ch]
			return k, ok || len(ch) < 3
		},
	}
	l, _ := start(t, opt)
	channels := []string{"a", "b", "ch", "long-name-of-a-channel"}
	ms := 0
	randomKey := func(ch string) hub.Key {
		if ks := m.keys(ch, hub.MinKey, hub.MaxKey); len(ks) > 0 && rng.IntN(3) > 0 {
			return ks[rng.IntN(len(ks))]
		}
		return key(rng.IntN(ms+2)-1, "zz")
	}
	for range 300 {
		ch := channels[rng.IntN(len(channels))]
		switch op := rng.IntN(20); {
		case op < 12:
			var recs []Record
			for range 1 + rng.IntN(40) {
				ch := ch
				if rng.IntN(4) == 0 {
					ch = channels[rng.IntN(len(channels))]
				}
				ms += rng.IntN(3)
				at, flags := ms, Flags(0)
				if rng.IntN(10) == 0 {
					at, flags = rng.IntN(ms+1), Replicated
				}
				k := key(at, fmt.Sprintf("%0*d", []int{3, 6, 12, 14, 15, 40}[rng.IntN(6)], rng.IntN(1000)))
				if _, dup := m.data[ch][k]; dup {
					continue
				}
				data := make([]byte, rng.IntN(300))
				for i := range data {
					data[i] = byte(rng.Uint32())
				}
				recs = append(recs, Record{Channel: ch, Key: k, Flags: flags, Data: data})
				if m.data[ch] == nil {
					m.data[ch], m.given[ch] = map[hub.Key]string{}, map[hub.Key]bool{}
				}
				m.data[ch][k] = string(data)
			}
			if len(recs) > 0 {
				l.mustPut(recs...)
			}
		case op == 12:
			if k := randomKey(ch); m.data[ch] != nil {
				l.mustPut(Record{Channel: ch, Key: k, Flags: GivenUp})
				m.given[ch][k] = true
				if data, ok := m.data[ch][k]; ok && rng.IntN(2) == 0 {
					l.mustPut(Record{Channel: ch, Key: k, Flags: Taken, Data: []byte(data)})
					m.given[ch][k], m.taken[ch+k.String()] = false, true
				}
				if m.taken[ch+k.String()] {
					m.given[ch][k] = false
				}
			}
		case op == 13:
			l.stop()
			l, _ = start(t, opt)
		case op == 14:
			mu.Lock()
			now = time.UnixMilli(t0 + int64(ms)).Add(time.Duration(rng.IntN(100)) * time.Second)
			for _, ch := range channels {
				if rng.IntN(2) == 0 {
					if k := key(rng.IntN(ms+1), ""); archived[ch].Less(k) {
						archived[ch] = k
					}
				}
			}
			mu.Unlock()
			if rng.IntN(2) == 0 {
				l.sealAll()
			}
			if err := l.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
		default:
			compare(t, l, &m, ch, randomKey(ch), randomKey(ch), rng.IntN(3)*rng.IntN(30), rng.IntN(2) == 0, archived)
		}
	}
	for _, ch := range channels {
		compare(t, l, &m, ch, hub.MinKey, hub.MaxKey, 0, false, archived)
	}
	if s := l.Status(); s.Damaged > 0 || len(s.Holes) > 0 || s.Failures > 0 {
		t.Fatalf("%+v", s)
	}
}

// compare asks the log and the oracle. Below the floor the log may lack what is archived.
func compare(t *testing.T, l *testLog, m *model, ch string, from, to hub.Key, limit int, reverse bool, archived map[string]hub.Key) {
	t.Helper()
	floor := l.Floor()
	swept := func(k hub.Key) bool { return k.Less(floor) && (!archived[ch].Less(k) || len(ch) >= 3) }
	want := m.keys(ch, from, to)
	got, more := l.keys(ch, from, to, 0, false)
	if more {
		t.Fatal("more without a limit")
	}
	i := 0
	for _, k := range want {
		if i < len(got) && got[i] == k {
			i++
		} else if !swept(k) {
			t.Fatalf("channel %s from %v to %v: %v is missing (floor %v, archived %v)", ch, from, to, k, floor, archived[ch])
		}
	}
	if i < len(got) {
		t.Fatalf("channel %s: %v should not be there", ch, got[i])
	}
	expect, wantMore := slices.Clone(got), false
	if reverse {
		slices.Reverse(expect)
	}
	if limit > 0 && limit < len(expect) {
		expect, wantMore = expect[:limit], true
	}
	page, more := l.keys(ch, from, to, limit, reverse)
	if !slices.Equal(page, expect) || more != wantMore {
		t.Fatalf("limit %d reverse %v: %v more %v, want %v more %v", limit, reverse, page, more, expect, wantMore)
	}
	items := l.items(ch, from, to, limit, reverse)
	if len(items) != len(expect) {
		t.Fatalf("%d items, want %d", len(items), len(expect))
	}
	for i, r := range items {
		if r.Key != expect[i] || string(r.Data) != m.data[ch][r.Key] {
			t.Fatalf("item %d is %v", i, r.Key)
		}
	}
	for _, k := range expect[:min(3, len(expect))] {
		if r, err := l.Get(t.Context(), ch, k); err != nil || string(r.Data) != m.data[ch][k] {
			t.Fatalf("Get %v: %v", k, err)
		}
	}
	var dg Digest
	minute := hub.WindowAt(from.Time(), hub.Minute)
	all, _ := l.keys(ch, minute.From(), minute.To(), 0, false)
	for _, k := range all {
		dg.Add(k)
	}
	if d, err := l.Minute(t.Context(), ch, from.Time()); err != nil || d != dg {
		t.Fatalf("digest %v, want %v: %v", d, dg, err)
	}
}

func TestBatchChecks(t *testing.T) {
	l, _ := start(t, Options{Disk: openDir(t)})
	for name, r := range map[string]Record{
		"no channel":     {Key: key(1, "a")},
		"long channel":   {Channel: string(make([]byte, 256)), Key: key(1, "a")},
		"long hash":      {Channel: "a", Key: key(1, string(make([]byte, 256)))},
		"unknown flag":   {Channel: "a", Key: key(1, "a"), Flags: 0x80},
		"name taken":     {Channel: "a", Key: key(1, "a"), Flags: GivenUp | Taken},
		"name with data": {Channel: "a", Key: key(1, "a"), Flags: GivenUp, Data: []byte("x")},
	} {
		if err := l.put(r); err == nil || errors.Is(err, ErrLost) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := l.put(); !hub.Is(err, hub.Invalid) {
		t.Errorf("an empty batch: %v", err)
	}
	long := string(slices.Repeat([]byte("n"), 255))
	l.mustPut(Record{Channel: long, Key: key(1, long), Data: []byte("x")})
	if r, err := l.Get(t.Context(), long, key(1, long)); err != nil || string(r.Data) != "x" {
		t.Errorf("%v", err)
	}
}
