package attempts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"timehub/hub/disk"
)

// maxOpen bounds the open files of a Store.
const maxOpen = 64

// writer is what Run needs to write; it has one goroutine.
type writer struct {
	s     *Store
	files map[string]disk.File // open ones, by name
	used  []string             // the same, least recently used first
	buf   []byte
	ill   bool  // the disk failed last time
	lost  int64 // of Dropped, so many were logged
	said  time.Time
}

// Run reads what there is, then writes what Add brings until ctx ends; then it writes what is left. While nothing is added, nothing happens. A disk that
// fails is logged, once while it lasts, and costs attempts; Run goes on.
func (s *Store) Run(ctx context.Context) error {
	w := &writer{s: s, files: map[string]disk.File{}}
	defer w.closeAll()
	if err := s.load(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		w.told(err)
	}
	close(s.loaded)
	timer := time.NewTimer(gather)
	defer timer.Stop()
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			w.cycle()
			return nil
		}
		timer.Reset(gather)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		w.cycle()
	}
}

// cycle removes what is to go and writes what is there.
func (w *writer) cycle() {
	s := w.s
	s.mu.Lock()
	s.writing, s.pending, s.weight = s.pending, map[string][]Attempt{}, 0
	names := slices.Collect(maps.Keys(s.writing))
	s.mu.Unlock()
	var failed error
	for _, name := range names {
		if err := w.write(name); err != nil {
			failed = err
		}
	}
	if err := w.remove(); err != nil {
		failed = err
	}
	w.told(failed)
	w.count()
}

// count logs how many attempts were lost, once in a minute at most.
func (w *writer) count() {
	if n := w.s.Dropped(); n > w.lost && time.Since(w.said) >= time.Minute {
		w.s.opt.Log.Warn("attempts of webhooks were lost: the disk is too slow or full", "lost", n-w.lost)
		w.lost, w.said = n, time.Now()
	}
}

// told logs a failure, and the next one only after all was well again.
func (w *writer) told(err error) {
	if err != nil && !w.ill {
		w.s.opt.Log.Warn("attempts of webhooks cannot be written down", "err", err)
	}
	w.ill = err != nil
}

// write writes the attempts of one webhook, to as many segments as it takes.
func (w *writer) write(name string) error {
	s := w.s
	for {
		s.mu.Lock()
		rest := s.writing[name]
		if len(rest) == 0 { // all is written, or the webhook was removed
			delete(s.writing, name)
			s.mu.Unlock()
			return nil
		}
		d := s.diaries[name]
		if d == nil {
			d = &diary{}
			s.diaries[name] = d
		}
		g := s.current(d, name)
		at, room := g.size, segmentCount-g.count
		s.mu.Unlock()

		w.buf = w.buf[:0]
		if at == 0 {
			w.buf = appendHead(w.buf, name)
		}
		n, last := 0, int64(0)
		for _, a := range rest[:min(len(rest), room)] {
			if n > 0 && at+int64(len(w.buf)) >= s.segmentBytes {
				break
			}
			w.buf = appendAttempt(w.buf, a)
			n, last = n+1, max(last, a.Time.UnixMilli())
		}
		grown := blocks(at+int64(len(w.buf))) - blocks(at)
		err := w.makeRoom(grown, g)
		if err == nil {
			err = w.append(g.file, at)
		}

		s.mu.Lock()
		if s.diaries[name] == d && slices.Contains(d.segments, g) {
			if err != nil {
				s.dropped.Add(int64(len(s.writing[name])))
				delete(s.writing, name)
				g.shut = true
			} else {
				s.total += grown
				g.size, g.count, g.last = at+int64(len(w.buf)), g.count+n, max(g.last, last)
				d.count += n
				s.writing[name] = rest[n:]
			}
			if g.size == 0 {
				d.segments = d.segments[:len(d.segments)-1]
				s.doomed = append(s.doomed, g.file)
			}
			for len(d.segments) > 1 && d.count-d.segments[0].count >= s.opt.PerWebhook {
				s.drop(d, d.segments[0])
			}
		}
		s.mu.Unlock()
		if err != nil {
			return fmt.Errorf("write attempts of webhook %s: %w", name, err)
		}
	}
}

