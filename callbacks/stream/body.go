package stream

import (
	"context"
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"timehub/hub/web"
)

// take waits until there is room for a body in memory. Small ones always have some.
func (s *Server) take(ctx context.Context, size int64) (free func(), err error) {
	if size <= smallBody {
		return func() {}, nil
	}
	size = min(size, bodyBudget)
	if err := s.budget.Acquire(ctx, size); err != nil {
		return nil, context.Cause(ctx)
	}
	return func() { s.budget.Release(size) }, nil
}

// appendBody appends the member of a message that holds the body.
func appendBody(b []byte, contentType string, body []byte) []byte {
	if t := (text{lax: isText(contentType)}); t.add(body) && t.end() {
		return web.AppendString(append(b, `,"body":`...), string(body))
	}
	b = append(b, `,"bodyBase64":"`...)
	b = base64.StdEncoding.AppendEncode(b, body)
	return append(b, '"')
}

// isText reports whether items of a type are meant to be read: line ends may be rewritten. Items without a type are taken for text.
func isText(contentType string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	t = strings.ToLower(strings.TrimSpace(t))
	if t == "" || strings.HasPrefix(t, "text/") || strings.HasSuffix(t, "+json") || strings.HasSuffix(t, "+xml") {
		return true
	}
	switch t {
	case "application/json", "application/xml", "application/javascript", "application/x-ndjson", "application/yaml", "application/x-www-form-urlencoded":
		return true
	}
	return false
}

// text decides whether a body can go out as text: it is UTF-8 and, unless its type says that it is text, has no control characters but tabs and
// line feeds, so that nothing is lost.
type text struct {
	lax  bool
	rest []byte // the beginning of a character that the last part ended in
	bad  bool
}

// add looks at the next part and reports whether all is text so far.
func (t *text) add(part []byte) bool {
	if t.bad {
		return false
	}
	if len(t.rest) > 0 {
		n := min(utf8.UTFMax-len(t.rest), len(part))
		joined := append(t.rest, part[:n]...)
		if !utf8.FullRune(joined) {
			t.rest = joined
			return true
		}
		r, size := utf8.DecodeRune(joined)
		if r == utf8.RuneError && size <= 1 {
			t.bad = true
			return false
		}
		part = part[size-len(t.rest):]
		t.rest = t.rest[:0]
	}
	cut := len(part)
	for i := 1; i < utf8.UTFMax && i <= len(part); i++ {
		if c := part[len(part)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(part[len(part)-i:]) {
				cut = len(part) - i
			}
			break
		}
	}
	t.rest = append(t.rest, part[cut:]...)
	part = part[:cut]
	t.bad = !utf8.Valid(part)
	if !t.lax {
		for _, c := range part {
			t.bad = t.bad || c < ' ' && c != '\n' && c != '\t' || c == 0x7f
		}
	}
	return !t.bad
}

// end reports whether the whole was text.
func (t *text) end() bool { return !t.bad && len(t.rest) == 0 }
