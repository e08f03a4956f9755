package log

// Position is a place in the log: everything before it was on the disk once. A segment is known by its salt, too: a log that was made anew counts from 1 again.
type Position struct {
	Segment, Salt uint64
	Length        int64 // bytes of that segment; 0: no place is known
}

// Reached is how far the log is known to be durable. Who writes it down and hands it to the next Open as Options.Reached lets it tell damage at the very end of the log, up to
// there, from a write that was not finished. It never falls while a process lives, and is what Options.Reached says before anything was
// written.
func (l *Log) Reached() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reached
}

// reach notes that all of the active segment is durable. l.mu is held.
func (c *committer) reach() {
	s := c.active
	c.l.reached = Position{Segment: s.seq, Salt: s.salt, Length: s.length}
}

// sure is up to where what is in a file was on the disk: 0 where that is not known.
func (r *recovery) sure(f *segmentFile, salt uint64) int64 {
	if p := r.l.opt.Reached; p.Segment == f.seq && p.Salt == salt && f.fixed == nil {
		return p.Length
	}
	return 0
}
