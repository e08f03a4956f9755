package coord

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"timehub/hub"
)

// Why a cursor cannot be moved any more; in the chain of an error of kind Conflict.
var (
	ErrFenced = errors.New("another leader has taken the cursor")
	ErrReset  = errors.New("the cursor was moved by hand or removed")
)

// CursorsOptions are the parts of a Cursors.
type CursorsOptions struct {
	Registers Registers     // required
	Prefix    string        // cursor x is the register Prefix/x; required
	Tick      time.Duration // 0: 100 ms
	Log       *slog.Logger
}

// Cursors keeps the cursors of one node: each a register that holds a key which only moves forward. Moves are remembered in memory; everything that
// changed is written in one Update (of at most 1,000 cursors) per tick. While nothing moves, nothing ticks. After a crash a follower
// repeats what it finished within the last tick.
//
// All methods are safe for concurrent use.
type Cursors struct {
	registers Registers
	prefix    string
	tick      time.Duration
	log       *slog.Logger
	wake      chan struct{} // one token: something is dirty
	turn      chan struct{} // held by the one who writes

	mu    sync.Mutex // guards what follows, and the fields of every Cursor
	open  map[string]*Cursor
	dirty map[*Cursor]struct{}
}

// Cursor is the right of one follower to move one cursor.
type Cursor struct {
	owner   *Cursors
	name    string
	life    context.Context // ends when the cursor is lost
	end     context.CancelCauseFunc
	at      Position
	ask     func() (hub.Key, []byte) // of MoveFunc: what at is to be when it is written; nil: as it is
	version uint64                   // of the register, as last seen
	moves   uint64                   // counts changes of at
	err     error                    // why it can no longer be moved
}

// NewCursors returns a Cursors without any open cursor.
func NewCursors(o CursorsOptions) (*Cursors, error) {
	if o.Registers == nil {
		return nil, errors.New("cursors need Registers")
	}
	if err := CheckName(o.Prefix); err != nil {
		return nil, fmt.Errorf("prefix of cursors: %w", err)
	}
	if o.Tick <= 0 {
		o.Tick = 100 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Cursors{
		registers: o.Registers, prefix: o.Prefix + "/", tick: o.Tick, log: o.Log,
		wake: make(chan struct{}, 1), turn: make(chan struct{}, 1),
		open: map[string]*Cursor{}, dirty: map[*Cursor]struct{}{},
	}, nil
}

// Open takes the cursor for a leader: it writes the fence into the register, so that nobody with a smaller one can move the cursor any more. A cursor
// that does not exist begins at the zero key. A greater fence in the register is a Conflict with ErrFenced. A Cursor of that name opened here before
// is lost.
func (s *Cursors) Open(ctx context.Context, name string, fence uint64) (*Cursor, error) {
	for {
		c, err := s.read(ctx, name, fence)
		if err != nil {
			return nil, err
		}
		c.version, err = s.registers.Set(ctx, s.prefix+name, c.at.encode(), c.version)
		if err == nil {
			return s.adopt(c), nil
		}
		if !hub.Is(err, hub.Conflict) {
			return nil, fmt.Errorf("open cursor %s: %w", name, err)
		}
	}
}

// Load is Open without a write: the first move takes the cursor. Until then a leader with a smaller fence can still move it, and then the greater key holds.
// It is meant for followers of which repeating is harmless and most are idle.
func (s *Cursors) Load(ctx context.Context, name string, fence uint64) (*Cursor, error) {
	c, err := s.read(ctx, name, fence)
	if err != nil {
		return nil, err
	}
	return s.adopt(c), nil
}

func (s *Cursors) read(ctx context.Context, name string, fence uint64) (*Cursor, error) {
	p, version, err := s.get(ctx, name)
	if err != nil {
		return nil, err
	}
	if p.Fence > fence {
		return nil, gone(name, ErrFenced)
	}
	p.Fence = fence
	c := &Cursor{owner: s, name: name, at: p, version: version}
	c.life, c.end = context.WithCancelCause(context.Background())
	return c, nil
}

func (s *Cursors) get(ctx context.Context, name string) (Position, uint64, error) {
	b, version, err := s.registers.Get(ctx, s.prefix+name)
	switch {
	case hub.Is(err, hub.NotFound):
		return Position{}, 0, nil
	case err != nil:
		return Position{}, 0, fmt.Errorf("read cursor %s: %w", name, err)
	}
	p, err := parsePosition(b)
	if err != nil {
		return Position{}, 0, fmt.Errorf("cursor %s: %w", name, err)
	}
	return p, version, nil
}

func (s *Cursors) adopt(c *Cursor) *Cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.open[c.name]; old != nil {
		s.fail(old, ErrFenced)
	}
	s.open[c.name] = c
	return c
}

