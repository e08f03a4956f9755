package web

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
)

// Base is {hub} of the specification: scheme and authority as the client sees them, without a final slash (spec 02 §1.2).
func Base(r *http.Request) string {
	x := exchangeOf(r)
	if x == nil {
		return base(r, nil)
	}
	if x.base == "" {
		x.base = base(r, &x.rt.last)
	}
	return x.base
}

// knownBase is the base of a host that was asked for directly: most requests say the same one.
type knownBase struct{ scheme, host, base string }

func base(r *http.Request, last *atomic.Pointer[knownBase]) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	host := r.Host
	if !plainHost(host) {
		host = localHost(r)
	}
	forwardedHost, hasHost := firstOf(r.Header, "X-Forwarded-Host")
	forwardedProto, hasProto := firstOf(r.Header, "X-Forwarded-Proto")
	if !hasHost && !hasProto {
		return direct(scheme, host, last)
	}
	if p := strings.ToLower(forwardedProto); p == "http" || p == "https" {
		scheme = p
	}
	if plainHost(forwardedHost) {
		host = forwardedHost // with its port if it names one, else with none
	}
	return scheme + "://" + host
}

func direct(scheme, host string, last *atomic.Pointer[knownBase]) string {
	if last == nil {
		return scheme + "://" + dropPort(host)
	}
	if k := last.Load(); k != nil && k.host == host && k.scheme == scheme {
		return k.base
	}
	k := &knownBase{scheme, strings.Clone(host), scheme + "://" + dropPort(host)}
	last.Store(k)
	return k.base
}

// firstOf is the first element of a comma list, trimmed, and whether the header is there at all.
func firstOf(h http.Header, name string) (string, bool) {
	lines := h[name]
	if len(lines) == 0 {
		return "", false
	}
	first, _, _ := strings.Cut(lines[0], ",")
	return strings.Trim(first, " \t"), true
}

// plainHost reports whether a host, perhaps with a port, can stand in a link: a name or address, an IPv6 address in brackets.
func plainHost(s string) bool {
	if s == "" {
		return false
	}
	if s[0] == '[' {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return false
		}
		if a, err := netip.ParseAddr(s[1:end]); err != nil || a.Zone() != "" { // a zone may hold anything, and means nothing to others
			return false
		}
		return s[end+1:] == "" || s[end+1] == ':' && digits(s[end+2:])
	}
	name, port, has := strings.Cut(s, ":")
	if name == "" || has && !digits(port) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

func digits(s string) bool {
	if len(s) == 0 || len(s) > 5 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// localHost is where the request arrived: for clients that say no host, or one that cannot stand in a link.
func localHost(r *http.Request) string {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && plainHost(a.String()) {
		return a.String()
	}
	return "localhost"
}

// dropPort removes the well-known ports.
func dropPort(host string) string {
	if s, ok := strings.CutSuffix(host, ":80"); ok {
		return s
	}
	return strings.TrimSuffix(host, ":443")
}

// Path is the request's path as it was sent, percent-encoded; what could not stand in a link, a header or a JSON string is encoded too.
func Path(r *http.Request) string {
	if x := exchangeOf(r); x != nil {
		return x.path
	}
	return requestPath(r)
}

// Query is the query as it was sent, with its "?"; "" if there is none. It is safe in links, headers and JSON strings.
func Query(r *http.Request) string {
	if x := exchangeOf(r); x != nil {
		return x.query
	}
	return requestQuery(r)
}

// URI is the absolute address of the request, with the query as it was sent.
func URI(r *http.Request) string { return Base(r) + Path(r) + Query(r) }

func requestPath(r *http.Request) string {
	p := r.RequestURI
	if len(p) > 0 && p[0] == '/' {
		p, _, _ = strings.Cut(p, "?")
	} else { // absolute form, or a request that no server read
		p = r.URL.EscapedPath()
	}
	if p == "" || p[0] != '/' {
		p = "/" + p
	}
	return linkSafe(p)
}

func requestQuery(r *http.Request) string {
	if r.URL.RawQuery == "" {
		return ""
	}
	return "?" + linkSafe(r.URL.RawQuery)
}

// linkSafe encodes the bytes that would break out of a link. Nearly always there are none.
func linkSafe(s string) string {
	for i := range len(s) {
		if unsafeInLink(s[i]) {
			return encodeLink(s)
		}
	}
	return s
}

func unsafeInLink(c byte) bool {
	return c <= ' ' || c >= 0x7f || c == '"' || c == '<' || c == '>' || c == '\\'
}

func encodeLink(s string) string {
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+16)
	for i := range len(s) {
		if c := s[i]; unsafeInLink(c) {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

// Local reports whether the caller is "localhost" (spec 01 §3.6): its address is a loopback one, it addresses the hub as localhost, and no proxy stands
// between.
func Local(r *http.Request) bool {
	host, _, _ := strings.Cut(r.Host, ":")
	if host != "localhost" {
		return false
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return false
	}
	for name := range r.Header {
		if name == "Forwarded" || name == "Via" || strings.HasPrefix(name, "X-Forwarded-") {
			return false
		}
	}
	return true
}
