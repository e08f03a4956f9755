package log

import (
	"fmt"
	"testing"
	"time"

	"timehub/e2e/memdisk"
)

// ending is a log whose process was killed after five groups; reached is what it said after the fourth, and after the fifth.
func ending(t *testing.T) (d *memdisk.Disk, all []Record, fourth, fifth Position) {
	t.Helper()
	d = memdisk.New(memdisk.Options{})
	l := mem(t, Options{Disk: d, MinFree: -1})
	if p := l.Reached(); p != (Position{}) {
		t.Errorf("a log without a group has reached %+v", p)
	}
	for i := range 5 {
		all = append(all, rec("a", i, fmt.Sprintf("item number %d", i)))
		fourth = l.Reached()
		l.mustPut(all[i])
	}
	fifth = l.Reached()
	next := d.Fork(memdisk.ProcessKill, 1)
	l.stop()
	if fourth.Length >= fifth.Length || fourth.Segment != fifth.Segment || fourth.Salt != fifth.Salt {
		t.Fatalf("it had reached %+v, then %+v", fourth, fifth)
	}
	return next, all, fourth, fifth
}

// TestDamageAtTheEnd: what was durable when the place was written down is damage when it is not valid, and no write that was not finished.
func TestDamageAtTheEnd(t *testing.T) {
	for _, c := range []struct {
		name    string
		reached func(fourth, fifth Position) Position
		hurt    func(d *memdisk.Disk, name string, fourth, fifth int64) error
		have    int
		hole    bool
	}{
		{"flipped, and known", func(_, p Position) Position { return p }, flip(0), 4, true},
		{"its header flipped, and known", func(_, p Position) Position { return p }, flip(8), 4, true},
		{"cut off, and known", func(_, p Position) Position { return p }, shorten(20), 4, true},
		{"all of it cut off, and known", func(_, p Position) Position { return p }, shorten(0), 4, true},
		{"flipped, and not known", func(p, _ Position) Position { return p }, flip(0), 4, false},
		{"cut off, and not known", func(p, _ Position) Position { return p }, shorten(20), 4, false},
		{"of another log", func(_, p Position) Position { p.Salt++; return p }, flip(0), 4, false},
		{"nothing known", func(_, _ Position) Position { return Position{} }, flip(0), 4, false},
		{"whole", func(_, p Position) Position { return p }, func(*memdisk.Disk, string, int64, int64) error { return nil }, 5, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, _ *memdisk.Disk) {
				d, all, fourth, fifth := ending(t)
				if err := c.hurt(d, segmentName(DefaultDir, fifth.Segment), fourth.Length, fifth.Length); err != nil {
					t.Fatal(err)
				}
				opt := Options{Disk: d, MinFree: -1, Reached: c.reached(fourth, fifth)}
				for start := range 3 { // without a footer, with one that is written at the first start, after more was written
					l, found, err := Open(t.Context(), opt)
					if err != nil {
						t.Fatal(err)
					}
					if (len(found.Holes) > 0) != c.hole || c.hole && found.Cut > 0 || !c.hole && start == 0 && (found.Cut > 0) != (c.have < 5) {
						t.Errorf("start %d: holes %+v, %d bytes cut", start, found.Holes, found.Cut)
					}
					if c.hole {
						if h := found.Holes[0]; h.Segment != fifth.Segment || h.Offset < fourth.Length || h.Offset+h.Length != fifth.Length {
							t.Errorf("start %d: the hole is %+v, the last group lay at %d–%d", start, h, fourth.Length, fifth.Length)
						}
					}
					if start == 0 {
						if p := l.Reached(); p != opt.Reached {
							t.Errorf("before a write it has reached %+v, want %+v", p, opt.Reached)
						}
						_ = l.Close()
						continue
					}
					r := run(t, l)
					want := append([]Record(nil), all[:c.have]...)
					for i := range start {
						more := rec("a", 10+i, "more")
						if i == start-1 {
							r.mustPut(more)
						}
						want = append(want, more)
					}
					r.has(t, want...)
					opt.Reached = r.Reached()
					time.Sleep(time.Second)
					r.stop()
				}
			})
		})
	}
}

// flip damages the last group from some bytes behind its beginning on; 0: the record only.
func flip(from int64) func(*memdisk.Disk, string, int64, int64) error {
	return func(d *memdisk.Disk, name string, fourth, fifth int64) error {
		if from == 0 {
			return d.Damage(name, fifth-6, []byte("@@@"))
		}
		return d.Damage(name, fourth+from, []byte("@@@@@@@@"))
	}
}

// shorten leaves some bytes of the last group.
func shorten(left int64) func(*memdisk.Disk, string, int64, int64) error {
	return func(d *memdisk.Disk, name string, fourth, _ int64) error {
		f, err := d.Open(name, true)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		return f.Truncate(fourth + left)
	}
}

// TestReachedIsDurable: what a power cut takes is never said to have been reached, whatever Options.Sync says.
func TestReachedIsDurable(t *testing.T) {
	for _, mode := range []SyncMode{Always, Interval, Never} {
		bubble(t, func(t *testing.T, d *memdisk.Disk) {
			l := mem(t, Options{Disk: d, MinFree: -1, Sync: mode})
			for i := range 40 {
				l.mustPut(rec("a", i, "item"))
				if i == 20 {
					if err := l.Sync(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Duration(i%5) * 20 * time.Millisecond)
				next := d.Fork(memdisk.PowerCut, uint64(i))
				reached := l.Reached()
				if (mode == Always || i == 20) && reached.Length == 0 {
					t.Fatalf("mode %v: nothing is reached after item %d", mode, i)
				}
				m, found, err := Open(t.Context(), Options{Disk: next, MinFree: -1, Reached: reached})
				if err != nil {
					t.Fatalf("mode %v, item %d: %v", mode, i, err)
				}
				for _, h := range found.Holes { // above it, what was not synced may be there in part
					if mode == Always || h.Offset < reached.Length {
						t.Errorf("mode %v, item %d: %+v had been reached, and there is the hole %+v", mode, i, reached, h)
					}
				}
				_ = m.Close()
			}
			l.stop()
		})
	}
}
