package deliver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"timehub/callbacks/webhook"
)

// bodyKept is the size up to which a body that is written is kept for sending; a greater one is written again.
const bodyKept = 256 << 10

// content is what one attempt sends, at each hop.
type content struct {
	header http.Header
	length int64
	body   []byte                // if write is nil
	write  func(io.Writer) error // makes length bytes
}

// prepare makes the headers of an attempt, for which the body is made once: its length and its signature stand before it.
func (c *Caller) prepare(w *webhook.Webhook, m Message) (*content, error) {
	p := &content{header: m.header.Clone(), body: m.body}
	if p.header == nil {
		p.header = http.Header{}
	}
	if m.contentType != "" {
		p.header.Set("Content-Type", m.contentType)
	}
	p.header.Set("User-Agent", "TheHub")
	if c.opt.Node != nil {
		p.header.Set("Hub-Node", c.opt.Node())
	}
	timestamp := time.Now().Unix()
	sign := newSigner(w, m.id, timestamp)
	measure := &measure{keep: m.write != nil, sign: sign}
	if m.write == nil {
		measure.Write(m.body)
	} else if err := m.write(measure); err != nil {
		return nil, err
	} else if measure.keep {
		p.body = measure.kept
	} else {
		p.write = m.write
	}
	p.length = measure.n
	if sign != nil {
		p.header.Set("Webhook-Id", m.id)
		p.header.Set("Webhook-Timestamp", strconv.FormatInt(timestamp, 10))
		p.header.Set("Webhook-Signature", sign.header())
	}
	return p, nil
}

// measure takes the length and the signature of a body, and keeps it while it is small.
type measure struct {
	n    int64
	keep bool
	kept []byte
	sign *signer
}

func (m *measure) Write(b []byte) (int, error) {
	m.n += int64(len(b))
	if m.sign != nil {
		m.sign.Write(b)
	}
	if m.keep && m.n > bodyKept {
		m.keep, m.kept = false, nil
	}
	if m.keep {
		m.kept = append(m.kept, b...)
	}
	return len(b), nil
}

// headerFor is the header for one address: only its own user and password go along. Transports do not change headers.
func (p *content) headerFor(u *url.URL) http.Header {
	if u.User == nil {
		return p.header
	}
	h := p.header.Clone()
	password, _ := u.User.Password()
	(&http.Request{Header: h}).SetBasicAuth(u.User.Username(), password)
	return h
}

// open begins the body anew. finish must be called: it waits for who makes the body, and returns what went wrong there.
func (p *content) open() (body io.ReadCloser, finish func() error) {
	if p.write == nil {
		if len(p.body) == 0 {
			return http.NoBody, func() error { return nil }
		}
		return io.NopCloser(bytes.NewReader(p.body)), func() error { return nil }
	}
	r, w := io.Pipe()
	made := make(chan error, 1)
	go func() { // ended by finish
		e := &exactly{w: w, left: p.length}
		err := p.write(e)
		if err == nil && e.left > 0 {
			err = fmt.Errorf("%w: %w", ErrContent, errChanged)
		}
		w.CloseWithError(err)
		made <- err
	}()
	return r, func() error {
		r.Close()
		return <-made
	}
}

// errChanged: a period has other items than a moment ago, because some have expired or were deleted.
var errChanged = errors.New("the period changed while it was read")

// exactly refuses more bytes than were promised.
type exactly struct {
	w    io.Writer
	left int64
}

func (e *exactly) Write(b []byte) (int, error) {
	if e.left -= int64(len(b)); e.left < 0 {
		return 0, fmt.Errorf("%w: %w", ErrContent, errChanged)
	}
	return e.w.Write(b)
}