// current is the segment to be written to. Callers hold mu.
func (s *Store) current(d *diary, name string) *segment {
	if n := len(d.segments); n > 0 {
		if g := d.segments[n-1]; !g.shut && g.count < segmentCount && g.size < s.segmentBytes {
			return g
		}
	}
	g := &segment{file: path.Join(s.opt.Folder, fileName(s.next))}
	s.next++
	d.segments = append(d.segments, g)
	return g
}

// append writes buf at the end of a segment. What lies behind that end, after a crash or a failure, goes first.
func (w *writer) append(name string, at int64) error {
	f, err := w.open(name, at)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(w.buf, at); err != nil {
		w.close(name)
		return err
	}
	return nil
}

// open keeps the files open that were written to last.
func (w *writer) open(name string, at int64) (disk.File, error) {
	w.used = append(slices.DeleteFunc(w.used, func(n string) bool { return n == name }), name)
	if f := w.files[name]; f != nil {
		return f, nil
	}
	if len(w.files) >= maxOpen {
		w.close(w.used[0])
	}
	f, err := w.reach(name, at)
	if err == nil {
		w.files[name] = f
		return f, nil
	}
	w.close(name)
	return nil, err
}

// reach makes a segment, or opens one and cuts off what a crash or a failure left behind its end.
func (w *writer) reach(name string, at int64) (disk.File, error) {
	if at == 0 {
		f, err := w.s.opt.Disk.Create(name)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
	f, err := w.s.opt.Disk.Open(name, true)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err == nil && size > at {
		err = f.Truncate(at)
	} else if err == nil && size < at {
		err = fmt.Errorf("%s is shorter than it was", w.s.opt.Disk.Path(name))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (w *writer) close(name string) {
	if f := w.files[name]; f != nil {
		f.Close() // nothing is durable here, and what was not written was told by Write
		delete(w.files, name)
	}
	w.used = slices.DeleteFunc(w.used, func(n string) bool { return n == name })
}

func (w *writer) closeAll() {
	for len(w.used) > 0 {
		w.close(w.used[0])
	}
}

// remove removes the files that nobody needs any more.
func (w *writer) remove() error {
	s := w.s
	s.mu.Lock()
	doomed := s.doomed
	s.doomed = nil
	s.mu.Unlock()
	var failed error
	for _, name := range doomed {
		w.close(name)
		if err := s.opt.Disk.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = fmt.Errorf("remove old attempts: %w", err)
		}
	}
	return failed
}

// makeRoom lets segments go, those first that end earliest, until there is room for more bytes, and then some, so that it is not called for each write.
// keep is about to be written to.
func (w *writer) makeRoom(more int64, keep *segment) error {
	s := w.s
	s.mu.Lock()
	full := s.total+more > s.opt.MaxBytes
	if full {
		type place struct {
			d *diary
			g *segment
		}
		var all []place
		for _, d := range s.diaries {
			for _, g := range d.segments {
				if g != keep {
					all = append(all, place{d, g})
				}
			}
		}
		slices.SortFunc(all, func(a, b place) int { return cmp.Or(cmp.Compare(a.g.last, b.g.last), cmp.Compare(a.g.file, b.g.file)) })
		for _, p := range all {
			if s.total+more <= s.opt.MaxBytes-s.opt.MaxBytes/32 {
				break
			}
			s.drop(p.d, p.g)
		}
	}
	s.mu.Unlock()
	if !full {
		return nil
	}
	return w.remove()
}

const suffix = ".calls"

func fileName(n uint64) string { return fmt.Sprintf("%016x%s", n, suffix) }

func fileNumber(name string) (n uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 64)
	return n, err == nil
}
