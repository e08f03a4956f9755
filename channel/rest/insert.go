package rest

import (
	"context"
	"net/http"
	"strings"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/web"
)

const itemLimit = "app.maxItemSizeMB"

// lasting is the context for changes: what was received whole is carried out and answered even if the client has closed its side of the connection,
// which net/http takes for its going away. Clients that are done with sending may do so and read on, and a write that is broken off helps nobody.
func lasting(r *http.Request) context.Context { return context.WithoutCancel(r.Context()) }

// upload reads the body of an insert. close must be called when the item is written.
func (h *Handlers) upload(r *http.Request) (channel.Upload, *payload, error) {
	u := channel.Upload{Began: h.opt.Clock()}
	var err error
	if u.ContentType, err = typeOf(r); err != nil {
		return u, nil, err
	}
	p, err := h.receive(r, h.svc.MaxItemBytes(), itemLimit, true)
	if err != nil {
		return u, nil, err
	}
	u.Body, u.Reader, u.Size = p.bytes, p.reader(), p.size
	if u.Reader != nil && u.Size < h.svc.LargeBytes() { // it is sealed in memory
		if err := h.flight.take(u.Size); err != nil {
			p.Close()
			return u, nil, err
		}
		p.taken = u.Size
	}
	return u, p, nil
}

// typeOf is the Content-Type as sent. One that could split a header later is refused; net/http lets none through, other servers might. What is no UTF-8
// is replaced at once: archives keep types as JSON, and an item must not change its type when it gets there.
func typeOf(r *http.Request) (string, error) {
	lines := r.Header["Content-Type"]
	if len(lines) == 0 {
		return "", nil
	}
	t := strings.ToValidUTF8(lines[0], "\uFFFD")
	return t, checkType(t)
}

// maxType is how long a content type may be.
const maxType = 1024

func checkType(t string) error {
	if len(t) > maxType {
		return hub.E(hub.Invalid, "Content-Type has %d bytes: at most %d are allowed", len(t), maxType)
	}
	for i := range len(t) {
		if c := t[i]; c < ' ' && c != '\t' || c == 0x7f {
			return hub.E(hub.Invalid, "Content-Type holds the control character %#02x: remove it", c)
		}
	}
	return nil
}

// after brings the clock to the key that the client had last, perhaps from another node, so that its keys rise (ENGINE §5, Hub-After).
func (h *Handlers) after(r *http.Request) error {
	lines := r.Header["Hub-After"]
	if len(lines) == 0 || lines[0] == "" {
		return nil
	}
	key, err := hub.ParseKey(lines[0])
	if err != nil {
		return hub.E(hub.Invalid, "Hub-After must be a key, as the end of the address of an item shows it: %s", clip(lines[0]))
	}
	return h.svc.After(r.Context(), key)
}

// insert is spec 02 §4.1.
func (h *Handlers) insert(w http.ResponseWriter, r *http.Request) error {
	ch, err := h.channel(r)
	if err != nil {
		return err
	}
	if err := h.after(r); err != nil {
		return err
	}
	u, body, err := h.upload(r)
	if err != nil {
		return err
	}
	defer body.Close()
	key, err := h.svc.Insert(lasting(r), ch, u)
	if err != nil {
		return err
	}
	h.inserted(w, r, key)
	return nil
}

// insertAt is spec 02 §4.3.
func (h *Handlers) insertAt(w http.ResponseWriter, r *http.Request) error {
	p := web.Found(r).(hub.Path)
	ch, err := h.channel(r)
	if err != nil {
		return err
	}
	u, body, err := h.upload(r)
	if err != nil {
		return err
	}
	defer body.Close()
	key, err := h.svc.InsertAt(lasting(r), ch, p.Start, p.Hash, u)
	if err != nil {
		return err
	}
	h.inserted(w, r, key)
	return nil
}

// inserted answers 201 with the links of a new item.
func (h *Handlers) inserted(w http.ResponseWriter, r *http.Request, key hub.Key) {
	buf := h.buffer()
	defer h.giveBack(buf)
	b := append(*buf, web.Base(r)...)
	b = append(b, "/channel/"...)
	b = append(b, web.Param(r, "channel")...)
	channelEnd := len(b)
	b = appendKey(append(b, '/'), key)
	self := string(b)
	b = append(b[:0], "{\n  \"timestamp\": \""...)
	b = appendISO(b, key)
	b = append(b, "\",\n  \"_links\": {\n    \"channel\": {\n      \"href\": \""...)
	b = append(b, self[:channelEnd]...)
	b = append(b, "\"\n    },\n    \"self\": {\n      \"href\": \""...)
	b = append(b, self...)
	b = append(b, "\"\n    }\n  }\n}"...)
	*buf = b
	w.Header()["Location"] = []string{self}
	web.WriteJSON(w, http.StatusCreated, b)
}

// appendISO appends the instant of a key as hub.ISO shows it.
func appendISO(b []byte, key hub.Key) []byte {
	at := len(b)
	b = hub.AppendTimePath(b, key.Millis()) // yyyy/MM/dd/HH/mm/ss/SSS
	t := b[at:]
	t[4], t[7], t[10], t[13], t[16], t[19] = '-', '-', 'T', ':', ':', '.'
	return append(b, 'Z')
}

// deleteAt is spec 02 §4.4.
func (h *Handlers) deleteAt(w http.ResponseWriter, r *http.Request) error {
	p := web.Found(r).(hub.Path)
	ch, err := h.channel(r)
	if err != nil {
		return err
	}
	if err := h.svc.DeleteAt(lasting(r), ch, p.Key()); err != nil {
		if hub.Is(err, hub.NotAllowed) {
			w.Header().Set("Allow", "GET, HEAD, OPTIONS")
		}
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// provide is spec 02 §4.5: an insert into the channel that a header names, which is made if need be.
func (h *Handlers) provide(w http.ResponseWriter, r *http.Request) error {
	ch, err := h.providerChannel(r)
	if err != nil {
		return err
	}
	if err := h.after(r); err != nil {
		return err
	}
	u, body, err := h.upload(r)
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := h.svc.Insert(lasting(r), ch, u); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (h *Handlers) provideBulk(w http.ResponseWriter, r *http.Request) error {
	if err := web.Consumes(r, "multipart/*"); err != nil {
		return err
	}
	ch, err := h.providerChannel(r)
	if err != nil {
		return err
	}
	if _, _, err := h.storeBulk(r, ch); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (h *Handlers) providerChannel(r *http.Request) (*hub.Channel, error) {
	name := strings.TrimSpace(r.Header.Get("channelName"))
	if name == "" {
		return nil, hub.E(hub.Invalid, "the header channelName is missing: it names the channel to insert into")
	}
	ch, err := h.svc.Channel(r.Context(), name)
	if hub.Is(err, hub.NotFound) {
		ch, _, err = h.svc.PutChannel(lasting(r), name, channel.ChannelPatch{Empty: true}, callerOf(r))
	}
	return ch, err
}
