package archive

import (
	"context"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
)

// Archived is the key up to which a channel is in long-term storage, for the sweep of the short-term store; false: there is no such channel, so nobody needs
// what the store still holds of it. Of a channel of which nothing is known, nothing is archived. On a node that does not archive, the coordinator is asked.
func (j *Jobs) Archived(channel string) (hub.Key, bool) {
	j.mu.Lock()
	leads := j.leads
	var v view
	if known := j.views[channel]; known != nil {
		v = *known
	}
	j.mu.Unlock()
	if !leads {
		return j.archivedElsewhere(channel)
	}
	switch {
	case v.gone:
		return hub.Key{}, false
	case v.at.IsZero():
		return hub.MinKey, true
	}
	return v.at, true
}

// ArchivedTo is Archived for a node that has no Jobs yet: the key up to which a channel is in long-term storage, read from the coordinator; zero if nothing of it is.
func ArchivedTo(ctx context.Context, r coord.Registers, channel string) (hub.Key, error) {
	c, err := coord.NewCursors(coord.CursorsOptions{Registers: r, Prefix: archivedPrefix})
	if err != nil {
		return hub.Key{}, err
	}
	p, err := c.Get(ctx, channel)
	return p.Key, err
}

// Cursor is the key up to which a channel is in long-term storage, read from the coordinator; zero if nothing of it is.
func (j *Jobs) Cursor(ctx context.Context, channel string) (hub.Key, error) {
	p, err := j.archived.Get(ctx, channel)
	return p.Key, err
}

func (j *Jobs) archivedElsewhere(channel string) (hub.Key, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), confirmTimeout)
	defer cancel()
	ch, err := j.live(ctx, channel)
	if err != nil {
		return hub.MinKey, true
	}
	if ch == nil {
		return hub.Key{}, false
	}
	p, err := j.archived.Get(ctx, channel)
	if err != nil || p.Key.IsZero() {
		return hub.MinKey, true
	}
	return p.Key, true
}

// Oldest is the age of the oldest item that is in the short-term store and not known to be in long-term storage, and its channel; 0 and "" if there is none.
// It is known on the node that archives.
func (j *Jobs) Oldest() (age time.Duration, channel string) {
	now := j.opt.Clock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.behind == 0 {
		return 0, ""
	}
	var oldest time.Time
	for name, v := range j.views {
		if !v.oldest.IsZero() && (channel == "" || v.oldest.Before(oldest)) {
			channel, oldest = name, v.oldest
		}
	}
	return max(0, now.Sub(oldest)), channel
}

// measure sets the gauges.
func (j *Jobs) measure() {
	age, _ := j.Oldest()
	j.mu.Lock()
	behind := j.behind
	j.mu.Unlock()
	j.meters.lag.Set(age.Seconds())
	j.meters.pending.Set(float64(behind))
}

func (j *Jobs) waiting() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.behind > 0
}

// look calls f with the view of a channel, made if need be.
func (j *Jobs) look(name string, f func(v *view)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	v := j.views[name]
	if v == nil {
		v = &view{}
		j.views[name] = v
	}
	was := v.oldest.IsZero()
	f(v)
	switch now := v.oldest.IsZero(); {
	case was && !now:
		j.behind++
	case !was && now:
		j.behind--
	}
}

// waits notes that a channel has something to archive, at least since t.
func (j *Jobs) waits(name string, t time.Time) {
	j.look(name, func(v *view) {
		v.gone = false
		if v.oldest.IsZero() || t.Before(v.oldest) {
			v.oldest = t
		}
	})
}

// reached notes how far a channel is archived; oldest is the time of what is left, zero if nothing is.
func (j *Jobs) reached(name string, at hub.Key, oldest time.Time) {
	j.look(name, func(v *view) { v.at, v.oldest, v.gone = at, oldest, false })
}

func (j *Jobs) vanished(name string) {
	j.look(name, func(v *view) { v.gone, v.oldest = true, time.Time{} })
}

// begin and end frame the time in which this node archives.
func (j *Jobs) begin() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.views, j.behind, j.leads = map[string]*view{}, 0, true
}

func (j *Jobs) end() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.views, j.behind, j.leads = map[string]*view{}, 0, false
}
