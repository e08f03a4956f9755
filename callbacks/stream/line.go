package stream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"timehub/channel"
	"timehub/channel/feed"
	"timehub/hub"
	"timehub/hub/web"
)

// line is what one connection follows: a channel or a tag.
type line struct {
	s    *Server
	base string // scheme and authority of the addresses that are sent
	name string // of the channel, as the path spells it
	ch   *hub.Channel
	tag  string

	nudge chan struct{}
	feed  *feed.Feed
	tags  *feed.Tag
	hits  []feed.Hit // of a channel: reused
}

// open finds out what a request wants to follow, and from where. The cursor is taken before the client hears anything: what is written after that is
// sent.
func (s *Server) open(r *http.Request, base, last string, nudge chan struct{}) (*line, error) {
	l := &line{s: s, base: base, nudge: nudge, name: strings.Clone(web.Param(r, "channel")), tag: strings.Clone(web.Param(r, "tag"))} // the request goes
	if l.tag == "" {
		var err error
		if l.ch, err = s.opt.Channels.Channel(r.Context(), l.name); err != nil {
			return nil, err
		}
	}
	after, err := l.start(r, last)
	if err != nil {
		return nil, err
	}
	if l.tag != "" {
		l.tags, err = s.opt.Feeds.Tag(feed.TagOptions{Tag: l.tag, After: after, Limit: pageKeys, Nudge: nudge})
	} else {
		l.feed, err = s.opt.Feeds.Follow(l.ch.Name, after.Key, pageKeys, nudge)
	}
	return l, err
}

func (l *line) close() {
	if l.tag != "" {
		l.tags.Close()
	} else {
		l.feed.Close()
	}
}

// start is the cursor: the last item that the client says it saw, else what the path names (an item: after it; a period: with its first millisecond),
// else now. Of a replica, now is its latest stable item: its keys are older than the clock.
func (l *line) start(r *http.Request, last string) (feed.Hit, error) {
	if after, ok := l.lastSeen(last); ok {
		return after, nil
	}
	if p, ok := web.Found(r).(hub.Path); ok {
		if p.Unit == hub.ItemUnit {
			return feed.Hit{Key: p.Key()}, nil
		}
		return feed.Hit{Key: hub.First(p.Start)}, nil
	}
	if l.ch != nil && l.ch.Replicated() {
		page, err := l.s.opt.Channels.Keys(r.Context(), hub.Query{Channel: l.ch.Name, From: hub.MinKey, To: hub.MaxKey, Limit: 1, Reverse: true, Stable: true})
		switch {
		case err != nil:
			return feed.Hit{}, fmt.Errorf("find the latest item: %w", err)
		case page.Silent > 0:
			return feed.Hit{}, hub.E(hub.Unavailable, "the latest item is not known for sure: a store did not answer")
		case len(page.Keys) > 0:
			return feed.Hit{Key: page.Keys[0]}, nil
		}
		return feed.Hit{Key: hub.MinKey}, nil
	}
	now, err := l.s.opt.Channels.Now(r.Context())
	return feed.Hit{Key: now}, err
}

// lastSeen reads the address of an item, or its bare key. One of another channel says nothing.
func (l *line) lastSeen(text string) (feed.Hit, bool) {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "?")
	name := ""
	if scheme := strings.Index(text, "://"); scheme >= 0 || strings.HasPrefix(text, "/channel/") {
		_, path, ok := strings.Cut(text, "/channel/")
		if !ok {
			return feed.Hit{}, false
		}
		if name, text, ok = strings.Cut(path, "/"); !ok || l.tag == "" && hub.ChannelID(name) != hub.ChannelID(l.name) {
			return feed.Hit{}, false
		}
	}
	p, err := hub.ParsePath(strings.Trim(text, "/"))
	if err != nil || p.Unit != hub.ItemUnit || p.Verb != hub.NoVerb {
		return feed.Hit{}, false
	}
	if l.tag == "" {
		name = ""
	}
	return feed.Hit{Channel: name, Key: p.Key()}, true
}

