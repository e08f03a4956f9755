package deliver

import (
	"bufio"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"timehub/hub"
	"timehub/hub/web"
)

// eventType is the type of every event: something was inserted.
const eventType = "timehub.item"

const octets = "application/octet-stream"

// contentType is the media type of an item for others: what the client sent, if it may stand in a header.
func (i *Item) contentType() string {
	for _, c := range []byte(i.ContentType) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return octets
		}
	}
	if i.ContentType == "" {
		return octets
	}
	return i.ContentType
}

// attributes are the context attributes of the event of an item (CloudEvents 1.0), in a fixed order. The item is the event: its key is the id within the
// source, which is the channel.
func (e *envelope) attributes(i *Item) [][2]string {
	key := i.Key.String()
	all := [][2]string{
		{"specversion", "1.0"},
		{"id", key},
		{"source", e.prefix},
		{"type", eventType},
		{"time", hub.ISO(i.Key.Time())},
		{"subject", key},
		{"webhook", e.w.Name},
	}
	if i.omitted() {
		all = append(all, [2]string{"dataref", e.prefix + "/" + string(appendKeyPath(nil, i.Key))})
	}
	return all
}

// binary makes m an event in binary content mode: attributes in headers, the body of the item as it is. The receiver tells modes apart by the
// content type; an item that is itself a CloudEvent would be mistaken for the event, so it goes inside a structured one.
func (e *envelope) binary(m *Message, i *Item) {
	if strings.HasPrefix(strings.ToLower(i.ContentType), "application/cloudevents") {
		m.contentType = "application/cloudevents+json; charset=utf-8"
		m.body = e.appendEvent(nil, i)
		return
	}
	m.header = http.Header{}
	for _, a := range e.attributes(i) {
		m.header.Set("Ce-"+a[0], headerValue(a[1]))
	}
	m.contentType = ""
	if !i.omitted() {
		m.contentType, m.body = i.contentType(), i.Body
	}
}

// headerValue encodes an attribute for a header (HTTP binding §3.1.3.2): spaces, quotation marks, percent signs and all outside printable ASCII.
func headerValue(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range []byte(strings.ToValidUTF8(s, "\ufffd")) {
		if c > ' ' && c < 0x7f && c != '"' && c != '%' {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', hex[c>>4], hex[c&15]})
	}
	return b.String()
}

// writeEvents writes the batch of a period; that of a heartbeat is empty.
func (e *envelope) writeEvents(out io.Writer, items Items) error {
	w := bufio.NewWriterSize(out, 32<<10)
	w.WriteByte('[')
	if err := writeEach(w, items, e.appendEvent); err != nil {
		return err
	}
	w.WriteByte(']')
	return w.Flush()
}

// appendEvent appends an event in the JSON format. data is a JSON value if the item is one, a string if it is text, and data_base64 otherwise.
func (e *envelope) appendEvent(b []byte, i *Item) []byte {
	before := "{"
	for _, a := range e.attributes(i) {
		b = appendMember(b, before, a[0], a[1])
		before = ","
	}
	if i.omitted() {
		return append(b, '}')
	}
	b = appendMember(b, ",", "datacontenttype", i.contentType())
	if value, ok := jsonBody(i.ContentType, i.Body); ok {
		b = append(append(b, `,"data":`...), value...)
	} else if isText(i.ContentType) && utf8.Valid(i.Body) {
		b = web.AppendString(append(b, `,"data":`...), string(i.Body))
	} else {
		b = appendBase64(append(b, `,"data_base64":`...), i.Body)
	}
	return append(b, '}')
}

// isText reports whether a content type promises text whose bytes are UTF-8. text/json is left out: a receiver would take a string for a JSON string.
func isText(contentType string) bool {
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil || isJSON(contentType) {
		return false
	}
	charset := strings.ToLower(params["charset"])
	return (strings.HasPrefix(media, "text/") || media == "application/xml" || strings.HasSuffix(media, "+xml")) &&
		(charset == "" || charset == "utf-8" || charset == "us-ascii")
}
