package spoke

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"

	"timehub/hub"
	"timehub/hub/web"
	"timehub/spoke/frame"
	spokelog "timehub/spoke/log"
)

// A name of a given-up key is swept once every member knows it. A disk that was decommissioned is no member: when it is called back, it may hold records of which nobody else has
// the record or the name any more. They lie above its low and below the floor of the log that it copies from, so each was given up, or is in long-term storage: either way it
// must not show here.

const unknownPath = "/internal/spoke/unknown"

// questions are keys of a stream; the answer has those of which nothing is there, neither a record nor a name.
type questions struct {
	Ordinal     uint16  `json:"ordinal"`
	Incarnation uint32  `json:"incarnation"`
	Keys        []named `json:"keys"`
}

// raised takes in the floor of whoever a stream is to be copied from, where low is how far this disk has it and upTo how far that one has: the floor here follows, and what
// is in doubt and not there at all is hidden, durably.
func (c *cluster) raised(ctx context.Context, of source, s spokelog.Stream, floor hub.Key, low, upTo hub.Mark) error {
	if low >= hub.MarkAt(floor.Millis()+1) {
		return nil
	}
	if err := c.raiseFloor(floor, low); err != nil || upTo <= low {
		return err
	}
	q := questions{Ordinal: s.Ordinal, Incarnation: s.Incarnation}
	err := c.eachDoubt(ctx, s, low, upTo, floor, func(k named) error {
		if q.Keys = append(q.Keys, k); len(q.Keys) < setChunk {
			return nil
		}
		err := c.hideUnknown(ctx, of, q)
		q.Keys = nil
		return err
	})
	if err != nil || len(q.Keys) == 0 {
		return err
	}
	return c.hideUnknown(ctx, of, q)
}

// eachDoubt visits what this disk holds of a stream between two marks and below a floor, and knows no name of.
func (c *cluster) eachDoubt(ctx context.Context, s spokelog.Stream, above, upTo hub.Mark, floor hub.Key, visit func(named) error) error {
	held := map[named]bool{} // true: there is no name of it
	note := func(channel string, key hub.Key, flags spokelog.Flags) {
		if m, ok := hub.MarkOf(key); !ok || m <= above || m > upTo || !key.Less(floor) || flags&(spokelog.Replicated|spokelog.Complete) != 0 {
			return
		}
		k := named{channel, key.String()}
		other, known := held[k]
		held[k] = flags&spokelog.GivenUp == 0 && (other || !known)
	}
	from := spokelog.From{Above: max(above, 1), Lenient: true, Lost: func(channel string, key hub.Key) { note(channel, key, 0) }} // what cannot be read is shown all the same
	for r, err := range c.n.store.Stream(ctx, s, from) {
		if err != nil {
			return err
		}
		note(r.Channel, r.Key, r.Flags)
	}
	for k, unnamed := range held {
		if !unnamed {
			continue
		}
		if err := visit(k); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) hideUnknown(ctx context.Context, of source, q questions) error {
	var a questions
	if err := c.ask(ctx, http.MethodPost, of.node, unknownPath, of.query(url.Values{}), q, &a); err != nil || len(a.Keys) == 0 {
		return err
	}
	s := spokelog.Stream{Ordinal: q.Ordinal, Incarnation: q.Incarnation}
	var names []spokelog.Record
	for _, k := range a.Keys {
		key, err := hub.ParseKey(k.Key)
		if err != nil {
			return err
		}
		names = append(names, spokelog.Record{Channel: k.Channel, Key: key, Stream: s, Flags: spokelog.GivenUp})
	}
	if err := c.store(ctx, names); err != nil {
		return err
	}
	c.n.log.Info("records that were given up, or went to long-term storage, while this node was away are hidden", "peer", of.node, "stream", recordOf(s), "records", len(names))
	return nil
}

func (c *cluster) serveUnknown(w http.ResponseWriter, r *http.Request) error {
	var q questions
	if err := json.NewDecoder(io.LimitReader(r.Body, maxAnswer)).Decode(&q); err != nil {
		return hub.E(hub.Invalid, "the question cannot be read: %v", err)
	}
	c.n.mu.Lock()
	err := c.vouches(spokelog.Stream{Ordinal: q.Ordinal, Incarnation: q.Incarnation})
	c.n.mu.Unlock()
	if err != nil {
		return err
	}
	a := questions{Ordinal: q.Ordinal, Incarnation: q.Incarnation, Keys: []named{}}
	for _, k := range q.Keys {
		key, err := hub.ParseKey(k.Key)
		if err != nil {
			return err
		}
		here, err := c.traceOf(r.Context(), k.Channel, key)
		if err != nil {
			return unavailable(err)
		}
		if !here {
			a.Keys = append(a.Keys, k)
		}
	}
	return web.JSON(w, http.StatusOK, a)
}

// traceOf reports whether the log has a record or a name of a key.
func (c *cluster) traceOf(ctx context.Context, channel string, key hub.Key) (bool, error) {
	_, err := c.n.store.Held(ctx, channel, key)
	switch {
	case err == nil || errors.Is(err, spokelog.ErrDamaged):
		return true, nil
	case !hub.Is(err, hub.NotFound):
		return false, err
	}
	flags, err := c.n.store.Flags(ctx, channel, key)
	return flags != 0, err
}

// doubtFloor takes in the floor of whoever writes a stream, before what it sends.
func (c *cluster) doubtFloor(ctx context.Context, in *inbound, f frame.Floor) error {
	n := c.n
	n.mu.Lock()
	if in.s.refused || in.s.in != in {
		n.mu.Unlock()
		return errRefused
	}
	low := in.s.low
	i, _ := c.rec.Find(recordOf(in.id))
	writer := source{in.node, i.Disk}
	in.s.outstanding++ // a leader who closes the stream waits for what is hidden
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		in.s.outstanding--
		n.mu.Unlock()
	}()
	return c.raised(ctx, writer, in.id, keyOf(f), low, hub.Mark(1<<63-1))
}