// next waits for keys. Without any, and without an error, the connection was nudged. What it returned before is not valid any more.
func (l *line) next(ctx context.Context) ([]feed.Hit, error) {
	if l.tag != "" {
		return l.tags.Next(ctx)
	}
	keys, err := l.feed.Next(ctx)
	l.hits = l.hits[:0]
	for _, k := range keys {
		l.hits = append(l.hits, feed.Hit{Channel: l.ch.Name, Key: k})
	}
	return l.hits, err
}

// rouse lets a next that waits return without keys.
func (l *line) rouse() {
	select {
	case l.nudge <- struct{}{}:
	default:
	}
}

// peek is next for somebody who wants no more than there is: without keys it does not wait.
func (l *line) peek(ctx context.Context) ([]feed.Hit, error) {
	l.rouse()
	hits, err := l.next(ctx)
	select {
	case <-l.nudge:
	default:
	}
	return hits, err
}

// appendURL appends the address of an item.
func (l *line) appendURL(b []byte, h feed.Hit) []byte {
	b = append(append(b, l.base...), "/channel/"...)
	if l.tag == "" {
		b = append(append(b, l.name...), '/')
	} else {
		b = append(append(b, h.Channel...), '/')
	}
	b = hub.AppendTimePath(b, h.Key.Millis())
	b = append(b, '/')
	b = appendHash(b, h.Key.Hash())
	if l.tag != "" {
		b = append(append(b, "?tag="...), url.QueryEscape(l.tag)...)
	}
	return b
}

// appendHash appends a hash as a path segment. Those that hubs mint need nothing.
func appendHash(b []byte, hash string) []byte {
	for i := range len(hash) {
		if strings.IndexByte(hub.Alphabet, hash[i]) < 0 {
			if strings.Trim(hash, ".") == "" { // those who clean paths take it for a direction
				return append(b, strings.ReplaceAll(hash, ".", "%2E")...)
			}
			return append(b, url.PathEscape(hash)...)
		}
	}
	return append(b, hash...)
}

const (
	readRetryMin = 100 * time.Millisecond
	readRetryMax = 5 * time.Second
)

// items reads the items of hits and hands them to each, in order. Those that are no longer there are left out. A store that does not answer is asked
// again until it does: nothing is skipped for it. The errors are those of ctx and of each.
func (l *line) items(ctx context.Context, hits []feed.Hit, each func(feed.Hit, channel.Found) error) error {
	pause := readRetryMin
	for len(hits) > 0 {
		n, err := l.run(ctx, hits, each)
		if n > 0 {
			pause = readRetryMin
		}
		var own *sendError
		switch hits = hits[n:]; {
		case err == nil:
			continue
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case asSendError(err, &own):
			return own.err
		case hub.Is(err, hub.NotFound): // the channel is gone: the feed says so next, or leaves it out of the tag
			if l.tag == "" {
				return nil
			}
			hits = hits[1:]
			continue
		}
		l.s.opt.Log.Warn("an item cannot be sent yet; trying again", "channel", hits[0].Channel, "key", hits[0].Key.String(), "err", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, readRetryMax)
	}
	return nil
}

// sendError is a failure of the connection, not of a store.
type sendError struct{ err error }

func (e *sendError) Error() string { return e.err.Error() }

func asSendError(err error, to **sendError) bool {
	e, ok := err.(*sendError)
	*to = e
	return ok
}

// run deals with the first hits, which are of one channel, and returns how many of them are done.
func (l *line) run(ctx context.Context, hits []feed.Hit, each func(feed.Hit, channel.Found) error) (done int, err error) {
	name := hits[0].Channel
	ch, err := l.s.opt.Channels.Channel(ctx, name)
	if err != nil {
		return 0, err
	}
	var keys []hub.Key
	for _, h := range hits {
		if h.Channel != name {
			break
		}
		keys = append(keys, h.Key)
	}
	for item, err := range feed.Items(ctx, l.s.opt.Channels, name, keys) {
		switch {
		case hub.Is(err, hub.NotFound) && !item.Key.IsZero():
		case err != nil:
			return done, err
		default:
			f, err := l.s.opt.Channels.Parse(ch, item)
			if err != nil {
				return done, err
			}
			if err := each(hits[done], f); err != nil {
				return done, err
			}
		}
		done++
	}
	return done, nil
}
