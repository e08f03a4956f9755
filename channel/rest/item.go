package rest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/seal"
	"timehub/hub/web"
)

// item is spec 02 §3.1, with what plain HTTP users expect of immutable things.
func (h *Handlers) item(w http.ResponseWriter, r *http.Request) error {
	p := web.Found(r).(hub.Path)
	ch, err := h.channel(r)
	if err != nil {
		return err
	}
	opt := channel.GetOptions{}
	if r.URL.RawQuery != "" {
		opt.RemoteOnly = web.Bool(r, "remoteOnly", false)
	}
	found, err := h.svc.Get(r.Context(), ch, p.Key(), opt)
	if err != nil {
		return err
	}
	return h.serve(w, r, found, false)
}

const octets = "application/octet-stream"

// serve answers with an item. Under a tag some headers are left out.
func (h *Handlers) serve(w http.ResponseWriter, r *http.Request, f channel.Found, tagged bool) error {
	contentType := normalType(f.Meta.ContentType)
	if !web.Acceptable(r, contentType) {
		return hub.E(hub.NotAcceptable, "the item is %s, which Accept excludes", contentType)
	}
	if f.Meta.Size < 0 && r.Header.Get("X-Item-Length-Required") == "true" {
		n, err := h.measure(r.Context(), f)
		if err != nil {
			return err
		}
		f.Meta.Size = n
	}
	v := choose(r, f)
	hd := w.Header()
	h.itemHeaders(hd, r, f, contentType, tagged)
	hd["Etag"] = []string{v.tag}
	if matchesNone(r.Header, v.tag) {
		delete(hd, "Content-Type")
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	switch v.form {
	case unsatisfied:
		hd["Content-Range"] = []string{"bytes */" + strconv.FormatInt(f.Meta.Size, 10)}
		return hub.E(hub.RangeInvalid, "no byte of the asked range exists: the item has %d bytes", f.Meta.Size)
	case frame:
		hd["Content-Encoding"] = []string{"zstd"}
		hd["Content-Length"] = []string{strconv.Itoa(len(f.Envelope.Encoded))}
		_, _ = w.Write(f.Envelope.Encoded)
		return nil
	case part:
		hd["Content-Range"] = []string{fmt.Sprintf("bytes %d-%d/%d", v.from, v.to-1, f.Meta.Size)}
		hd["Content-Length"] = []string{strconv.FormatInt(v.to-v.from, 10)}
		w.WriteHeader(http.StatusPartialContent)
		return h.copyBody(w, r, f, v.from, v.to-v.from)
	}
	if v.form == identity {
		hd["Accept-Ranges"] = []string{"bytes"}
		if f.Meta.Size >= 0 {
			hd["Content-Length"] = []string{strconv.FormatInt(f.Meta.Size, 10)}
		}
	}
	return h.copyBody(w, r, f, 0, f.Meta.Size)
}

// itemHeaders are those of spec 02 §3.1 and of caches.
func (h *Handlers) itemHeaders(hd http.Header, r *http.Request, f channel.Found, contentType string, tagged bool) {
	self := web.Base(r) + web.Path(r)
	query := web.Query(r)
	hd["Content-Type"] = []string{contentType}
	hd["Creation-Date"] = []string{string(appendISO(nil, f.Key))}
	hd["Link"] = []string{"<" + self + "/previous" + query + ">;rel=\"previous\"", "<" + self + "/next" + query + ">;rel=\"next\""}
	hd["Cache-Control"] = []string{h.caching(f)}
	if tagged {
		return
	}
	hd["X-Item-Length"] = []string{strconv.FormatInt(f.Meta.Size, 10)}
	if f.Meta.Large {
		hd["X-Largeitem"] = []string{"true"}
	}
}

const year = 365 * 24 * 3600

// caching says how long a copy of the item may be kept: to its expiry, at most a year. A mutable item can be replaced at any time.
func (h *Handlers) caching(f channel.Found) string {
	ch := f.Channel
	if ch.Historical() && !f.Key.Time().After(ch.MutableTime) {
		return "no-cache"
	}
	age := int64(year)
	if !ch.Historical() && ch.TTLDays > 0 && ch.TTLDays < 100*365 {
		left := f.Key.Time().AddDate(0, 0, int(ch.TTLDays)).Sub(h.opt.Clock()) / time.Second
		age = max(0, min(age, int64(left)))
	}
	return "immutable, max-age=" + strconv.FormatInt(age, 10)
}

// measure counts the bytes of an item of which nobody noted the length.
func (h *Handlers) measure(ctx context.Context, f channel.Found) (int64, error) {
	body, err := h.svc.Open(ctx, f, 0, -1)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	n, err := io.Copy(io.Discard, body)
	if err != nil {
		return 0, fmt.Errorf("count the bytes of an item: %w", err)
	}
	return n, nil
}

// headOnly answers HEAD where GET has a body: the router then makes the same header.
func headOnly(w http.ResponseWriter) error {
	_, err := w.Write(nil)
	return err
}

// inMemory is the size up to which a body is made in one piece.
const inMemory = keepBuffer

// copyBody writes n bytes (n < 0: all) of the body from offset.
func (h *Handlers) copyBody(w http.ResponseWriter, r *http.Request, f channel.Found, offset, n int64) error {
	if r.Method == http.MethodHead {
		return headOnly(w)
	}
	if !f.Meta.Large && f.Meta.Size >= 0 && f.Meta.Size <= inMemory {
		buf := h.buffer()
		defer h.giveBack(buf)
		b, err := h.svc.Body(*buf, f)
		if err != nil {
			return err
		}
		*buf = b
		_, _ = w.Write(b[offset : offset+n])
		return nil
	}
	body, err := h.svc.Open(r.Context(), f, offset, n)
	if err != nil {
		return err
	}
	defer body.Close()
	return h.pump(w, body)
}

// pump copies a body. An error of the client's connection is nobody's business; one of the body must break the answer off.
func (h *Handlers) pump(w io.Writer, body io.Reader) error {
	buf := h.buffer()
	defer h.giveBack(buf)
	if cap(*buf) < pumpSize {
		*buf = make([]byte, 0, pumpSize)
	}
	b := (*buf)[:pumpSize]
	for {
		n, err := body.Read(b)
		if n > 0 {
			if _, werr := w.Write(b[:n]); werr != nil {
				return nil
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read an item's body: %w", err)
		}
	}
}

const pumpSize = 64 << 10

// form is how the body of an item goes out.
type form uint8

const (
	identity    form = iota // as it was inserted
	encoded                 // compressed on its way by the router
	frame                   // as it is stored, which is what the client asked for
	part                    // a range of the identity form
	unsatisfied             // a range of nothing
)

// version is the representation chosen for a request.
type version struct {
	form     form
	tag      string
	from, to int64
}

// choose picks the representation: a range of the identity form if one is asked for, else what Accept-Encoding prefers.
func choose(r *http.Request, f channel.Found) version {
	v := version{tag: string(appendTag(nil, f.Meta, ""))}
	if asked := r.Header.Get("Range"); asked != "" && f.Meta.Size >= 0 {
		if only := r.Header.Get("If-Range"); only == "" || only == v.tag {
			var ok bool
			if v.from, v.to, ok = parseRange(asked, f.Meta.Size); ok {
				v.form = part
				if v.from >= v.to {
					v.form = unsatisfied
				}
				return v
			}
		}
	}
	coding := web.Accepted(r)
	if coding == web.Identity {
		return v
	}
	v.form, v.tag = encoded, string(appendTag(nil, f.Meta, coding.String()))
	if coding == web.Zstd && f.Envelope.Codec == seal.Zstd && !f.Meta.Large && len(f.Envelope.Encoded) > 0 {
		v.form = frame
	}
	return v
}
