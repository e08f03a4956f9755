package attempts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"timehub/hub"
	"timehub/hub/disk"
)

const (
	defaultBytes  = 256 << 20
	defaultKept   = 1000
	defaultFolder = "attempts"
	segmentCount  = 256
	segmentBytes  = 128 << 10
	block         = 4 << 10 // what a file needs is a multiple of it
	pendingBytes  = 16 << 20
	gather        = 100 * time.Millisecond // from the first attempt to the write
	loadWait      = 10 * time.Second
)

// Options are the parts of a Store.
type Options struct {
	Disk       disk.Disk // required
	Folder     string    // below the root of Disk; "": attempts
	MaxBytes   int64     // of all files; 0: 256 MiB
	PerWebhook int       // 0: 1,000
	Log        *slog.Logger
}

// Store holds the attempts. All methods are safe for concurrent use; only Run writes to the disk.
type Store struct {
	opt          Options
	segmentBytes int64
	wake         chan struct{} // one token: there is something to do
	loaded       chan struct{} // closed when the folder was read
	dropped      atomic.Int64

	mu      sync.Mutex // guards what follows, and the fields of every diary and segment
	diaries map[string]*diary
	pending map[string][]Attempt // not yet written
	weight  int                  // of pending
	writing map[string][]Attempt // being written
	doomed  []string             // files to be removed
	total   int64                // bytes of all files, in blocks
	next    uint64               // number of the next file
}

// diary is what there is of one webhook.
type diary struct {
	segments []*segment // oldest first
	count    int
}

// segment is one file.
type segment struct {
	file  string
	size  int64 // up to here it is whole
	count int
	last  int64 // ms of its newest attempt
	shut  bool  // writing to it has failed: the next attempts go to another one
}

func blocks(size int64) int64 { return (size + block - 1) / block * block }

// Open makes the folder. It reads and starts nothing: that is Run.
func Open(o Options) (*Store, error) {
	if o.Disk == nil {
		return nil, errors.New("attempts need a Disk")
	}
	if o.MaxBytes < 0 || o.PerWebhook < 0 {
		return nil, fmt.Errorf("attempts cannot be kept: %d of a webhook, %d bytes", o.PerWebhook, o.MaxBytes)
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultBytes
	}
	if o.PerWebhook == 0 {
		o.PerWebhook = defaultKept
	}
	if o.Folder == "" {
		o.Folder = defaultFolder
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := o.Disk.MkdirAll(o.Folder); err != nil {
		return nil, fmt.Errorf("make the folder of attempts: %w", err)
	}
	return &Store{
		opt: o, segmentBytes: min(max(o.MaxBytes/16, block), segmentBytes), wake: make(chan struct{}, 1), loaded: make(chan struct{}),
		diaries: map[string]*diary{}, pending: map[string][]Attempt{},
	}, nil
}

// Add hands over an attempt of a webhook. It never waits: when the disk is too slow, the attempt is dropped and counted. The answer must not be changed
// afterwards.
func (s *Store) Add(name string, a Attempt) {
	a = a.cut()
	s.mu.Lock()
	full := s.weight > pendingBytes
	if !full {
		s.weight += a.weight()
		s.pending[name] = append(s.pending[name], a)
	}
	s.mu.Unlock()
	if full {
		s.dropped.Add(1)
		return
	}
	s.signal()
}

func (s *Store) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Dropped is how many attempts were lost because the disk was slow or full.
func (s *Store) Dropped() int64 { return s.dropped.Load() }

// Remove forgets a webhook.
func (s *Store) Remove(name string) {
	s.mu.Lock()
	for _, a := range s.pending[name] {
		s.weight -= a.weight()
	}
	delete(s.pending, name)
	delete(s.writing, name)
	if d := s.diaries[name]; d != nil {
		for len(d.segments) > 0 {
			s.drop(d, d.segments[0])
		}
		delete(s.diaries, name)
	}
	s.mu.Unlock()
	s.signal()
}

// drop takes a segment out of a diary; its file is removed later. Callers hold mu.
func (s *Store) drop(d *diary, g *segment) {
	s.doomed = append(s.doomed, g.file)
	s.total -= blocks(g.size)
	d.count -= g.count
	d.segments = slices.DeleteFunc(d.segments, func(o *segment) bool { return o == g })
}

// all returns the attempts of a webhook, newest first.
func (s *Store) all(name string) ([]Attempt, error) {
	timer := time.NewTimer(loadWait)
	defer timer.Stop()
	select {
	case <-s.loaded:
	case <-timer.C:
		return nil, hub.E(hub.Unavailable, "the attempts of before the start are not read yet: try again")
	}
	var segments []segment
	s.mu.Lock()
	if d := s.diaries[name]; d != nil {
		for _, g := range d.segments {
			segments = append(segments, *g)
		}
	}
	all := slices.Concat(s.writing[name], s.pending[name]) // oldest first
	s.mu.Unlock()
	slices.Reverse(all)
	for _, g := range slices.Backward(segments) {
		if len(all) >= s.opt.PerWebhook {
			break
		}
		b, err := readFile(s.opt.Disk, g.file, g.size)
		if errors.Is(err, fs.ErrNotExist) {
			break // it was the oldest and is gone
		}
		if err != nil {
			return nil, fmt.Errorf("read the attempts of webhook %s: %w", name, err)
		}
		var older []Attempt
		if _, _, err := parseSegment(b, func(a Attempt) { older = append(older, a) }); err != nil {
			return nil, fmt.Errorf("read the attempts of webhook %s in %s: %w", name, s.opt.Disk.Path(g.file), err)
		}
		slices.Reverse(older)
		all = append(all, older...)
	}
	return all[:min(len(all), s.opt.PerWebhook)], nil
}

// load reads the folder. A file without a whole head is what a crash left of its making and goes; one of another version stays and is not looked at.
func (s *Store) load(ctx context.Context) error {
	infos, err := s.opt.Disk.List(s.opt.Folder)
	if err != nil {
		return fmt.Errorf("read the folder of attempts: %w", err)
	}
	found := map[string]*diary{}
	var torn []string
	var total int64
	var next uint64
	for _, i := range infos { // in the order of their numbers
		number, ok := fileNumber(i.Name)
		if !ok || i.Dir || i.Size > maxFile {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		next = number + 1
		g := &segment{file: path.Join(s.opt.Folder, i.Name)}
		b, err := readFile(s.opt.Disk, g.file, maxFile)
		var name string
		if err == nil {
			name, g.size, err = parseSegment(b, func(a Attempt) { g.count, g.last = g.count+1, max(g.last, a.Time.UnixMilli()) })
		}
		switch {
		case errors.Is(err, errTorn) || err == nil && g.count == 0:
			torn = append(torn, g.file)
			continue
		case err != nil:
			s.opt.Log.Warn("attempts of webhooks cannot be read", "file", s.opt.Disk.Path(g.file), "err", err)
			continue
		}
		d := found[name]
		if d == nil {
			d = &diary{}
			found[name] = d
		}
		d.segments, d.count = append(d.segments, g), d.count+g.count
		total += blocks(g.size)
	}
	s.mu.Lock()
	s.diaries, s.total, s.next, s.doomed = found, total, next, append(s.doomed, torn...)
	s.mu.Unlock()
	return nil
}
