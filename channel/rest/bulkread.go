package rest

import (
	"fmt"
	"iter"
	"net/http"
	"strings"

	"timehub/channel"
	"timehub/hub"
)

// bulkRead answers a query with the items themselves (spec 02 §3.7).
func (h *Handlers) bulkRead(w http.ResponseWriter, r *http.Request, a asked, to func(*listing) links) error {
	found, items, err := a.stream(r.Context())
	if err != nil {
		return err
	}
	showHorizon(w, found.Page)
	if a.missing(&found) {
		return hub.E(hub.NotFound, "%s", emptyMessage)
	}
	l := to(&found)
	for _, link := range [...][2]string{{l.next, "next"}, {l.previous, "previous"}} {
		if link[0] != "" {
			w.Header().Add("Link", "<"+link[0]+">;rel=\""+link[1]+"\"")
		}
	}
	if accept := r.Header["Accept"]; len(accept) == 1 && strings.EqualFold(strings.TrimSpace(accept[0]), "application/zip") {
		return h.zip(w, r, items)
	}
	return h.multipart(w, r, a.place, items)
}

// bulkChunk is how much of a bulk answer is gathered before it is written.
const bulkChunk = 128 << 10

// multipart writes items as parts while they are read.
func (h *Handlers) multipart(w http.ResponseWriter, r *http.Request, from place, items iter.Seq2[channel.TaggedItem, error]) error {
	mark := boundary()
	w.Header()["Content-Type"] = []string{"multipart/mixed;boundary=" + mark}
	if r.Method == http.MethodHead {
		return headOnly(w)
	}
	buf := h.buffer()
	defer h.giveBack(buf)
	m := parts{h: h, w: w, r: r, from: from, mark: "--" + mark, b: *buf}
	for item, err := range items {
		if err == nil {
			err = m.add(item)
		}
		if err != nil {
			return err
		}
		if m.gone {
			break
		}
	}
	m.b = append(append(m.b, m.mark...), "--"...)
	m.flush()
	*buf = m.b
	return nil
}

// parts is a multipart answer on its way.
type parts struct {
	h    *Handlers
	w    http.ResponseWriter
	r    *http.Request
	from place
	mark string
	b    []byte
	gone bool // the client
}

func (m *parts) flush() {
	if _, err := m.w.Write(m.b); err != nil {
		m.gone = true
	}
	m.b = m.b[:0]
}

// add appends one part: Content-Type, Content-Key, Creation-Date, payload. An item that vanished meanwhile is left out.
func (m *parts) add(item channel.TaggedItem) error {
	f, err := m.h.svc.Parse(item.Channel, item.Sealed)
	if err != nil {
		return fmt.Errorf("open an item of a bulk answer: %w", err)
	}
	start := len(m.b)
	m.b = append(append(m.b, m.mark...), "\r\n"...)
	if f.Meta.ContentType != "" {
		m.b = append(append(append(m.b, "Content-Type: "...), safeType(f.Meta.ContentType)...), "\r\n"...)
	}
	m.b = append(append(m.b, "Content-Key: "...), m.from.base...)
	m.b = append(m.b, "/channel/"...)
	if m.from.tagged() {
		m.b = append(m.b, item.Channel.Name...)
	} else {
		m.b = append(m.b, m.from.name...)
	}
	m.b = appendKey(append(m.b, '/'), f.Key)
	m.b = append(m.b, "\r\nCreation-Date: "...)
	m.b = append(appendISO(m.b, f.Key), "\r\n\r\n"...)
	if f.Meta.Large || f.Meta.Size < 0 || f.Meta.Size > inMemory {
		return m.stream(f, start)
	}
	if m.b, err = m.h.svc.Body(m.b, f); err != nil {
		return fmt.Errorf("open an item of a bulk answer: %w", err)
	}
	m.b = append(m.b, "\r\n"...)
	if len(m.b) > bulkChunk {
		m.flush()
	}
	return nil
}

// stream writes a body that is not made in memory; the part's header begins at start.
func (m *parts) stream(f channel.Found, start int) error {
	body, err := m.h.svc.Open(m.r.Context(), f, 0, -1)
	if hub.Is(err, hub.NotFound) {
		m.b = m.b[:start]
		return nil
	}
	if err != nil {
		return err
	}
	defer body.Close()
	m.flush()
	if err := m.h.pump(m.w, body); err != nil {
		return err
	}
	m.b = append(m.b, "\r\n"...)
	return nil
}
