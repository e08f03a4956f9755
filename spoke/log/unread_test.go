package log

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
)

// What cannot be read at the moment is neither taken for damaged nor given up: answers that need it fail, a start and a sweep leave it alone, and when the
// disk reads again everything is there.

var failing = memdisk.Rule{Ops: memdisk.OpRead, Name: "spoke/*.seg", Fault: memdisk.Fault{Err: errInjected}}

func fill(l *testLog, n int) (all []Record) {
	for i := range n {
		r := Record{Channel: "a", Key: hub.NewKey(time.Now(), fmt.Sprintf("%06d", i)), Data: []byte("data")}
		l.mustPut(r)
		all = append(all, r)
	}
	return all
}

// whole reports a log that thinks that something is wrong.
func (l *testLog) whole(t *testing.T) {
	t.Helper()
	if s := l.Status(); len(s.Holes) > 0 || s.Damaged > 0 || s.Unread > 0 {
		t.Errorf("%+v", s)
	}
}

func TestAnswersOfAFailingDisk(t *testing.T) {
	bubble(t, func(t *testing.T, d *memdisk.Disk) {
		opt := Options{Disk: d, MinFree: -1}
		l := mem(t, opt)
		all := fill(l, 25)
		good := d.Inject(failing)
		items := 0
		for r, err := range l.Items(t.Context(), "a", hub.MinKey, hub.MaxKey, 0, false) { // the index is in memory
			if items++; !hub.Is(err, hub.Unavailable) || errors.Is(err, ErrDamaged) || r.Key != all[0].Key {
				t.Errorf("%v, %v", r.Key, err)
			}
		}
		if items != 1 {
			t.Errorf("%d items", items)
		}
		good()
		l.has(t, all...)
		l.whole(t)
		l.stop()
		l = mem(t, opt)
		good = d.Inject(failing)
		for range 3 {
			if keys, _, err := l.Keys(t.Context(), "a", hub.MinKey, hub.MaxKey, 0, false); !hub.Is(err, hub.Unavailable) {
				t.Errorf("%d keys, %v", len(keys), err)
			}
			if all, err := l.Channels(t.Context()); !hub.Is(err, hub.Unavailable) {
				t.Errorf("%v, %v", all, err)
			}
			if sum, err := l.Minute(t.Context(), "a", all[0].Key.Time()); !hub.Is(err, hub.Unavailable) {
				t.Errorf("%v, %v", sum, err)
			}
		}
		if r, err := l.Get(t.Context(), "a", all[3].Key); !hub.Is(err, hub.Unavailable) || errors.Is(err, ErrDamaged) {
			t.Errorf("%+v, %v", r, err)
		}
		good()
		l.has(t, all...)
		l.whole(t)
		l.stop()
	})
}

// One read that fails costs one answer, not the footer.
func TestOneFailedReadOfAFooter(t *testing.T) {
	bubble(t, func(t *testing.T, d *memdisk.Disk) {
		opt := Options{Disk: d, MinFree: -1}
		l := mem(t, opt)
		all := fill(l, 5)
		l.stop()
		l = mem(t, opt)
		rule := failing
		rule.Times = 1
		d.Inject(rule)
		if keys, _, err := l.Keys(t.Context(), "a", hub.MinKey, hub.MaxKey, 0, false); !hub.Is(err, hub.Unavailable) {
			t.Errorf("%d keys, %v", len(keys), err)
		}
		l.has(t, all...)
		l.whole(t)
		if s := l.Status(); s.Unfootered != 0 {
			t.Errorf("%+v", s)
		}
		l.stop()
	})
}

