package channel

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"timehub/hub"
)

// maxDepth is how deep a document may be nested.
const maxDepth = 64

// members reads a JSON object and returns its members' texts; of a name that is there twice, the last counts. Unlike encoding/json it says what was
// expected where, which people and clients look for (spec 01 §3.3), and refuses what is not UTF-8. Errors are of kind Invalid.
func members(text []byte) (map[string]json.RawMessage, error) {
	s := scanner{text: text}
	s.space()
	if s.peek() != '{' {
		return nil, s.expected("an object, '{'")
	}
	all := map[string]json.RawMessage{}
	err := s.object(1, func(name string, value []byte) { all[name] = value })
	if err != nil {
		return nil, err
	}
	if s.space(); s.at < len(s.text) {
		return nil, s.expected("the end of the document after the object")
	}
	return all, nil
}

// scanner checks syntax; at is the offset of the next byte.
type scanner struct {
	text []byte
	at   int
}

// expected makes the error for the byte at hand, the first byte of the document being number 1.
func (s *scanner) expected(what string) error {
	if s.at >= len(s.text) {
		return hub.E(hub.Invalid, "invalid JSON at byte %d, where it ends: expected %s", s.at+1, what)
	}
	return hub.E(hub.Invalid, "invalid JSON at byte %d: expected %s", s.at+1, what)
}

func (s *scanner) space() {
	for s.at < len(s.text) && (s.text[s.at] == ' ' || s.text[s.at] == '\t' || s.text[s.at] == '\n' || s.text[s.at] == '\r') {
		s.at++
	}
}

// peek is the next byte; 0 at the end, which no grammar rule accepts.
func (s *scanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

func (s *scanner) object(depth int, member func(name string, value []byte)) error {
	s.at++ // {
	if s.space(); s.peek() == '}' {
		s.at++
		return nil
	}
	for {
		s.space()
		from := s.at
		if s.peek() != '"' {
			return s.expected("a member name in double quotes")
		}
		if err := s.str(); err != nil {
			return err
		}
		quoted := s.text[from:s.at]
		if s.space(); s.peek() != ':' {
			return s.expected("':' after a member name")
		}
		s.at++
		s.space()
		from = s.at
		if err := s.value(depth); err != nil {
			return err
		}
		if member != nil {
			var name string
			if err := json.Unmarshal(quoted, &name); err != nil {
				return fmt.Errorf("read a member name that was checked: %w", err)
			}
			member(name, s.text[from:s.at])
		}
		s.space()
		switch s.peek() {
		case ',':
			s.at++
		case '}':
			s.at++
			return nil
		default:
			return s.expected("',' or '}' after a member")
		}
	}
}

func (s *scanner) array(depth int) error {
	s.at++ // [
	if s.space(); s.peek() == ']' {
		s.at++
		return nil
	}
	for {
		s.space()
		if err := s.value(depth); err != nil {
			return err
		}
		s.space()
		switch s.peek() {
		case ',':
			s.at++
		case ']':
			s.at++
			return nil
		default:
			return s.expected("',' or ']' after an element")
		}
	}
}

func (s *scanner) value(depth int) error {
	switch c := s.peek(); {
	case c == '{' || c == '[':
		if depth >= maxDepth {
			return s.expected(fmt.Sprintf("at most %d levels of nesting", maxDepth))
		}
		if c == '{' {
			return s.object(depth+1, nil)
		}
		return s.array(depth + 1)
	case c == '"':
		return s.str()
	case c == '-' || '0' <= c && c <= '9':
		return s.num()
	}
	for _, word := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(s.text[s.at:], []byte(word)) {
			s.at += len(word)
			return nil
		}
	}
	return s.expected("a value")
}

func (s *scanner) num() error {
	if s.peek() == '-' {
		s.at++
	}
	if s.peek() == '0' {
		s.at++
	} else if err := s.digits("a digit after '-'"); err != nil {
		return err
	}
	if s.peek() == '.' {
		s.at++
		if err := s.digits("a digit after '.'"); err != nil {
			return err
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		return s.digits("a digit in the exponent")
	}
	return nil
}

func (s *scanner) digits(what string) error {
	if c := s.peek(); c < '0' || c > '9' {
		return s.expected(what)
	}
	for c := s.peek(); '0' <= c && c <= '9'; c = s.peek() {
		s.at++
	}
	return nil
}

func (s *scanner) str() error {
	s.at++ // "
	for {
		switch c := s.peek(); {
		case c == '"':
			s.at++
			return nil
		case s.at >= len(s.text):
			return s.expected("'\"' at the end of a string")
		case c < 0x20:
			return s.expected("control characters of a string to be escaped")
		case c == '\\':
			s.at++
			if err := s.escape(); err != nil {
				return err
			}
		case c < utf8.RuneSelf:
			s.at++
		default:
			r, size := utf8.DecodeRune(s.text[s.at:])
			if r == utf8.RuneError && size == 1 {
				return s.expected("UTF-8 in a string")
			}
			s.at += size
		}
	}
}

func (s *scanner) escape() error {
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.at++
		return nil
	case 'u':
		s.at++
		for range 4 {
			c := s.peek() | 0x20
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return s.expected("4 hexadecimal digits after '\\u'")
			}
			s.at++
		}
		return nil
	}
	return s.expected("one of \"\\/bfnrtu after '\\'")
}
