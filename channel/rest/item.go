package rest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"

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
	tag := h.itemHeaders(w, r, &f, contentType, v.coding, tagged)
	if hd := r.Header["If-None-Match"]; len(hd) > 0 && matchesNone(hd, tag) {
		delete(w.Header(), "Content-Type")
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
	if v.form != identity || f.Meta.Size < 0 {
		delete(hd, "Content-Length")
	}
	if v.form == identity && web.Tell(w, f.Meta.Size) { // nobody wants a part of what is smaller
		hd["Accept-Ranges"] = acceptRanges[:1:1]
	}
	return h.copyBody(w, r, f, 0, f.Meta.Size)
}

// acceptRanges is shared by all answers: it is never changed in place.
var acceptRanges = []string{"bytes"}

// itemHeaders sets those of spec 02 §3.1 and of caches, with the length of the identity form, and returns the ETag.
func (h *Handlers) itemHeaders(w http.ResponseWriter, r *http.Request, f *channel.Found, contentType, coding string, tagged bool) string {
	lines := h.itemLines(r, f, contentType, coding)
	hd := w.Header()
	hd["Link"] = lines[linkLines:dateLine:dateLine]
	hd["Creation-Date"] = lines[dateLine:cacheLine:cacheLine]
	hd["Cache-Control"] = lines[cacheLine:lengthLine:lengthLine]
	if web.Tell(w, f.Meta.Size) {
		hd["Content-Length"] = lines[lengthLine:tagLine:tagLine]
	}
	hd["Etag"] = lines[tagLine:typeLine:typeLine]
	hd["Content-Type"] = lines[typeLine:lineCount:lineCount]
	if !tagged {
		hd["X-Item-Length"] = lines[lengthLine:tagLine:tagLine]
		if f.Meta.Large {
			hd["X-Largeitem"] = []string{"true"}
		}
	}
	return lines[tagLine]
}

// itemLines are the values of an item's header: those that are kept of a hot item if they fit, else cut from one string. A read of a small item would
// cost less than its headers otherwise.
func (h *Handlers) itemLines(r *http.Request, f *channel.Found, contentType, coding string) *[lineCount]string {
	base, path, query, age := web.Base(r), web.Path(r), web.Query(r), h.maxAge(f)
	var kept *hotItem
	if coding == "" {
		if kept = h.hot.find(f); kept != nil {
			if l := kept.lines.Load(); l.fit(base, path, query, contentType, age) {
				return &l.values
			}
		}
	}
	l := &itemLines{base: base, path: path, query: query, contentType: contentType, age: age}
	buf := h.buffer()
	defer h.giveBack(buf)
	b := *buf
	var ends [typeLine]int
	for i, rel := range [...]string{"previous", "next"} {
		b = append(append(append(b, '<'), base...), path...)
		b = append(append(append(b, '/'), rel...), query...)
		b = append(append(append(b, ">;rel=\""...), rel...), '"')
		ends[i] = len(b)
	}
	b = appendISO(b, f.Key)
	ends[dateLine] = len(b)
	b = appendCaching(b, age)
	ends[cacheLine] = len(b)
	b = strconv.AppendInt(b, f.Meta.Size, 10)
	ends[lengthLine] = len(b)
	b = appendTag(b, f.Meta, coding)
	ends[tagLine] = len(b)
	*buf = b
	text := string(b)
	from := 0
	for i, to := range ends {
		l.values[i], from = text[from:to], to
	}
	l.values[typeLine] = contentType
	if kept != nil {
		if old := kept.lines.Load(); old == nil || old.age != age { // not for each of those who ask in different ways
			kept.lines.Store(l)
		}
	}
	return &l.values
}

const (
	dayMillis = 24 * 3600 * 1000
	year      = 365 * 24 * 3600
)

// maxAge is for how many seconds a copy of the item may be kept: to its expiry, at most a year. It is negative for a mutable item, which can be replaced
// at any time.
func (h *Handlers) maxAge(f *channel.Found) int64 {
	ch := f.Channel
	if ch.Historical() && !f.Key.Time().After(ch.MutableTime) {
		return -1
	}
	age := int64(year)
	if !ch.Historical() && ch.TTLDays > 0 && ch.TTLDays < 100*365 {
		left := (f.Key.Millis() + ch.TTLDays*dayMillis - h.opt.Clock().UnixMilli()) / 1000
		age = max(0, min(age, left))
	}
	return age
}

func appendCaching(b []byte, age int64) []byte {
	if age < 0 {
		return append(b, "no-cache"...)
	}
	return strconv.AppendInt(append(b, "immutable, max-age="...), age, 10)
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
const inMemory = 1 << 20

// copyBody writes n bytes (n < 0: all) of the body from offset.
func (h *Handlers) copyBody(w http.ResponseWriter, r *http.Request, f channel.Found, offset, n int64) error {
	if r.Method == http.MethodHead {
		return headOnly(w)
	}
	if !f.Meta.Large && f.Meta.Size >= 0 && f.Meta.Size <= inMemory {
		buf := h.buffer()
		defer h.giveBack(buf)
		b, err := h.hot.body(h.svc, buf, &f)
		if err != nil {
			return err
		}
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
	coding   string
	from, to int64
}

// choose picks the representation: a range of the identity form if one is asked for, else what Accept-Encoding prefers.
func choose(r *http.Request, f channel.Found) version {
	var v version
	if asked := r.Header["Range"]; len(asked) == 1 && f.Meta.Size >= 0 {
		if only := r.Header.Get("If-Range"); only == "" || only == string(appendTag(nil, f.Meta, "")) {
			var ok bool
			if v.from, v.to, ok = parseRange(asked[0], f.Meta.Size); ok {
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
	v.form, v.coding = encoded, coding.String()
	if coding == web.Zstd && f.Envelope.Codec == seal.Zstd && !f.Meta.Large && len(f.Envelope.Encoded) > 0 {
		v.form = frame
	}
	return v
}
