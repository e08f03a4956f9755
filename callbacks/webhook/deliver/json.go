package deliver

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"timehub/hub"
	"timehub/hub/web"
)

// appendMember appends "name":"value" and what stands before it.
func appendMember(b []byte, before, name, value string) []byte {
	b = append(append(append(b, before...), '"'), name...)
	return web.AppendString(append(b, '"', ':'), value)
}

// appendBase64 appends a JSON string.
func appendBase64(b, body []byte) []byte {
	return append(base64.StdEncoding.AppendEncode(append(b, '"'), body), '"')
}

// appendKeyPath appends a key as it stands in a URL: a hash that is not one of ours may hold anything.
func appendKeyPath(b []byte, k hub.Key) []byte {
	hash := k.Hash()
	for i := range len(hash) {
		if c := hash[i]; c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("-_~!$&'()*+,;=:@", c) >= 0 {
			continue
		}
		b = append(hub.AppendTimePath(b, k.Millis()), '/')
		if strings.Trim(hash, ".") == "" { // would be taken for a direction
			return append(b, strings.ReplaceAll(hash, ".", "%2E")...)
		}
		return append(b, url.PathEscape(hash)...)
	}
	return k.AppendTo(b)
}

// jsonBody returns a body as one JSON value without line ends, if its type says that it is JSON and it is.
func jsonBody(contentType string, body []byte) ([]byte, bool) {
	if !isJSON(contentType) || !utf8.Valid(body) {
		return nil, false
	}
	var b bytes.Buffer
	if err := json.Compact(&b, body); err != nil {
		return nil, false
	}
	return b.Bytes(), true
}

// isJSON reports whether a content type promises JSON.
func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == "application/json" || media == "text/json" || strings.HasSuffix(media, "+json"))
}

// isPlain reports whether a body can stand in JSON as a string: it is UTF-8 and, unless its type promises text, has no control characters but tabs and
// line feeds. Nothing is lost by it. Websockets go by the same rule.
func isPlain(contentType string, body []byte) bool {
	if !utf8.Valid(body) {
		return false
	}
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	if media == "" || strings.HasPrefix(media, "text/") || strings.HasSuffix(media, "+json") || strings.HasSuffix(media, "+xml") {
		return true
	}
	switch media {
	case "application/json", "application/xml", "application/javascript", "application/x-ndjson", "application/yaml", "application/x-www-form-urlencoded":
		return true
	}
	return !slices.ContainsFunc(body, func(c byte) bool { return c < ' ' && c != '\n' && c != '\t' || c == 0x7f })
}
