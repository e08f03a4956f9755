package catalog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"timehub/hub"
)

const (
	formatVersion = 1
	suffix        = ".json"
	history       = 8         // writes that an envelope remembers
	maxID         = 400       // bytes of an escaped id
	maxDocument   = 512 << 10 // bytes; a greater one is nothing that was written here
)

// head is what an envelope says about its document.
type head struct {
	Version  int      `json:"version"`
	Sequence int64    `json:"sequence"` // rises with each write
	Writes   []string `json:"writes"`   // random ids of the last writes, the newest first
	Deleted  bool     `json:"deleted,omitempty"`
}

func (h head) wrote(id string) bool { return slices.Contains(h.Writes, id) }

// following is the head of the next write.
func (h head) following(write string, now int64, deleted bool) head {
	writes := append([]string{write}, h.Writes...)
	return head{formatVersion, max(h.Sequence+1, now), writes[:min(history, len(writes))], deleted}
}

type envelope struct {
	head
	Value json.RawMessage `json:"value,omitempty"`
}

func encode[T any](h head, v *T) ([]byte, error) {
	e := envelope{head: h}
	if v != nil {
		var err error
		if e.Value, err = json.Marshal(v); err != nil {
			return nil, fmt.Errorf("encode a document: %w", err)
		}
	}
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode a document: %w", err)
	}
	if b = append(b, '\n'); len(b) > maxDocument {
		return nil, hub.E(hub.TooLarge, "the document has %d bytes: at most %d are allowed", len(b), maxDocument)
	}
	return b, nil
}

// decode reads a document. An error says that it cannot be used; nothing is guessed then.
func decode[T any](b []byte) (head, *T, error) {
	var e envelope
	if len(b) > maxDocument {
		return e.head, nil, fmt.Errorf("it has more than %d bytes", maxDocument)
	}
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return e.head, nil, fmt.Errorf("it is no JSON document of this kind: %w", err)
	}
	if version.Version > formatVersion {
		return e.head, nil, fmt.Errorf("a newer version of the hub wrote it: its version is %d, this program knows %d", version.Version, formatVersion)
	}
	if version.Version < 1 {
		return e.head, nil, fmt.Errorf("its version is %d", version.Version)
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return e.head, nil, fmt.Errorf("it is no JSON document of this kind: %w", err)
	}
	if e.Deleted {
		return e.head, nil, nil
	}
	if len(e.Value) == 0 || bytes.Equal(bytes.TrimSpace(e.Value), []byte("null")) {
		return e.head, nil, fmt.Errorf("it has no value")
	}
	v := new(T)
	if err := json.Unmarshal(e.Value, v); err != nil {
		return e.head, nil, fmt.Errorf("its value cannot be read: %w", err)
	}
	return e.head, v, nil
}

// name is the blob of a document. Letters, digits, '-', '_' and '.' (not at the start) stand for themselves, other bytes as %XX.
func (c *Catalog[T]) name(id string) (string, error) {
	if id == "" {
		return "", hub.E(hub.Invalid, "a document needs a name")
	}
	escaped := escape(id)
	if len(escaped) > maxID {
		return "", hub.E(hub.Invalid, "the name of a document is %d bytes long: at most %d are allowed", len(escaped), maxID)
	}
	return c.opt.Prefix + escaped + suffix, nil
}

// id is the inverse of name; ok is false for a blob that is none of ours.
func (c *Catalog[T]) id(name string) (id string, ok bool) {
	escaped, ok := strings.CutPrefix(name, c.opt.Prefix)
	if !ok {
		return "", false
	}
	if escaped, ok = strings.CutSuffix(escaped, suffix); !ok || escaped == "" {
		return "", false
	}
	if id, ok = unescape(escaped); !ok || escape(id) != escaped {
		return "", false
	}
	return id, true
}

const hexDigits = "0123456789ABCDEF"

func escape(id string) string {
	b := make([]byte, 0, len(id))
	for i := range len(id) {
		c := id[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.' && i > 0:
			b = append(b, c)
		default:
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return string(b)
}

func unescape(s string) (string, bool) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		hi, lo := strings.IndexByte(hexDigits, s[i+1]), strings.IndexByte(hexDigits, s[i+2])
		if hi < 0 || lo < 0 {
			return "", false
		}
		b = append(b, byte(hi<<4|lo))
		i += 2
	}
	return string(b), true
}
