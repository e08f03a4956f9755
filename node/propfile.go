package node

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/magiconair/properties"
)

// entry is one line of a properties file.
type entry struct {
	line        int // where it begins, from 1
	name, value string
}

// parseProperties reads a Java-style properties file (spec 06 §1): comments, continued lines, =, : or blanks between name and value, escapes. The
// text is UTF-8. ${name} is text, not an expansion. What Java lets pass and nobody means is an error that names its line: a name given twice, a
// broken unicode escape, a value without a name, bytes that are not UTF-8.
func parseProperties(data []byte) ([]entry, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if at := invalidUTF8(data); at >= 0 {
		return nil, fmt.Errorf("line %d: byte %d of the file is not UTF-8", 1+bytes.Count(data[:at], []byte("\n")), at)
	}
	lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(data)), "\n")
	var entries []entry
	first := map[string]int{}
	for i := 0; i < len(lines); i++ {
		at := i + 1
		logical := strings.TrimLeft(lines[i], " \t\f")
		if logical == "" || logical[0] == '#' || logical[0] == '!' {
			continue
		}
		for continued(lines[i]) && i+1 < len(lines) {
			i++
			logical += "\n" + lines[i]
		}
		if logical[0] == '=' || logical[0] == ':' {
			return nil, fmt.Errorf("line %d: a value without a name", at)
		}
		e, ok, err := parseLine(logical)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", at, err)
		}
		if !ok { // a backslash that continues into blank lines
			continue
		}
		if line, twice := first[e.name]; twice {
			return nil, fmt.Errorf("line %d: %s is given twice, first in line %d; remove one of them", at, e.name, line)
		}
		first[e.name] = at
		e.line = at
		entries = append(entries, e)
	}
	return entries, nil
}

// continued reports whether the line that follows belongs to this one: it ends in an odd number of backslashes.
func continued(line string) bool {
	return (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1
}

// parseLine reads one logical line.
func parseLine(logical string) (entry, bool, error) {
	if err := checkEscapes(logical); err != nil {
		return entry{}, false, err
	}
	loader := properties.Loader{Encoding: properties.UTF8, DisableExpansion: true}
	p, err := loader.LoadBytes([]byte(logical))
	if err != nil {
		return entry{}, false, fmt.Errorf("it cannot be read: %s", strings.TrimPrefix(err.Error(), "properties: Line 1: "))
	}
	switch keys := p.Keys(); len(keys) {
	case 0:
		return entry{}, false, nil
	case 1:
		v, _ := p.Get(keys[0])
		return entry{name: keys[0], value: v}, true, nil
	default:
		return entry{}, false, fmt.Errorf("it holds %d names", len(keys))
	}
}

// checkEscapes refuses a \u that is not followed by four hexadecimal digits.
func checkEscapes(s string) error {
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			continue
		}
		i++
		if i >= len(s) || s[i] != 'u' {
			continue
		}
		digits := s[i+1 : min(len(s), i+5)]
		if len(digits) < 4 || strings.Trim(digits, "0123456789abcdefABCDEF") != "" {
			return fmt.Errorf(`\u%s is no unicode escape: \u and four hexadecimal digits; write \\ for a backslash`, strings.ToValidUTF8(digits, ""))
		}
	}
	return nil
}

func invalidUTF8(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}
