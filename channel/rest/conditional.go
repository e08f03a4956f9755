package rest

import (
	"strconv"
	"strings"

	"timehub/hub/seal"
)

// appendTag appends the ETag of an item: digest and size of its body, and the coding in which it is sent, since the bytes differ.
func appendTag(b []byte, m seal.Meta, coding string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, hex[m.Digest>>shift&15])
	}
	b = strconv.AppendInt(append(b, '-'), m.Size, 16)
	if coding != "" {
		b = append(append(b, '-'), coding...)
	}
	return append(b, '"')
}

// matchesNone reports whether the lines of If-None-Match name the tag: the client has these bytes already.
func matchesNone(lines []string, tag string) bool {
	for _, line := range lines {
		for rest := line; rest != ""; {
			rest = strings.TrimLeft(rest, " \t,")
			if strings.HasPrefix(rest, "*") {
				return true
			}
			rest = strings.TrimPrefix(rest, "W/")
			if !strings.HasPrefix(rest, `"`) {
				_, rest, _ = strings.Cut(rest, ",") // no tag: skip it
				continue
			}
			end := strings.IndexByte(rest[1:], '"')
			if end < 0 {
				break
			}
			if rest[:end+2] == tag {
				return true
			}
			rest = rest[end+2:]
		}
	}
	return false
}

// parseRange reads a Range of one interval against a size. Anything else, several intervals too, is no range and means the whole (ok false). An empty
// interval is one that does not exist.
func parseRange(s string, size int64) (from, to int64, ok bool) {
	unit, spec, _ := strings.Cut(s, "=")
	if !strings.EqualFold(unit, "bytes") {
		return 0, 0, false
	}
	first, last, found := strings.Cut(strings.TrimSpace(spec), "-")
	if !found {
		return 0, 0, false
	}
	if first == "" { // the last n bytes
		n, ok := position(last)
		return max(0, size-n), size, ok
	}
	from, ok = position(first)
	if !ok {
		return 0, 0, false
	}
	if last == "" {
		return from, size, true
	}
	end, ok := position(last)
	if !ok || end < from {
		return 0, 0, false
	}
	if end >= size {
		end = size - 1
	}
	return from, end + 1, true
}

// position reads a number of bytes; one beyond an int64 is as good as the largest.
func position(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, _ := strconv.ParseInt(s, 10, 64) // only the range is left to be wrong; ParseInt then returns the nearest
	return min(n, 1<<62), true
}

// normalType is the content type as answers show it: no white space around ";" and "=" outside of quotes (spec 01 §2), and no control character, which
// could have come from older data. "" is application/octet-stream.
func normalType(t string) string {
	if t == "" {
		return octets
	}
	if strings.IndexByte(t, ' ') < 0 && !hasControl(t) {
		return t
	}
	b := make([]byte, 0, len(t))
	quoted, pending := false, false
	for i := 0; i < len(t); i++ {
		c := t[i]
		if c < ' ' || c == 0x7f {
			c = ' '
		}
		switch {
		case quoted:
			b = append(b, c)
			if c == '\\' && i+1 < len(t) {
				i++
				b = append(b, plainByte(t[i]))
			}
			quoted = c != '"'
		case c == ' ':
			pending = true
		default:
			if last := len(b) - 1; pending && last >= 0 && c != ';' && c != '=' && b[last] != ';' && b[last] != '=' {
				b = append(b, ' ')
			}
			pending = false
			b = append(b, c)
			quoted = c == '"'
		}
	}
	if len(b) == 0 {
		return octets
	}
	return string(b)
}

func plainByte(c byte) byte {
	if c < ' ' || c == 0x7f {
		return ' '
	}
	return c
}

func hasControl(t string) bool {
	for i := range len(t) {
		if t[i] < ' ' || t[i] == 0x7f {
			return true
		}
	}
	return false
}

// safeType is a content type as it was stored, for part headers: only control characters are made blanks.
func safeType(t string) string {
	if !hasControl(t) {
		return t
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, t)
}
