package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"unicode/utf8"

	"timehub/hub"
)

// maxDepth is how deeply a document may nest.
const maxDepth = 64

// ReadDocument reads the body of a request, up to limit bytes, with its content coding taken off.
func ReadDocument(r *http.Request, limit int64) ([]byte, error) {
	body, err := Content(r)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(Limit(body, limit, "the limit for JSON documents"))
}

// Decode reads one JSON document into v, as encoding/json does, after checking it strictly: nothing may follow it, it must not nest deeply, and what is
// wrong is said with its place and, for a wrong type, its member. Unknown members are ignored. All errors are Invalid.
func Decode(data []byte, v any) error {
	if err := CheckJSON(data); err != nil {
		return err
	}
	err := json.Unmarshal(data, v)
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong) && wrong.Field != "":
		return hub.E(hub.Invalid, "%s is a JSON %s: it must be %s", wrong.Field, wrong.Value, goKind(wrong.Type.Kind().String())).Because(err)
	case errors.As(err, &wrong):
		return hub.E(hub.Invalid, "the document is a JSON %s: it must be %s", wrong.Value, goKind(wrong.Type.Kind().String())).Because(err)
	}
	return hub.E(hub.Invalid, "the document cannot be read").Because(err)
}

// goKind says in words of JSON what a Go type takes.
func goKind(kind string) string {
	switch kind {
	case "struct", "map":
		return "an object"
	case "slice", "array":
		return "an array"
	case "bool":
		return "true or false"
	case "string":
		return "a string"
	case "float32", "float64":
		return "a number"
	}
	return "an integer"
}

// CheckJSON checks that data is exactly one JSON document. The text of its error holds "invalid JSON at byte N: expected …", the first byte being
// number 1: clients look for that word (spec 01 §3.3).
func CheckJSON(data []byte) error {
	s := scanner{data: data}
	s.space()
	s.value(0)
	s.space()
	if s.err == nil && s.at < len(data) {
		s.expect("the end of the document")
	}
	return s.err
}

type scanner struct {
	data []byte
	at   int
	err  error
}

func (s *scanner) expect(what string) {
	if s.err != nil {
		return
	}
	found := ""
	if s.at >= len(s.data) {
		found = ", the document ends here"
	}
	s.err = hub.E(hub.Invalid, "invalid JSON at byte %d: expected %s%s", s.at+1, what, found)
}

func (s *scanner) peek() byte {
	if s.at < len(s.data) {
		return s.data[s.at]
	}
	return 0
}

func (s *scanner) space() {
	for s.at < len(s.data) && (s.data[s.at] == ' ' || s.data[s.at] == '\t' || s.data[s.at] == '\n' || s.data[s.at] == '\r') {
		s.at++
	}
}

func (s *scanner) value(depth int) {
	if depth > maxDepth {
		s.expect(fmt.Sprintf("no more than %d levels of nesting", maxDepth))
		return
	}
	switch c := s.peek(); {
	case c == '{':
		s.object(depth)
	case c == '[':
		s.array(depth)
	case c == '"':
		s.text()
	case c == '-' || c >= '0' && c <= '9':
		s.number()
	case c == 't':
		s.word("true")
	case c == 'f':
		s.word("false")
	case c == 'n':
		s.word("null")
	default:
		s.expect("a value")
	}
}

func (s *scanner) object(depth int) {
	s.at++
	s.space()
	if s.peek() == '}' {
		s.at++
		return
	}
	for s.err == nil {
		if s.peek() != '"' {
			s.expect("a member name in double quotes")
			return
		}
		s.text()
		s.space()
		if !s.take(':', "':' after a member name") {
			return
		}
		s.space()
		s.value(depth + 1)
		s.space()
		if s.peek() == '}' {
			s.at++
			return
		}
		if !s.take(',', "',' or '}' after a member") {
			return
		}
		s.space()
	}
}

func (s *scanner) array(depth int) {
	s.at++
	s.space()
	if s.peek() == ']' {
		s.at++
		return
	}
	for s.err == nil {
		s.value(depth + 1)
		s.space()
		if s.peek() == ']' {
			s.at++
			return
		}
		if !s.take(',', "',' or ']' after an element") {
			return
		}
		s.space()
	}
}

func (s *scanner) take(c byte, what string) bool {
	if s.err != nil {
		return false
	}
	if s.peek() != c || s.at >= len(s.data) {
		s.expect(what)
		return false
	}
	s.at++
	return true
}

func (s *scanner) word(w string) {
	for i := range len(w) {
		if s.peek() != w[i] {
			s.expect("the word " + w)
			return
		}
		s.at++
	}
}

func (s *scanner) text() {
	s.at++
	for s.at < len(s.data) {
		switch c := s.data[s.at]; {
		case c == '"':
			s.at++
			return
		case c < ' ':
			s.expect("a control character in a string to be escaped")
			return
		case c == '\\':
			if !s.escape() {
				return
			}
		case c < utf8.RuneSelf:
			s.at++
		default:
			r, n := utf8.DecodeRune(s.data[s.at:])
			if r == utf8.RuneError && n == 1 {
				s.expect("UTF-8 text")
				return
			}
			s.at += n
		}
	}
	s.expect("'\"' at the end of a string")
}

func (s *scanner) escape() bool {
	s.at++
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.at++
		return true
	case 'u':
		s.at++
		for range 4 {
			c := s.peek()
			if !(c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f') {
				s.expect("four hexadecimal digits after \\u")
				return false
			}
			s.at++
		}
		return true
	}
	s.expect("one of \"\\/bfnrtu after a backslash")
	return false
}

func (s *scanner) number() {
	if s.peek() == '-' {
		s.at++
	}
	if s.peek() == '0' {
		s.at++
	} else if !s.digits() {
		return
	}
	if s.peek() == '.' {
		s.at++
		if !s.digits() {
			return
		}
	}
	if s.peek()|0x20 == 'e' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		s.digits()
	}
}

func (s *scanner) digits() bool {
	from := s.at
	for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
		s.at++
	}
	if s.at == from {
		s.expect("a digit")
		return false
	}
	return true
}