// fail ends a cursor; mu is held.
func (s *Cursors) fail(c *Cursor, why error) {
	if c.err == nil {
		c.err = gone(c.name, why)
		c.ask = nil
		c.end(c.err)
	}
	delete(s.dirty, c)
	if s.open[c.name] == c {
		delete(s.open, c.name)
	}
}

func gone(name string, why error) error {
	return hub.E(hub.Conflict, "cursor %s can no longer be moved here", name).Because(why)
}

// Get returns the position that a register holds now, whoever moves it; zero if there is none.
func (s *Cursors) Get(ctx context.Context, name string) (Position, error) {
	p, _, err := s.get(ctx, name)
	return p, err
}

// Reset puts a cursor to a key, forward or back, and raises its generation: the Cursor that somebody has open, on any node, is lost with ErrReset at
// its next write at the latest; whoever holds it open here, at once. It is durable when Reset returns nil. The payload is replaced.
func (s *Cursors) Reset(ctx context.Context, name string, key hub.Key, payload []byte) (generation uint64, err error) {
	if len(payload) > MaxPayload {
		return 0, hub.E(hub.TooLarge, "cursor %s would hold %d bytes beside its key: at most %d are allowed", name, len(payload), MaxPayload)
	}
	for {
		p, version, err := s.get(ctx, name)
		if err != nil {
			return 0, err
		}
		p.Key, p.Payload = key, payload
		p.Generation++
		_, err = s.registers.Set(ctx, s.prefix+name, p.encode(), version)
		if err == nil {
			s.loseOpen(name)
			return p.Generation, nil
		}
		if !hub.Is(err, hub.Conflict) {
			return 0, fmt.Errorf("reset cursor %s: %w", name, err)
		}
	}
}

// Delete removes a cursor; who has it open loses it as with Reset.
func (s *Cursors) Delete(ctx context.Context, name string) error {
	if _, err := s.registers.Update(ctx, []Change{{Name: s.prefix + name, Any: true}}); err != nil {
		return fmt.Errorf("delete cursor %s: %w", name, err)
	}
	s.loseOpen(name)
	return nil
}

func (s *Cursors) loseOpen(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.open[name]; c != nil {
		s.fail(c, ErrReset)
	}
}

// Position is where the cursor stands; it may not be written yet. Its payload must not be changed.
func (c *Cursor) Position() Position {
	c.owner.mu.Lock()
	defer c.owner.mu.Unlock()
	return c.at
}

// Lost is closed when the cursor can no longer be moved here; Move then says why.
func (c *Cursor) Lost() <-chan struct{} { return c.life.Done() }

// AfterLost calls f in a goroutine of its own when the cursor is lost, or at once if it is. stop ends that, and reports whether f will not be called.
// Ten thousand followers need no goroutine each to wait for a loss.
func (c *Cursor) AfterLost(f func(why error)) (stop func() bool) {
	return context.AfterFunc(c.life, func() { f(context.Cause(c.life)) })
}

// Move takes the cursor to key with a payload, which belongs to the cursor from now on. A key below the position is ignored, with its payload. It is
// written within a tick, while Run runs, or by Flush. A Conflict says that the cursor is lost, and why: ErrFenced or ErrReset.
func (c *Cursor) Move(key hub.Key, payload []byte) error {
	if len(payload) > MaxPayload {
		return hub.E(hub.TooLarge, "cursor %s would hold %d bytes beside its key: at most %d are allowed", c.name, len(payload), MaxPayload)
	}
	s := c.owner
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if key.Less(c.at.Key) || key == c.at.Key && string(payload) == string(c.at.Payload) {
		return nil
	}
	c.at.Key, c.at.Payload = key, payload
	c.ask = nil
	c.moves++
	s.touch(c)
	return nil
}

// MoveFunc is Move for a follower whose payload changes more often than it is written: ask is called once before each write that is due, and says then
// where the cursor stands; until then Position is the old one. The last ask holds. It is called without any lock of Cursors, and must not wait. A key
// below the position, and a payload above MaxPayload, are not written.
func (c *Cursor) MoveFunc(ask func() (key hub.Key, payload []byte)) error {
	s := c.owner
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.ask = ask
	c.moves++
	s.touch(c)
	return nil
}

// touch marks a cursor to be written; mu is held.
func (s *Cursors) touch(c *Cursor) {
	s.dirty[c] = struct{}{}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close gives the cursor up without writing what is not written yet. It is not lost to anybody else by this.
func (c *Cursor) Close() {
	c.owner.mu.Lock()
	defer c.owner.mu.Unlock()
	c.owner.fail(c, context.Canceled)
}
