package longterm_test

import (
	"errors"
	"testing"

	"timehub/channel/longterm"
	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/hub/bucket/dir"
	"timehub/hub/seal"
)

// TestCrashes cuts the power at each disk call of two minutes' archiving, one of them written twice, over bucket/dir: what was confirmed is there and whole,
// doing it again makes all of it so, and no temporary file outlives the next start.
func TestCrashes(t *testing.T) {
	w := &world{t: t, sealer: seal.New(seal.Options{})}
	items := minuteItems(w, 6)
	late := w.item(key("2021-03-04T05:07:30.000Z", "late00"), "", "late")
	first := items[0].Key.Time()
	steps := [][]hub.Sealed{{items[1], items[4]}, {late}, items}
	archive := func(s *longterm.Store) (done [][]hub.Sealed, err error) {
		for _, step := range steps {
			if _, err := s.PutMinute(ctx, both, step[0].Key.Time(), seq(step...)); err != nil {
				return done, err
			}
			for _, i := range step {
				if err := s.PutSingle(ctx, both, i); err != nil {
					return done, err
				}
			}
			done = append(done, step)
		}
		return done, nil
	}
	open := func(d *memdisk.Disk) *longterm.Store {
		if err := d.RemoveAll("tmp"); err != nil { // as a node does at its start
			t.Fatal(err)
		}
		b, err := dir.New(dir.Options{Disk: d})
		if err != nil {
			t.Fatal(err)
		}
		s, err := longterm.New(longterm.Options{Bucket: b, Sealer: w.sealer, Temp: d})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	whole := func(s *longterm.Store, k int, steps [][]hub.Sealed) {
		t.Helper()
		for _, ch := range []*hub.Channel{single, batch} {
			for _, step := range steps {
				for _, i := range step {
					item, err := s.Read(ctx, ch, i.Key)
					if err != nil {
						t.Fatalf("call %d, %s: %v", k, ch.Storage, err)
					}
					_, want := w.open(i)
					if _, have := w.open(item); have != want {
						t.Fatalf("call %d: %v is %q", k, i.Key, have)
					}
				}
			}
		}
	}
	for k := 1; ; k += 1 + k/40 {
		d := memdisk.New(memdisk.Options{Seed: uint64(k)})
		s := open(d)
		d.CrashAt(memdisk.Changes, k, memdisk.Effect(k%3))
		done, err := archive(s)
		if err != nil && !errors.Is(err, memdisk.ErrKilled) {
			t.Fatalf("call %d: %v", k, err)
		}
		d = d.Restart(memdisk.PowerCut, uint64(k))
		s = open(d)
		whole(s, k, done)
		if _, err := archive(s); err != nil {
			t.Fatalf("again after call %d: %v", k, err)
		}
		whole(s, k, steps)
		if n, digest, err := s.MinuteDigest(ctx, both, hub.Batch, first); n != len(items) || err != nil {
			t.Fatalf("call %d: %d, %x, %v", k, n, digest, err)
		}
		if len(done) == len(steps) {
			if k < 100 {
				t.Errorf("only %d calls", k)
			}
			return
		}
	}
}
