package channel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"timehub/hub"
	"timehub/hub/seal"
)

// Upload is one item to be written. Its body is either Body, or Size bytes of Reader, which is for bodies that are not held in memory.
type Upload struct {
	ContentType string // as sent; "" if none
	Creator     string
	Body        []byte // not kept, not changed
	Reader      io.Reader
	Size        int64     // with Reader only
	Began       time.Time // when the body began to arrive, for the latency metric; zero: now
}

func (u *Upload) size() int64 {
	if u.Reader != nil {
		return u.Size
	}
	return int64(len(u.Body))
}

// keepBuffer is the capacity up to which a buffer of sealed bytes waits for the next insert.
const keepBuffer = 1 << 20

// Insert writes one item and returns its key when it is durable (spec 02 §4.1). Forbidden, Verbatim, on a replicated channel; Invalid for zero bytes
// where they are not allowed; TooLarge above MaxItemBytes; Unavailable or Full from the stores. An item of LargeBytes or more goes to long-term
// storage first (spec 01 §1.6), whether it comes as Body or as Reader.
func (s *Service) Insert(ctx context.Context, ch *hub.Channel, u Upload) (hub.Key, error) {
	now := s.opt.Clock()
	if u.Began.IsZero() {
		u.Began = now
	}
	if err := s.admit(ch, &u); err != nil {
		return hub.Key{}, err
	}
	if ch.LiveFrom > now.UnixMilli() {
		if err := s.untilLive(ctx, ch); err != nil {
			return hub.Key{}, err
		}
	}
	key, err := s.insert(ctx, ch, &u, now)
	if err != nil {
		return hub.Key{}, err
	}
	s.meters.inserted(singleInsert, ch.Name, 1, u.size(), s.opt.Clock().Sub(u.Began))
	return key, nil
}

func (s *Service) insert(ctx context.Context, ch *hub.Channel, u *Upload, now time.Time) (hub.Key, error) {
	if u.size() >= s.opt.LargeBytes {
		return s.insertLarge(ctx, ch, u, now)
	}
	body, err := u.body()
	if err != nil {
		return hub.Key{}, err
	}
	return s.write(ctx, ch, seal.Meta{ContentType: u.ContentType, Creator: u.Creator, Created: now.UnixMilli()}, body)
}

// write seals a body into memory of the pool and hands it to the short-term store. After an error the store may go on reading that memory, so it goes
// back only after success.
func (s *Service) write(ctx context.Context, ch *hub.Channel, m seal.Meta, body []byte) (hub.Key, error) {
	buffer, ok := s.buffers.Get().(*[]byte)
	if !ok {
		buffer = new([]byte)
	}
	*buffer = s.opt.Sealer.Seal((*buffer)[:0], m, body)
	key, err := s.opt.Short.Write(ctx, ch.Name, *buffer)
	if err != nil {
		return hub.Key{}, fmt.Errorf("write an item: %w", err)
	}
	if cap(*buffer) <= keepBuffer {
		s.buffers.Put(buffer)
	}
	return key, nil
}

// admit holds the rules of spec 02 §4.1 that need no store.
func (s *Service) admit(ch *hub.Channel, u *Upload) error {
	size := u.size()
	switch {
	case ch.Replicated():
		return replicating(ch)
	case size == 0 && !ch.AllowZeroBytes:
		return hub.E(hub.Invalid, "the body is empty: channel %s has allowZeroBytes false, so send at least one byte", ch.Name)
	case size > s.opt.MaxItemBytes:
		return hub.E(hub.TooLarge, "the body has more than %d bytes, the most that one item may have (app.maxItemSizeMB)", s.opt.MaxItemBytes)
	}
	return nil
}

// replicating is the answer to every insert into a replicated channel; clients compare the text, grammar included.
func replicating(ch *hub.Channel) error {
	e := hub.E(hub.Forbidden, "%s cannot modified while replicating", ch.Name)
	e.Verbatim = true
	return e
}

// body is the whole body in memory, for items that are not large.
func (u *Upload) body() ([]byte, error) {
	if u.Reader == nil {
		return u.Body, nil
	}
	body := make([]byte, u.Size)
	if n, err := io.ReadFull(u.Reader, body); err != nil {
		return nil, cutBody(err, int64(n), u.Size)
	}
	return body, nil
}

func cutBody(err error, got, want int64) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return hub.E(hub.Invalid, "the body ended after %d of %d bytes: send it again, whole", got, want)
	}
	return fmt.Errorf("read the body: %w", err)
}

// drawHash makes a hash of 6 random characters.
func (s *Service) drawHash() string {
	var h [6]byte
	r := s.opt.Random()
	for i := range h {
		h[i] = hub.Alphabet[r%62]
		r /= 62
	}
	return string(h[:])
}
