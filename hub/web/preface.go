package web

import (
	"context"
	"net"
	"net/http"
	"strings"
)

// Prefacer is a connection that can add lines to the header of the answer that is written to it next, behind its first line.
//
// The lines that all answers share take that way where they can. net/http copies the map of a header, sorts it and writes it line by line, which for a
// small answer costs more than all the rest; and a map of more than eight lines costs twice as much again. What a client reads is the same.
type Prefacer interface {
	// Preface hands over whole lines, each with its CR LF. They are not changed afterwards.
	Preface(lines []byte)
}

type prefacerKey struct{}

// ConnContext is for http.Server.ConnContext: it shows a connection that is a Prefacer to the Router. Without it, and with other connections, the Router
// puts all lines into the map.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if p, ok := c.(Prefacer); ok {
		return context.WithValue(ctx, prefacerKey{}, p)
	}
	return ctx
}

// begin puts the common lines into the header, as far as the connection does not write them.
func (x *exchange) begin(h http.Header) {
	own := x.rt.common
	if x.conn, _ = x.Context.Value(prefacerKey{}).(Prefacer); x.conn != nil {
		own = own[x.rt.shared:]
	}
	for i := range own {
		h[own[i].name] = own[i].values
	}
}

// complete puts the shared lines into the map after all if a handler has said something else about one of them, as one that hands on another server's
// answer may. What a handler has said in Vary is not the whole of it: every answer may be coded.
func (x *exchange) complete(h http.Header) {
	if x.conn == nil {
		alsoByCoding(h)
		return
	}
	shared, said := x.rt.common[:x.rt.shared], false
	for i := range shared {
		_, there := h[shared[i].name]
		said = said || there
	}
	if !said {
		return
	}
	x.conn = nil
	for i := range shared {
		if _, there := h[shared[i].name]; !there {
			h[shared[i].name] = shared[i].values
		}
	}
	alsoByCoding(h)
}

// alsoByCoding adds Accept-Encoding to a Vary that a handler has made itself. A handler that has taken the line away keeps it away.
func alsoByCoding(h http.Header) {
	said := h["Vary"]
	if len(said) == 0 {
		return
	}
	for _, v := range said {
		if v == "*" || strings.Contains(v, "Accept-Encoding") {
			return
		}
	}
	h.Add("Vary", "Accept-Encoding")
}
