package rest

import (
	"bytes"
	"strings"

	"timehub/channel"
	"timehub/hub"
)

// multipartBody walks through a body by the rules of spec 02 §4.2, which are looser than mime/multipart's: it works on the whole body in memory, and parts
// alias it.
type multipartBody struct {
	rest      []byte
	delimiter []byte // CRLF, two dashes, boundary
	lastType  string // of the part before: bulks nearly always have one type
}

var crlf = []byte("\r\n")

// parseParts returns the parts that are to be stored, at most limit.
func parseParts(body []byte, boundary string, limit int) ([]channel.Part, error) {
	m := &multipartBody{rest: body, delimiter: []byte("\r\n--" + boundary)}
	if !m.preamble() {
		return nil, hub.E(hub.Invalid, "no item was found: a line --%s, ended by CR and LF, expected", clip(boundary))
	}
	var parts []channel.Part
	for {
		part, keyed, end, err := m.next()
		if err != nil {
			return nil, err
		}
		if len(part.Body) > 0 || keyed {
			if len(parts) == limit {
				return nil, hub.E(hub.TooLarge, "the body has more than %d parts (app.bulk.maxParts)", limit)
			}
			parts = append(parts, part)
		}
		if end {
			break
		}
	}
	if len(parts) == 0 {
		return nil, hub.E(hub.Invalid, "no item was found: every part is empty")
	}
	return parts, nil
}

// preamble skips to behind the first delimiter line.
func (m *multipartBody) preamble() bool {
	if line := m.delimiter[2:]; bytes.HasPrefix(m.rest, line) {
		if n, end := m.ending(m.rest[len(line):]); n > 0 && !end {
			m.rest = m.rest[len(line)+n:]
			return true
		}
	}
	for {
		i := bytes.Index(m.rest, m.delimiter)
		if i < 0 {
			return false
		}
		m.rest = m.rest[i+len(m.delimiter):]
		if n, end := m.ending(m.rest); n > 0 {
			m.rest = m.rest[n:]
			return !end
		}
	}
}

// ending says how many bytes after a boundary end the delimiter: CRLF, with blanks before it, or the two dashes of the last one. 0: it is no delimiter.
func (m *multipartBody) ending(after []byte) (n int, last bool) {
	if bytes.HasPrefix(after, []byte("--")) {
		return 2, true
	}
	for n < len(after) && (after[n] == ' ' || after[n] == '\t') {
		n++
	}
	if bytes.HasPrefix(after[n:], crlf) {
		return n + 2, false
	}
	return 0, false
}

var errCut = hub.E(hub.Invalid, "the body was cut off: the closing delimiter, --boundary--, expected; nothing was stored")

// next reads one part. keyed says that it has a Content-Key, end that it was the last one.
func (m *multipartBody) next() (part channel.Part, keyed, end bool, err error) {
	part.ContentType = "text/plain"
	for {
		if line := m.delimiter[2:]; bytes.HasPrefix(m.rest, line) { // a part that ends before it has a body
			if n, last := m.ending(m.rest[len(line):]); n > 0 {
				m.rest = m.rest[len(line)+n:]
				return part, keyed, last, nil
			}
		}
		i := bytes.Index(m.rest, crlf)
		if i < 0 {
			return part, false, false, errCut
		}
		line := bytes.TrimSpace(m.rest[:i])
		after := m.rest[i+2:]
		if len(line) == 0 {
			m.rest = m.rest[i:] // its CRLF may be the delimiter's
			break
		}
		m.rest = after
		if err := m.header(line, &part, &keyed); err != nil {
			return part, false, false, err
		}
	}
	return m.payload(part, keyed)
}

// payload reads the bytes up to the next delimiter. rest begins with the CRLF that ended the headers.
func (m *multipartBody) payload(part channel.Part, keyed bool) (channel.Part, bool, bool, error) {
	start, from := 2, 0
	for {
		i := bytes.Index(m.rest[from:], m.delimiter)
		if i < 0 {
			return part, false, false, errCut
		}
		i += from
		n, last := m.ending(m.rest[i+len(m.delimiter):])
		if n == 0 {
			from = i + len(m.delimiter)
			continue
		}
		if i > start {
			part.Body = m.rest[start:i:i]
		}
		m.rest = m.rest[i+len(m.delimiter)+n:]
		return part, keyed, last, nil
	}
}

// header reads one line. Only two names mean something.
func (m *multipartBody) header(line []byte, part *channel.Part, keyed *bool) error {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return nil
	}
	name, value = bytes.TrimSpace(name), bytes.TrimSpace(value)
	switch {
	case bytes.EqualFold(name, []byte("Content-Key")):
		*keyed = true
	case bytes.EqualFold(name, []byte("Content-Type")):
		if string(value) != m.lastType {
			m.lastType = strings.ToValidUTF8(string(value), "\uFFFD")
			if err := checkType(m.lastType); err != nil {
				return err
			}
		}
		part.ContentType = m.lastType
	}
	return nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
