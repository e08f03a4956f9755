package rest

import (
	"net/url"
	"strings"

	"timehub/hub"
)

// appendKey appends a key as it stands in a URL.
func appendKey(b []byte, k hub.Key) []byte {
	hash := k.Hash()
	for i := range len(hash) {
		if !plainInPath(hash[i]) {
			b = hub.AppendTimePath(b, k.Millis())
			return append(append(b, '/'), escapeHash(hash)...)
		}
	}
	return k.AppendTo(b)
}

// plainInPath reports whether c needs no escape in a path segment, a header and a JSON string.
func plainInPath(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return c != 0 && strings.IndexByte("-._~!$&'()*+,;=:@", c) >= 0
}

// escapeHash escapes a whole segment; "." and ".." would be taken for directions by those who clean paths.
func escapeHash(hash string) string {
	if strings.Trim(hash, ".") == "" {
		return strings.ReplaceAll(hash, ".", "%2E")
	}
	return url.PathEscape(hash)
}

// escapeTag escapes a tag for a path and for a query alike; tags that a channel can have need nothing.
func escapeTag(tag string) string {
	for i := range len(tag) {
		if c := tag[i]; !plainInPath(c) || strings.IndexByte("&+=;", c) >= 0 {
			return strings.ReplaceAll(url.QueryEscape(tag), "+", "%20")
		}
	}
	return tag
}

// doc appends the JSON of an answer by hand, in the shape that encoding/json gives it with two spaces of indent. What it appends must need no escape:
// links made of Base, Path, Query, names of channels, keys, escaped tags.
type doc struct {
	b     []byte
	count int // members of _links so far
}

func (d *doc) open() { d.b = append(d.b, "{\n  \"_links\": {"...) }

func (d *doc) member(name string) {
	if d.count > 0 {
		d.b = append(d.b, ',')
	}
	d.count++
	d.b = append(d.b, "\n    \""...)
	d.b = append(d.b, name...)
	d.b = append(d.b, "\": "...)
}

// begin opens the link object name up to its href; the caller appends to b and calls end.
func (d *doc) begin(name string) {
	d.member(name)
	d.b = append(d.b, "{\n      \"href\": \""...)
}

func (d *doc) end() { d.b = append(d.b, "\"\n    }"...) }

// link adds a link of several pieces.
func (d *doc) link(name string, pieces ...string) {
	d.begin(name)
	for _, p := range pieces {
		d.b = append(d.b, p...)
	}
	d.end()
}

// named adds an array of named links.
func (d *doc) named(name string, n int, at func(i int) (name, href string)) {
	d.member(name)
	if n == 0 {
		d.b = append(d.b, "[]"...)
		return
	}
	d.b = append(d.b, '[')
	for i := range n {
		if i > 0 {
			d.b = append(d.b, ',')
		}
		label, href := at(i)
		d.b = append(d.b, "\n      {\n        \"name\": \""...)
		d.b = append(d.b, label...)
		d.b = append(d.b, "\",\n        \"href\": \""...)
		d.b = append(d.b, href...)
		d.b = append(d.b, "\"\n      }"...)
	}
	d.b = append(d.b, "\n    ]"...)
}

// close ends _links; what follows it in the object begins with a comma.
func (d *doc) close() { d.b = append(d.b, "\n  }"...) }

// done ends the document.
func (d *doc) done() { d.b = append(d.b, "\n}"...) }
