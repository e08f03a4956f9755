package web

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// response is the writer that handlers get. It holds the header back until the first byte of the body, so that it is known then whether there is
// something to compress.
type response struct {
	http.ResponseWriter
	x        *exchange
	status   int // 0: not yet said
	size     int64
	head     bool
	sent     bool // the header is out
	hijacked bool
	coder    coder
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader says the status. It goes out with the first byte of the body, a Flush, or at the end.
func (w *response) WriteHeader(status int) {
	switch {
	case status < 200:
		w.ResponseWriter.WriteHeader(status)
	case w.status == 0:
		w.status = status
	}
}

func (w *response) Write(p []byte) (int, error) {
	if !w.sent {
		w.send(true)
	}
	w.size += int64(len(p))
	switch {
	case w.head:
		return len(p), nil
	case w.coder != nil:
		return w.coder.Write(p)
	}
	return w.ResponseWriter.Write(p)
}

// WriteString spares io.WriteString a copy where nothing is compressed.
func (w *response) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// FlushError sends what was written, through the compressor too.
func (w *response) FlushError() error {
	if w.hijacked {
		return http.ErrHijacked
	}
	if !w.sent {
		w.send(true)
	}
	if w.coder != nil {
		if err := w.coder.Flush(); err != nil {
			return err
		}
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush is FlushError for those who ask for an http.Flusher.
func (w *response) Flush() { _ = w.FlushError() }

// Hijack hands the connection over; the answer is then the handler's own business.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.sent {
		return nil, nil, errors.New("web: the answer has begun, the connection cannot be taken over")
	}
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.hijacked, w.status = true, http.StatusSwitchingProtocols
	}
	return c, rw, err
}

// send puts the header out.
func (w *response) send(body bool) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.sent = true
	h := w.Header()
	if body && w.compressible(h) {
		c := w.x.accepted()
		h["Content-Encoding"] = c.values()
		delete(h, "Content-Length")
		if !w.head {
			w.coder = w.x.rt.coders.get(c, w.ResponseWriter)
		}
	}
	if w.x.body.pending() {
		w.x.body.settle(w.status, h)
	}
	w.x.complete(h)
	w.ResponseWriter.WriteHeader(w.status)
	if w.x.conn != nil { // not before net/http has the status: it sends no "100 Continue" any more, which the lines could end up in
		w.x.conn.Preface(w.x.rt.preface)
	}
}

func (w *response) compressible(h http.Header) bool {
	switch w.status {
	case http.StatusNoContent, http.StatusNotModified, http.StatusPartialContent:
		return false
	}
	if h["Content-Encoding"] != nil || h["Content-Range"] != nil || w.x.accepted() == Identity {
		return false
	}
	t := h["Content-Type"]
	return len(t) == 0 || !strings.HasPrefix(t[0], "text/event-stream")
}

// finish completes the answer.
func (w *response) finish() {
	if w.hijacked {
		return
	}
	if !w.sent {
		w.send(w.head && w.announces())
	}
	if w.coder != nil {
		c := w.coder
		w.coder = nil
		if err := c.Close(); err == nil {
			w.x.rt.coders.put(c)
		}
	}
}

// announces reports whether a handler that wrote nothing answered HEAD for an answer that has a body.
func (w *response) announces() bool {
	n := w.Header().Get("Content-Length")
	return n != "" && n != "0"
}

// abort gives the compressor back without ending its stream.
func (w *response) abort() {
	if w.coder != nil {
		w.x.rt.coders.put(w.coder)
		w.coder = nil
	}
}

// dropHeld forgets what a handler had prepared before it failed.
func (w *response) dropHeld() {
	w.status = 0
	h := w.Header()
	for _, name := range [...]string{"Content-Length", "Content-Encoding", "Etag", "Cache-Control", "Location", "Link", "Last-Modified"} {
		delete(h, name)
	}
}

const jsonType = "application/json"

// counted is the length up to which net/http finds out the length of an answer by itself.
const counted = 2 << 10

// Tell reports whether the length of a body of n bytes (n < 0: unknown) has to be told in the header. net/http counts small ones by itself, which costs
// less than another line in the header; but not what HEAD leaves out.
func Tell(w http.ResponseWriter, n int64) bool {
	own, ok := w.(*response)
	return !ok || own.head || n > counted || n < 0
}

// write answers with a whole body.
func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	lines := [...]string{contentType, ""}
	h["Content-Type"] = lines[0:1:1]
	if Tell(w, int64(len(body))) {
		lines[1] = strconv.Itoa(len(body))
		h["Content-Length"] = lines[1:2:2]
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone; nobody else wants to know
}

// Write answers with a whole body. An error of writing is the client's going away and is not told.
func Write(w http.ResponseWriter, status int, contentType string, body []byte) {
	write(w, status, contentType, body)
}

// WriteJSON answers with a body that is JSON already.
func WriteJSON(w http.ResponseWriter, status int, body []byte) { write(w, status, jsonType, body) }

// settle deals with the rest of a body that the handler did not read, so that the answer is not held up by a sender in no hurry.
func (g *guard) settle(status int, h http.Header) {
	if status < http.StatusBadRequest && g.drain(maxDrain) {
		return
	}
	_ = g.control.SetReadDeadline(time.Now().Add(lastWait)) // net/http discards a little of it; not for longer than this
	if g.slow || g.left < 0 || g.left > maxDrain {
		h["Connection"] = []string{"close"}
	}
}
