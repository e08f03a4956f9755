package rest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"timehub/hub"
	"timehub/hub/disk"
	"timehub/hub/web"
)

// budget bounds the bytes of bodies that are in memory at the same time (ENGINE §3). It never waits: who does not fit is told to try again.
type budget struct {
	max  int64
	used atomic.Int64
}

const flightRetry = time.Second

func (b *budget) take(n int64) error {
	if b.used.Add(n) <= b.max {
		return nil
	}
	b.used.Add(-n)
	e := hub.E(hub.Unavailable, "the hub holds as many bodies in memory as it may: try again")
	e.RetryAfter = flightRetry
	return e
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// payload is the body of an item that has arrived: in memory, or in a file. Close it.
type payload struct {
	h      *Handlers
	bytes  []byte
	pooled *[]byte
	taken  int64 // of the budget
	file   disk.File
	name   string
	size   int64
}

// Close gives back what the payload holds.
func (p *payload) Close() {
	p.h.flight.give(p.taken)
	p.taken = 0
	p.unpool()
	if p.file != nil {
		_ = p.file.Close() // nobody needs what is in it any more
		if err := p.h.opt.Temp.Remove(p.name); err != nil {
			p.h.opt.Log.Warn("temporary file stays behind", "name", p.name, "err", err)
		}
		p.file = nil
	}
}

// reader gives the body of a payload in a file; nil for one in memory.
func (p *payload) reader() io.Reader {
	if p.file == nil {
		return nil
	}
	return io.NewSectionReader(p.file, 0, p.size)
}

// receive reads the body of a request, without the content codings that we take off, up to limit bytes; property names the limit. Bodies above Small
// go to a temporary file, if spool.
func (h *Handlers) receive(r *http.Request, limit int64, property string, spool bool) (*payload, error) {
	coded := len(r.Header["Content-Encoding"]) > 0
	if !coded && r.ContentLength > limit {
		return nil, web.TooLarge(limit, property)
	}
	body, err := web.Content(r)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	p := &payload{h: h}
	if err := p.fill(body, r.ContentLength, coded, limit, property, spool && h.opt.Temp != nil); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// fill reads body into memory and, when that gets too long, on into a file. announced is the Content-Length, -1 if there is none.
func (p *payload) fill(body io.Reader, announced int64, coded bool, limit int64, property string, spool bool) error {
	first := int64(4 << 10)
	if announced >= 0 && !coded {
		first = min(announced, trusted)
	}
	if spool {
		first = min(first, p.h.opt.Small)
	}
	if err := p.grow(first + 1); err != nil { // one more: to see the end without growing
		return err
	}
	for {
		n, err := body.Read(p.bytes[len(p.bytes):cap(p.bytes)])
		p.bytes = p.bytes[:len(p.bytes)+n]
		p.size += int64(n)
		switch {
		case p.size > limit:
			return web.TooLarge(limit, property)
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if len(p.bytes) < cap(p.bytes) {
			continue
		}
		if spool && p.size >= p.h.opt.Small {
			return p.spill(web.Limit(body, limit-p.size, property), limit, property)
		}
		most := limit + 1
		if announced >= 0 && !coded {
			most = min(most, announced+1)
		}
		if spool {
			most = min(most, p.h.opt.Small+1)
		}
		if err := p.grow(min(4*int64(cap(p.bytes)), max(most, p.size+1))); err != nil {
			return err
		}
	}
}

// trusted is how much memory a Content-Length alone gets; more is given as bytes arrive.
const trusted = 128 << 10

// smallBody is the size up to which buffers of bodies have a pool of their own, so that a thousand small inserts do not hold a thousand large buffers.
const smallBody = 16 << 10

// grow makes room for n bytes in all.
func (p *payload) grow(n int64) error {
	if err := p.h.flight.take(n - p.taken); err != nil {
		return err
	}
	p.taken = n
	old := p.bytes
	if n > keepBuffer {
		p.bytes = append(make([]byte, 0, n), old...)
		p.unpool()
		return nil
	}
	next := lend(p.h.pool(n))
	if int64(cap(*next)) < n {
		*next = make([]byte, 0, n)
	}
	*next = append(*next, old...)
	p.bytes = *next
	p.unpool()
	p.pooled = next
	return nil
}

func (h *Handlers) pool(n int64) *sync.Pool {
	if n <= smallBody {
		return &h.bodies
	}
	return &h.bigBodies
}

func (p *payload) unpool() {
	if p.pooled != nil {
		giveBack(p.h.pool(int64(cap(*p.pooled))), p.pooled, keepBuffer)
		p.pooled = nil
	}
}

// spill moves what has come to a file and reads the rest into it.
func (p *payload) spill(rest io.Reader, limit int64, property string) error {
	if err := p.create(); err != nil {
		return err
	}
	if _, err := p.file.Write(p.bytes); err != nil {
		return spoolError(err)
	}
	buf := p.bytes[:min(cap(p.bytes), 256<<10)]
	for {
		n, err := rest.Read(buf)
		if n > 0 {
			if _, werr := p.file.Write(buf[:n]); werr != nil {
				return spoolError(werr)
			}
			p.size += int64(n)
		}
		switch {
		case err == io.EOF:
			p.bytes = nil
			p.h.flight.give(p.taken)
			p.taken = 0
			return nil
		case hub.Is(err, hub.TooLarge):
			return web.TooLarge(limit, property)
		case err != nil:
			return err
		}
	}
}

func (p *payload) create() error {
	dir := p.h.opt.TempDir
	if err := p.h.opt.Temp.MkdirAll(dir); err != nil {
		return spoolError(err)
	}
	name := dir + "/" + boundary()
	f, err := p.h.opt.Temp.Create(name)
	if err != nil {
		return spoolError(err)
	}
	p.file, p.name = f, name
	return nil
}

func spoolError(err error) error {
	if errors.Is(err, disk.ErrFull) {
		return hub.E(hub.Full, "no space is left on the hub's disk for a body of this size").Because(err)
	}
	return fmt.Errorf("keep a body in a temporary file: %w", err)
}