// A record that the disk does not give for long counts as damaged: nobody shall wait for it for ever. One that could be read in between does not.
func TestRecordThatStaysUnreadable(t *testing.T) {
	bubble(t, func(t *testing.T, d *memdisk.Disk) {
		l := mem(t, Options{Disk: d, MinFree: -1, SegmentAge: 24 * time.Hour})
		k := fill(l, 1)[0].Key
		ask := func(after time.Duration, damaged bool) {
			t.Helper()
			time.Sleep(after)
			if _, err := l.Get(t.Context(), "a", k); err == nil || errors.Is(err, ErrDamaged) != damaged || !damaged && !hub.Is(err, hub.Unavailable) {
				t.Errorf("%v", err)
			}
		}
		good := d.Inject(failing)
		ask(0, false)
		good()
		if _, err := l.Get(t.Context(), "a", k); err != nil {
			t.Error(err)
		}
		for i := range l.hot {
			l.hot[i].Store(nil)
		}
		d.Inject(failing)
		ask(damageAfter, false)
		ask(damageAfter-time.Second, false)
		ask(time.Second, true)
		if s := l.Status(); s.Damaged != 1 {
			t.Errorf("%+v", s)
		}
		l.stop()
	})
}

// twoSegments is a disk with a log of two segments without footers; n keys are in the first.
func twoSegments(t *testing.T, d *memdisk.Disk, n int) (next *memdisk.Disk, all []Record) {
	l := mem(t, Options{Disk: d, MinFree: -1})
	all = fill(l, n)
	d.Inject(memdisk.Rule{Ops: memdisk.OpSync, Name: "spoke/*.seg", Times: 1, Fault: memdisk.Fault{Err: errInjected}})
	if err := l.put(Record{Channel: "a", Key: hub.NewKey(time.Now(), "zzzzzz")}); err == nil {
		t.Fatal("it did not fail")
	}
	time.Sleep(time.Second)
	all = append(all, fill(l, 3)...)
	next = d.Fork(memdisk.PowerCut, 1)
	l.stop()
	return next, all
}

// A start at which reads fail, once or for a while, loses nothing: it refuses, or it goes on and gives what it cannot read later.
func TestStartOnADiskThatFailsToRead(t *testing.T) {
	refused, unread := 0, 0
	for i := range 16 {
		for _, times := range []int{1, 2, 1000} {
			bubble(t, func(t *testing.T, d *memdisk.Disk) {
				next, all := twoSegments(t, d, 10)
				rule := failing
				rule.Skip, rule.Times = i/2, times
				if i%2 == 1 {
					rule.Name = "spoke/0000000000000001.seg"
				}
				good := next.Inject(rule)
				archived := all[len(all)-1].Key // all could go
				opt := Options{Disk: next, MinFree: -1, TTL: time.Second, SegmentAge: time.Second, Archived: func(string) (hub.Key, bool) { return archived, true }}
				began, _, err := Open(t.Context(), opt)
				if err != nil {
					refused++
					good()
					if began, _, err = Open(t.Context(), opt); err != nil {
						t.Fatal(err)
					}
				}
				l := run(t, began)
				after := Record{Channel: "a", Key: hub.NewKey(time.Now(), "after"), Data: []byte("more")}
				l.mustPut(after)
				if l.Status().Unread > 0 && times > 2 {
					unread++
					if upTo, ok := l.Complete("replica"); !ok || upTo != hub.MinKey {
						t.Errorf("a channel whose marker may be in what cannot be read is complete up to %v, %v", upTo, ok)
					}
					if _, err := l.Get(t.Context(), "a", hub.KeyAt(all[0].Key.Millis(), "no such")); !hub.Is(err, hub.Unavailable) {
						t.Errorf("not there: %v", err)
					}
					if keys, _, err := l.Keys(t.Context(), "a", hub.MinKey, hub.MaxKey, 0, false); !hub.Is(err, hub.Unavailable) {
						t.Errorf("%d keys, %v", len(keys), err)
					}
					// what is surely newer can be had
					if keys, _, err := l.Keys(t.Context(), "a", hub.MinKey, hub.MaxKey, 1, true); err != nil || len(keys) != 1 || keys[0] != after.Key {
						t.Errorf("latest: %v, %v", keys, err)
					}
					time.Sleep(time.Minute)
					_ = l.Sweep(t.Context())
				}
				good()
				archived = hub.MinKey
				time.Sleep(time.Minute)
				if upTo, ok := l.Complete("ordinary"); ok && l.Status().Unread == 0 {
					t.Errorf("an ordinary channel is complete up to %v", upTo)
				}
				l.has(t, append(all, after)...)
				l.whole(t)
				if err := l.Sweep(t.Context()); err != nil {
					t.Error(err)
				}
				l.stop()
				l = mem(t, Options{Disk: next.Restart(memdisk.PowerCut, 1), MinFree: -1})
				l.has(t, append(all, after)...)
				l.whole(t)
				l.stop()
			})
		}
	}
	if refused == 0 || unread == 0 {
		t.Errorf("%d starts were refused, in %d there was a segment to be read later", refused, unread)
	}
}

