package log

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"timehub/hub"
	"timehub/hub/disk"
	"timehub/spoke/log/format"
)

// Open recovers the log in opt.Dir, making it if there is none. It starts nothing: writes wait for Run. What it returns is on the disk: a group that a
// crash left behind whole is written again and synced before it counts.
func Open(ctx context.Context, opt Options) (*Log, Recovered, error) {
	opt, err := opt.withDefaults()
	if err != nil {
		return nil, Recovered{}, err
	}
	r := recovery{l: newLog(opt), start: time.Now(), dead: map[uint64]bool{}}
	if err := r.run(ctx); err != nil {
		r.l.Close()
		return nil, Recovered{}, fmt.Errorf("open the log in %s: %w", opt.Disk.Path(opt.Dir), err)
	}
	return r.l, r.found, nil
}

// recovery is one start.
type recovery struct {
	l      *Log
	start  time.Time
	found  Recovered
	files  []*segmentFile // by sequence
	dead   map[uint64]bool
	sealed uint64 // footers up to this sequence are on the disk for sure
}

// segmentFile is a file of the log as a start finds it.
type segmentFile struct {
	seq     uint64
	name    string
	size    int64
	file    disk.File
	head    format.Head
	headErr error
	link    format.Link
	linkErr error
	fixed   *format.Link // of the successor, if there is one
}

func (r *recovery) run(ctx context.Context) error {
	if err := r.folder(); err != nil {
		return err
	}
	defer func() {
		for _, f := range r.files {
			if f.file != nil {
				f.file.Close()
			}
		}
	}()
	if err := r.list(); err != nil {
		return err
	}
	if err := r.readFloor(); err != nil {
		return err
	}
	if err := r.voids(); err != nil {
		return err
	}
	for _, f := range r.files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.segment(f); err != nil {
			return fmt.Errorf("segment %s: %w", f.name, err)
		}
	}
	return r.finish()
}

// folder makes the folder of the log. An empty one may be left from a start that died before its name was durable; after a failed sync no other sync
// makes it so. It gets a new name, before anything is put into it.
func (r *recovery) folder() error {
	d, dir := r.l.opt.Disk, r.l.opt.Dir
	err := d.MkdirAll(dir)
	if err == nil {
		var entries []disk.Info
		if entries, err = d.List(dir); err == nil && len(entries) == 0 {
			if err = d.Remove(dir); err == nil {
				err = d.MkdirAll(dir)
			}
		}
	}
	if err != nil {
		_ = d.Remove(dir) // if it is empty
		return fmt.Errorf("make the folder: %w", err)
	}
	return nil
}

// list opens the files and reads their first blocks.
func (r *recovery) list() error {
	l := r.l
	entries, err := l.opt.Disk.List(l.opt.Dir)
	if err != nil {
		return fmt.Errorf("list the folder: %w", err)
	}
	for _, e := range entries {
		seq, ok := parseSegmentName(e.Name)
		if !ok {
			if e.Name != floorFile && e.Name != floorTemp {
				l.log.Warn("the folder of the log has a file that does not belong there", "name", e.Name)
			}
			continue
		}
		f := &segmentFile{seq: seq, name: segmentName(l.opt.Dir, seq), size: e.Size}
		r.files = append(r.files, f)
		l.nextSeq = max(l.nextSeq, seq)
		if f.file, err = l.opt.Disk.Open(f.name, false); err != nil {
			return fmt.Errorf("open segment: %w", err)
		}
		b := make([]byte, format.DataStart)
		n, err := f.file.ReadAt(b, 0)
		if readFailed(err) {
			return fmt.Errorf("read the head of segment %s: %w", f.name, err)
		}
		if f.head, f.headErr = format.ParseHead(b[:n]); isVersion(f.headErr) {
			return fmt.Errorf("segment %s: %w", f.name, f.headErr)
		}
		f.link, f.linkErr = format.ParseLink(b[min(n, format.HeadSize):n])
		if f.headErr == nil && f.head.Seq != seq {
			f.headErr = format.ErrFormat
		}
		if f.headErr == nil {
			r.sealed = max(r.sealed, f.head.Sealed)
		} else {
			l.log.Warn("the head of a segment is not whole: it was just begun when the hub stopped, or it is damaged", "segment", f.name, "bytes", e.Size)
		}
		if f.linkErr == nil && (f.link.Seq != seq || f.headErr == nil && f.link.Salt != f.head.Salt) {
			f.linkErr = format.ErrFormat
		}
	}
	l.nextSeq++
	return nil
}

func isVersion(err error) bool {
	var v format.VersionError
	return errors.As(err, &v)
}

// readFloor reads the file floor, or makes it for a new log. When it is damaged or gone, nothing that was written before now is promised to be here.
func (r *recovery) readFloor() error {
	l := r.l
	s, err := readFloor(l.opt.Disk, l.opt.Dir)
	switch {
	case err == nil:
		l.floor, l.dead, l.buried = s.Floor, s.Dead, true
		for _, seq := range s.Dead {
			r.dead[seq] = true
			l.nextSeq = max(l.nextSeq, seq+1)
		}
		return nil
	case isVersion(err):
		return err
	case errors.Is(err, fs.ErrNotExist) && len(r.files) == 0:
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, format.ErrFormat):
		l.log.Error("the floor of the log is lost: long-term storage is asked for everything before this start", "err", err)
	default:
		return err
	}
	l.floor = hub.First(l.opt.Clock())
	return l.writeFloor(format.FloorState{Floor: l.floor})
}

