package longterm

import (
	"bytes"
	"encoding/json"
	"fmt"

	"timehub/hub"
	"timehub/hub/seal"
)

// hubType is the content type of the index of a large item (spec 01 §1.6).
const hubType = "application/hub"

// itemMeta is the JSON that an item has beside its bytes (spec 04 §1, 02 §3.7). The original knows contentType only and does not mind more.
type itemMeta struct {
	ContentType string `json:"contentType,omitempty"`
	// Large tells the index of a large item from an item that somebody posted as application/hub; it is written with that type only. Absent, in the
	// original's data, such an item is an index if it reads like one.
	Large   *bool  `json:"large,omitempty"`
	Creator string `json:"creator,omitempty"`
}

// largeIndex is the body of a large item's index.
type largeIndex struct {
	Key         string `json:"key"`
	Size        int64  `json:"size"`
	ContentType string `json:"content-type,omitempty"`
}

// metaOf is what is written of an envelope.
func metaOf(m seal.Meta) itemMeta {
	im := itemMeta{ContentType: m.ContentType, Creator: m.Creator}
	if m.Large {
		im.ContentType = hubType
	}
	if im.ContentType == hubType {
		large := m.Large
		im.Large = &large
	}
	return im
}

// sealMeta is what an envelope says of an item that was read.
func (im itemMeta) sealMeta(key hub.Key, body []byte) seal.Meta {
	m := seal.Meta{ContentType: im.ContentType, Creator: im.Creator, Created: key.Millis()}
	if im.ContentType != hubType || im.Large != nil && !*im.Large {
		return m
	}
	if x, ok := parseLarge(body); ok {
		m.ContentType, m.Large = x.ContentType, true
	}
	return m
}

// parseLarge reads the index of a large item; false if it is none.
func parseLarge(body []byte) (largeIndex, bool) {
	var x largeIndex
	if len(body) > 128<<10 || json.Unmarshal(body, &x) != nil || x.Size < 0 {
		return x, false
	}
	_, err := hub.ParseKey(x.Key)
	return x, err == nil
}

// metaText is the JSON of the item at hand. Most items of a channel have the same, so it is kept.
type metaText struct {
	text  []byte
	of    itemMeta
	known bool
}

func (t *metaText) set(m itemMeta) {
	if t.known && len(t.text) > 0 && m == t.of && m.Large == nil {
		return
	}
	t.of, t.known = m, true
	t.text = appendMeta(t.text[:0], m)
}

func appendMeta(dst []byte, m itemMeta) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(m) != nil { // cannot fail: strings and a bool
		return append(dst, "{}"...)
	}
	return append(dst, bytes.TrimRight(b.Bytes(), "\n")...)
}

// metaReader reads the JSON of items, remembering the last one.
type metaReader struct {
	text []byte
	meta itemMeta
}

func (r *metaReader) read(text []byte) (itemMeta, error) {
	if len(text) == 0 {
		return itemMeta{}, nil
	}
	if bytes.Equal(text, r.text) {
		return r.meta, nil
	}
	var m itemMeta
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("%w: the meta of an entry: %w", ErrCorrupt, err)
	}
	r.text, r.meta = append(r.text[:0], text...), m
	return m, nil
}

// appendJSONText appends a key as a JSON string.
func appendJSONText(dst, text []byte) []byte {
	for _, c := range text {
		if c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			quoted, err := json.Marshal(string(text))
			if err != nil { // cannot fail: a string
				break
			}
			return append(dst, quoted...)
		}
	}
	return append(append(append(dst, '"'), text...), '"')
}
