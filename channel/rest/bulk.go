package rest

import (
	"net/http"
	"strconv"
	"strings"

	"timehub/hub"
	"timehub/hub/web"
)

// insertBulk is spec 02 §4.2.
func (h *Handlers) insertBulk(w http.ResponseWriter, r *http.Request) error {
	if err := web.Consumes(r, "multipart/*"); err != nil {
		return err
	}
	ch, err := h.channel(r)
	if err != nil {
		return err
	}
	key, n, err := h.storeBulk(r, ch)
	if err != nil {
		return err
	}
	buf := h.buffer()
	defer h.giveBack(buf)
	prefix := web.Base(r) + "/channel/" + web.Param(r, "channel") + "/"
	self := prefix + key.String() + "/next/" + strconv.Itoa(n) + "?stable=false"
	w.Header().Set("Location", self)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	l := lister{w: w, doc: doc{b: *buf}}
	l.open()
	l.link("self", self)
	l.uris(n, hub.Ascending, func(b []byte, i int) []byte {
		return hub.BulkKey(key, i).AppendTo(append(b, prefix...))
	})
	l.close()
	l.done()
	err = l.flush()
	*buf = l.b
	return err
}

const bulkLimit = "app.maxPayloadSizeMB times 3"

// storeBulk reads a multipart body and writes its parts, all or none. It returns their shared key and their number.
func (h *Handlers) storeBulk(r *http.Request, ch *hub.Channel) (hub.Key, int, error) {
	began := h.opt.Clock()
	if err := h.after(r); err != nil {
		return hub.Key{}, 0, err
	}
	body, err := h.receive(r, h.opt.MaxBulkBytes, bulkLimit, false)
	if err != nil {
		return hub.Key{}, 0, err
	}
	defer body.Close()
	boundary := boundaryOf(r.Header.Get("Content-Type"))
	if boundary == "" {
		return hub.Key{}, 0, hub.E(hub.Invalid, "Content-Type has no boundary: multipart/mixed;boundary=… expected")
	}
	parts, err := parseParts(body.bytes, boundary, h.svc.MaxParts())
	if err != nil {
		return hub.Key{}, 0, err
	}
	key, err := h.svc.InsertBulk(lasting(r), ch, "", began, parts)
	return key, len(parts), err
}

// boundaryOf reads the parameter boundary leniently: unquoted ones may hold what only quoted ones should.
func boundaryOf(contentType string) string {
	rest := contentType
	for {
		i := strings.IndexByte(rest, ';')
		if i < 0 {
			return ""
		}
		rest = strings.TrimLeft(rest[i+1:], " \t")
		name, value, ok := strings.Cut(rest, "=")
		if !ok {
			return ""
		}
		value = strings.TrimLeft(value, " \t")
		quoted := strings.HasPrefix(value, `"`)
		var text string
		if quoted {
			text, rest = unquote(value[1:])
		} else {
			text, _, _ = strings.Cut(value, ";")
			rest = value[len(text):]
			text = strings.TrimRight(text, " \t")
		}
		if strings.EqualFold(strings.TrimSpace(name), "boundary") {
			return text
		}
	}
}

// unquote reads up to the closing quote and returns what follows it.
func unquote(s string) (text, rest string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}