// voids removes the files that the links of later ones say hold nothing, and those that were never used; it tells each file what its successor
// says of it.
func (r *recovery) voids() error {
	l := r.l
	void := r.dead
	bySeq := map[uint64]*segmentFile{}
	for _, f := range r.files {
		bySeq[f.seq] = f
	}
	for _, f := range slices.Backward(r.files) {
		if void[f.seq] || f.linkErr != nil {
			continue
		}
		for _, o := range r.files {
			if o.seq > f.link.PrevSeq && o.seq < f.seq {
				void[o.seq] = true
			}
		}
		if p := bySeq[f.link.PrevSeq]; p != nil {
			if p.headErr != nil || uint32(p.head.Salt) == uint32(f.link.PrevSalt) {
				p.fixed = &f.link
			}
		} else if f.link.PrevSeq != 0 && f.link.PrevLast > l.floor.Millis() {
			r.hole(Hole{Segment: f.link.PrevSeq, Length: f.link.PrevLength, From: l.floor, To: hub.Last(time.UnixMilli(f.link.PrevLast))})
		}
	}
	for _, f := range r.files { // made and never used
		if f.linkErr != nil && f.size <= format.DataStart && f.fixed == nil && r.l.opt.Reached.Segment != f.seq {
			void[f.seq] = true
		}
	}
	removed := false
	r.files = slices.DeleteFunc(r.files, func(f *segmentFile) bool {
		if void[f.seq] {
			f.file.Close()
			l.voids = append(l.voids, f.seq)
			removed = true
		}
		return void[f.seq]
	})
	if !removed {
		return nil
	}
	if _, err := l.removeVoids(); err != nil {
		return fmt.Errorf("remove an unused segment: %w", err)
	}
	return nil
}

func (r *recovery) hole(h Hole) {
	r.l.holes = append(r.l.holes, h)
	if r.l.opt.Mended(h) {
		return
	}
	r.l.hurt.Holes = append(r.l.hurt.Holes, h)
	r.l.metrics.damaged.Add(1)
	r.l.log.Error("acknowledged data is damaged on this disk", "segment", h.Segment, "offset", h.Offset, "bytes", h.Length, "from", h.From, "to", h.To)
}

// segment takes in one file: by its footer, or by a scan.
func (r *recovery) segment(f *segmentFile) error {
	l := r.l
	s := newSegment(l.opt.Dir, f.seq, 0)
	foot, lows, err := format.OpenFooter(f.file, f.size, f.seq)
	if isVersion(err) {
		return err
	}
	var marks map[string]hub.Key
	if err == nil {
		marks, err = foot.Complete(f.file)
	}
	if bad := (format.FooterError{}); errors.As(err, &bad) && bad.Read && f.fixed == nil {
		return noEnd(err)
	}
	if err == nil && f.seq > r.sealed { // it may not be on the disk
		if err := rewrite(l.opt.Disk, f.name, f.size-format.PageSize, f.size); err != nil {
			return err
		}
	}
	if err == nil && (f.headErr != nil || foot.Salt == f.head.Salt) && (f.fixed == nil || f.fixed.PrevLength == foot.Length) {
		s.salt, s.length, s.size, s.mem, s.foot = foot.Salt, foot.Length, f.size, nil, foot
		s.records, s.minMs, s.maxMs, s.last, s.closed = int(foot.Records), foot.MinMs, foot.MaxMs, foot.Last, foot.Closed
		for _, d := range foot.Holes {
			r.hole(holeOf(f.seq, d))
		}
		r.take(f, s, lows, marks)
		return nil
	}
	switch {
	case f.headErr == nil:
		s.salt = f.head.Salt
	case f.linkErr == nil:
		s.salt = f.link.Salt
	default:
		r.unreadable(f)
		return nil
	}
	return r.scanSegment(f, s)
}

// unreadable deals with a file that does not even say which groups are its own.
func (r *recovery) unreadable(f *segmentFile) {
	r.hole(Hole{Segment: f.seq, Length: f.size, From: r.l.floor, To: hub.MaxKey})
	r.l.log.Error("a segment cannot be read; its file stays where it is", "segment", f.name)
}

// take makes a segment part of the log.
func (r *recovery) take(f *segmentFile, s *segment, lows []Low, marks map[string]hub.Key) {
	l := r.l
	if l.open < idleFiles {
		l.adopt(s, f.file)
		f.file = nil
	}
	l.insert(s)
	l.learn(lows)
	s.named = namesOf(lows)
	l.hurt.learn(f.seq, lows)
	for name, upTo := range marks {
		l.learnComplete(name, upTo, s.seq)
	}
	l.prev = previous{s.seq, s.salt, s.length, s.maxMs}
	if r.found.Records == 0 || r.found.Last.Less(s.last) {
		r.found.Last = s.last
	}
	r.found.Segments++
	r.found.Records += int64(s.records)
	r.found.Bytes += s.size
}

func (r *recovery) finish() error {
	l := r.l
	if err := l.syncDir(); err != nil { // names that an earlier crash left unsynced count now
		return err
	}
	if _, err := l.removeVoids(); err != nil {
		return fmt.Errorf("remove an empty segment: %w", err)
	}
	r.found.Lows = format.SortedLows(l.lows)
	r.found.Holes = slices.Clone(l.holes)
	r.found.Took = time.Since(r.start)
	l.log.Info("the log is open", "segments", r.found.Segments, "records", r.found.Records, "scanned", r.found.Scanned, "cut", r.found.Cut,
		"holes", len(r.found.Holes), "took", r.found.Took, "folder", strings.TrimSpace(l.opt.Disk.Path(l.opt.Dir)))
	return nil
}