// A segment that could be read late is sealed and swept as any other.
func TestSegmentReadLate(t *testing.T) {
	bubble(t, func(t *testing.T, d *memdisk.Disk) {
		next, all := twoSegments(t, d, 10)
		good := next.Inject(memdisk.Rule{Ops: memdisk.OpRead, Name: "spoke/0000000000000001.seg", Skip: 1, Fault: memdisk.Fault{Err: errInjected}})
		archived := hub.MinKey
		l := mem(t, Options{Disk: next, MinFree: -1, TTL: time.Second, SegmentAge: time.Second, Archived: func(string) (hub.Key, bool) { return archived, true }})
		time.Sleep(time.Hour)
		archived = hub.MaxKey
		_ = l.Sweep(t.Context())
		if s := l.Status(); s.Unread != 1 || s.Swept != 0 {
			t.Errorf("%+v", s)
		}
		archived = hub.MinKey
		good()
		time.Sleep(time.Minute)
		if err := l.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if s := l.Status(); s.Unread != 0 || s.Unfootered != 0 {
			t.Errorf("%+v", s)
		}
		l.has(t, all...)
		archived = hub.MaxKey
		if err := l.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
		if s := l.Status(); s.Segments != 0 {
			t.Errorf("%+v", s)
		}
		l.stop()
	})
}

// A sweep in which reads fail removes nothing that is needed, and keeps no other segment from going.
func TestSweepOfAFailingDisk(t *testing.T) {
	for skip := range 20 {
		for _, times := range []int{1, 2, 5} {
			bubble(t, func(t *testing.T, d *memdisk.Disk) {
				var archived hub.Key
				opt := Options{Disk: d, MinFree: -1, TTL: time.Second, Archived: func(string) (hub.Key, bool) { return archived, true }}
				l := mem(t, opt)
				all := fill(l, 25)
				l.stop()
				archived = all[20].Key
				l = mem(t, opt)
				time.Sleep(time.Minute)
				rule := failing
				rule.Skip, rule.Times = skip, times
				good := d.Inject(rule)
				_ = l.Sweep(t.Context())
				good()
				time.Sleep(time.Minute)
				if err := l.Sweep(t.Context()); err != nil {
					t.Error(err)
				}
				keys, _, err := l.Keys(t.Context(), "a", all[21].Key, hub.MaxKey, 0, false)
				if s := l.Status(); err != nil || len(keys) != 4 || len(s.Holes) > 0 {
					t.Errorf("skip %d: %d keys, %v, %+v", skip, len(keys), err, s)
				}
				l.stop()
			})
		}
	}
	bubble(t, func(t *testing.T, d *memdisk.Disk) {
		opt := Options{Disk: d, MinFree: -1, TTL: time.Second, SegmentAge: time.Second, Archived: func(string) (hub.Key, bool) { return hub.NewKey(time.Now(), ""), true }}
		l := mem(t, opt)
		for range 4 {
			fill(l, 5)
			time.Sleep(5 * time.Second)
		}
		before := l.Status()
		d.Inject(memdisk.Rule{Ops: memdisk.OpRead, Name: "spoke/0000000000000002.seg", Fault: memdisk.Fault{Err: errInjected}})
		if err := l.Sweep(t.Context()); err == nil {
			t.Error("nothing failed")
		}
		if after := l.Status(); before.Segments < 4 || after.Segments != 2 || after.Records != 5 {
			t.Errorf("%d segments, then %d", before.Segments, after.Segments)
		}
		l.stop()
	})
}
