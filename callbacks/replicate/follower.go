package replicate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/client"
	"timehub/hub/coord"
)

// ahead is how far the keys of a source may lie ahead of our clock: a marker that goes to the year 9999 would never come back.
const ahead = 24 * time.Hour

// follower keeps one channel equal to its source.
type follower struct {
	r      *Replicator
	ch     *hub.Channel
	id     string
	cancel context.CancelFunc
	ended  chan struct{} // closed when run has returned

	// What follows belongs to run.
	source  *client.Client
	name    string // of the channel at the source
	cursor  *coord.Cursor
	at      hub.Key // the source was read up to here
	marker  hub.Key
	limits  limits
	events  bool // the source has an event stream
	horizon bool // the source says its horizon with each list
	failing bool
	moved   bool // at has moved since the last failure
	state   state

	mu     sync.Mutex // guards what follows
	status Status
	shown  hub.Key // at, for the status
}

// follows reports whether the follower is the right one for a configuration.
func (f *follower) follows(ch *hub.Channel) bool {
	return ch.Name == f.ch.Name && ch.Since == f.ch.Since && ch.Lives == f.ch.Lives && ch.ReplicationSource == f.ch.ReplicationSource && ch.MutableTime.Equal(f.ch.MutableTime)
}

func (f *follower) log() *slog.Logger {
	return f.r.opt.Log.With("channel", f.ch.Name, "source", shown(f.ch.ReplicationSource))
}

// run follows, while this node leads, until ctx ends.
func (f *follower) run(ctx context.Context) {
	base, name, err := splitSource(f.ch.ReplicationSource)
	if err == nil {
		f.source, err = client.New(client.Options{URL: base, Tries: 1, Transport: f.r.calls, MaxDocument: maxList})
	}
	if err != nil {
		f.show(func(s *Status) {
			s.State, s.LastError, s.LastErrorTime = Unusable, err.Error(), hub.ISO(f.r.opt.Clock())
		})
		f.log().Error("a channel has no usable replicationSource", "err", err)
		return
	}
	f.name = name
	for ctx.Err() == nil {
		err := coord.Lead(ctx, f.r.opt.Leases, leasePrefix+f.id, f.lead)
		if err == nil || ctx.Err() != nil {
			return
		}
		f.log().Error("replication ended; it begins again", "err", err)
		hub.Sleep(ctx, f.r.opt.RetryMax)
	}
}

// splitSource takes the address of a channel apart.
func splitSource(source string) (base, name string, err error) {
	u, err := url.Parse(strings.TrimRight(source, "/"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", "", hub.E(hub.Invalid, "the replicationSource %q is no URL: want something like http://hub.example/channel/orders", shown(source))
	}
	segments := strings.Split(u.EscapedPath(), "/")
	n := len(segments)
	if n < 3 || segments[n-2] != "channel" || segments[n-1] == "" || u.RawQuery != "" || u.Fragment != "" {
		return "", "", hub.E(hub.Invalid, "the replicationSource %q is not the address of a channel: want something like http://hub.example/channel/orders", shown(source))
	}
	if name, err = url.PathUnescape(segments[n-1]); err != nil {
		return "", "", hub.E(hub.Invalid, "the replicationSource %q is no URL", shown(source)).Because(err)
	}
	return u.Scheme + "://" + u.Host + strings.Join(segments[:n-2], "/"), name, nil
}

// shown is a source as logs and errors say it: without its password.
func shown(source string) string {
	if u, err := url.Parse(source); err == nil && u.Opaque == "" {
		return u.Redacted()
	}
	if i := strings.LastIndexByte(source, '@'); i >= 0 { // nobody knows where the password begins
		return "xxxxx" + source[i:]
	}
	return source
}

// lead follows under a lease. It returns when ctx ends, or an error that wraps coord.ErrLeaseLost.
func (f *follower) lead(ctx context.Context, fence uint64) error {
	defer f.show(func(s *Status) { s.State = Waiting })
	f.show(func(s *Status) { s.State = Catching })
	f.cursor, f.failing, f.events, f.horizon = nil, false, true, true
	defer func() {
		if f.cursor != nil {
			f.r.cursors.Flush(context.WithoutCancel(ctx))
			f.cursor.Close()
		}
	}()
	pause := f.r.opt.RetryMin
	for {
		f.moved = false
		err := f.follow(ctx, fence)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, coord.ErrFenced):
			return fmt.Errorf("%w: %w", coord.ErrLeaseLost, err)
		case errors.Is(err, coord.ErrReset):
			f.cursor = nil
		}
		if hub.Is(err, hub.Conflict) && !errors.Is(err, coord.ErrReset) {
			err = nil // the configuration has changed: whoever knows that ends us soon
		}
		if f.moved {
			pause = f.r.opt.RetryMin
		}
		f.failed(err)
		wait := pause/2 + rand.N(pause/2+1)
		if e := (*hub.Error)(nil); errors.As(err, &e) {
			wait = max(wait, min(e.RetryAfter, f.r.opt.RetryMax))
		}
		if !hub.Sleep(ctx, wait) {
			return context.Cause(ctx)
		}
		pause = min(2*pause, f.r.opt.RetryMax)
	}
}

// begin finds out where to go on. It does nothing when it has done so under this lease.
func (f *follower) begin(ctx context.Context, fence uint64) error {
	if f.cursor != nil {
		return nil
	}
	c, err := f.r.cursors.Open(ctx, f.id, fence)
	if err != nil {
		return err
	}
	p := c.Position()
	st := parseState(p.Payload)
	resumed := st.of(f.ch)
	archived, err := f.r.opt.Archived(ctx, f.ch.Name)
	if err != nil {
		return fmt.Errorf("ask how far the channel is archived: %w", err)
	}
	marker, oldest, fresh, err := f.r.opt.Channels.BeginReplica(ctx, f.ch, resumed, archived)
	if err != nil {
		return err
	}
	at := p.Key
	same := resumed && st.Source == f.ch.ReplicationSource && !at.IsZero()
	switch {
	case !same:
		at, st = hub.Key{}, state{Source: f.ch.ReplicationSource, Since: f.ch.Since, Lives: f.ch.Lives}
	case fresh && archived.Less(at): // the log was lost, and with it what was not archived
		at = archived
	}
	if before := hub.Last(oldest.Time().Add(-time.Millisecond)); at.Less(before) {
		at = before
	}
	f.at, f.marker, f.state = at, marker, st
	f.show(func(s *Status) { s.fill(st) })
	if at.Less(p.Key) || string(p.Payload) != string(st.encode()) {
		if _, err := f.r.cursors.Reset(ctx, f.id, at, st.encode()); err != nil {
			return err
		}
		if c, err = f.r.cursors.Open(ctx, f.id, fence); err != nil {
			return err
		}
	}
	f.cursor = c
	return nil
}

// follow reads the source until something fails.
func (f *follower) follow(ctx context.Context, fence uint64) error {
	if err := f.begin(ctx, fence); err != nil {
		return err
	}
	if err := f.meet(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	bell := newBell()
	listening := false
	rest := f.r.opt.RestMin
	for {
		items, began := f.state.Items, time.Now()
		more, err := f.round(ctx, !f.events)
		if err != nil {
			return err
		}
		if more {
			rest = f.r.opt.RestMin
			continue
		}
		f.recovered()
		if f.events && !listening {
			listening = true
			at := f.at
			group.Go(func() { bell.listen(ctx, f.source.Events(ctx, f.name, at)) })
		}
		if items != f.state.Items {
			rest = f.r.opt.RestMin
		}
		if !f.events && (items != f.state.Items || time.Since(began) >= f.r.opt.RestMin) {
			continue // the source holds a list while there is nothing
		}
		rang, err := bell.wait(ctx, f.at, rest)
		switch {
		case errors.Is(err, client.ErrNoEvents):
			f.log().Debug("the source has no events; asking it now and then", "err", err)
			f.events, listening, bell = false, false, newBell()
		case err != nil:
			return err
		case rang:
			rest = f.r.opt.RestMin
		default:
			rest = min(2*rest, f.r.opt.RestMax)
		}
	}
}

// failed notes why a round ended.
func (f *follower) failed(err error) {
	if err == nil {
		return
	}
	now := hub.ISO(f.r.opt.Clock())
	f.r.meters.failures.With(f.ch.Name).Add(1)
	f.state.Error, f.state.ErrorTime = err.Error(), now
	f.show(func(s *Status) { s.State, s.LastError, s.LastErrorTime = Retrying, err.Error(), now })
	f.measure()
	if f.failing {
		f.log().Debug("replication still fails", "err", err)
		return
	}
	f.failing = true
	f.log().Warn("replication fails; trying again until it works", "err", err)
}

// recovered notes that everything of the source is here.
func (f *follower) recovered() {
	if f.failing {
		f.failing = false
		f.log().Info("replication works again")
	}
	f.show(func(s *Status) { s.State = Live })
	f.measure()
}

// show changes what the status says.
func (f *follower) show(change func(s *Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.status)
	f.shown = f.at
}

// snapshot is the status now.
func (f *follower) snapshot() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	s.Gone = append([]Range{}, s.Gone...)
	if s.State != Live {
		s.LagMillis = lag(f.r.opt.Clock(), f.shown)
	}
	return s
}

func (f *follower) measure() {
	f.r.meters.lag.With(f.ch.Name).Set(float64(f.snapshot().LagMillis) / 1000)
}

// moveTo makes it durable that the source was read up to a key: the marker first, then, within a tick, the cursor.
func (f *follower) moveTo(ctx context.Context, to hub.Key) error {
	if !f.at.Less(to) {
		return nil
	}
	if f.marker.Less(to) {
		if err := f.r.opt.Channels.Complete(ctx, f.ch, to); err != nil {
			return err
		}
		f.marker = to
	}
	f.at, f.moved, f.state.Begun = to, true, true
	f.show(func(*Status) {})
	return f.cursor.Move(to, f.state.encode())
}
