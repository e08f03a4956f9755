// Package web is the HTTP kit: what every face of the hub shares, so that no face chooses a status, spells a header or reads a stranger's bytes
// in its own way.
//
// A handler is a function that returns an error. The Router is the only adapter: it finds the handler, gives it a request whose body is guarded,
// writes the answer of an error by THE table of kinds and statuses (status.go), compresses, and logs each failed request once: at WARN or ERROR, but at
// DEBUG what is the client's own doing. It is no ServeMux: paths are matched as they were sent, percent-encoded and never "cleaned", so that nothing
// reaches a handler as something else; OPTIONS, HEAD, 404 and 405 are answered in our own way, and a catch-all can say which methods its paths have.
//
// Functions that take a request (Base, Local, Params, Content, …) work with requests that came through a Router; with others they do without what
// the Router knows, so that handlers can be tested alone.
//
// The package knows no channel, no item and no store. It keeps no global state: encoders and decoders belong to the Router.
package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Handler answers a request or says why it cannot. After an error nothing may have been written, or the connection is broken off so that the client
// cannot mistake half an answer for a whole one.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Options are for New. The zero value is a router that logs nothing.
type Options struct {
	Log *slog.Logger
	// Version is shown in the header Server; "" is "local".
	Version string
	// Node is the value of Hub-Node, host:port.
	Node string
	// BodyRate and BodyGrace: a body that arrives more slowly than BodyRate bytes per second after BodyGrace is refused with 408. Defaults 1024
	// and 10 s; a negative rate lets bodies take as long as they like.
	BodyRate  int64
	BodyGrace time.Duration
	// TraceLimit is how many of the first and of the last steps a trace keeps; default 50.
	TraceLimit int
	// Admit, if not nil, is asked before a handler gets a request; its error is the answer. pattern is the route's.
	Admit func(r *http.Request, pattern string) error
	// Expected, if not nil, tells whether the failure of a request is logged at debug level only, because whoever asked sees to it, or because what is wrong is
	// in the log already. It is not asked about errors of kind Internal.
	Expected func(r *http.Request, err error) bool
	// Observe, if not nil, is called once after each request, by the goroutine that served it.
	Observe func(Observation)
}

// Observation is what is known about a request when it has been served.
type Observation struct {
	Method  string
	Pattern string // the route's, "" if none was found
	Channel string // the path's channel, as it spells it; "tag/{t}" for a tag; "" if it names neither
	Status  int
	Bytes   int64 // of the answer's body, before compression
	Took    time.Duration
}

// New returns a Router without routes.
func New(opt Options) (*Router, error) {
	if opt.BodyGrace < 0 || opt.TraceLimit < 0 {
		return nil, errors.New("web: BodyGrace and TraceLimit must not be negative")
	}
	if strings.ContainsAny(opt.Version+opt.Node, "\r\n") {
		return nil, errors.New("web: Version and Node must be one line each")
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Version == "" {
		opt.Version = "local"
	}
	if opt.BodyRate == 0 {
		opt.BodyRate = 1024
	}
	if opt.BodyGrace == 0 {
		opt.BodyGrace = 10 * time.Second
	}
	if opt.TraceLimit == 0 {
		opt.TraceLimit = 50
	}
	rt := &Router{opt: opt, root: &branch{}, common: commonHeaders(opt)}
	for _, l := range rt.common {
		if l.name == nodeLine {
			break
		}
		rt.shared++
		rt.preface = fmt.Appendf(rt.preface, "%s: %s\r\n", l.name, l.values[0])
	}
	return rt, nil
}

// header is a preformatted line: the values are shared by all answers, so nobody may change them in place (Set and Add do not).
type header struct {
	name   string
	values []string
}

// nodeLine is the common line that handlers may look up: the answer to a handshake repeats it.
const nodeLine = "Hub-Node"

// commonHeaders are those of spec 02 §1.3.
func commonHeaders(opt Options) []header {
	lines := [][2]string{
		{"Access-Control-Allow-Origin", "*"},
		{"Access-Control-Allow-Headers", "origin, content-type, accept, authorization"},
		{"Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE, OPTIONS, HEAD"},
		{"Server", "Hub/" + opt.Version},
		{"Vary", "Accept-Encoding"},
	}
	if opt.Node != "" {
		lines = append(lines, [2]string{nodeLine, opt.Node})
	}
	out := make([]header, len(lines))
	for i, l := range lines {
		v := []string{l[1]}
		out[i] = header{l[0], v[:1:1]}
	}
	return out
}

// exchange is one request on its way: it is the request's context, the answer's writer, and what was found out on the way. One allocation.
type exchange struct {
	context.Context
	rt      *Router
	conn    Prefacer // nil: all lines of the header go through the map
	out     response
	body    guard
	pattern string
	params  [maxParams]param
	found   any
	path    string // as sent, made safe for links
	query   string
	base    string
	header  http.Header // of the request
	coding  Coding
	coded   bool // coding is known
	values  parsedQuery
	trace   *Trace
}

type param struct{ name, value string }

type exchangeKey struct{}

// Value makes the exchange find itself in contexts derived from it.
func (x *exchange) Value(key any) any {
	if key == (exchangeKey{}) {
		return x
	}
	return x.Context.Value(key)
}

func exchangeOf(r *http.Request) *exchange {
	if x, ok := r.Context().(*exchange); ok {
		return x
	}
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	return x
}

// Param is a path parameter of the route, unescaped; of a {name...} the rest of the path as it was sent, escaped.
func Param(r *http.Request, name string) string {
	if x := exchangeOf(r); x != nil {
		for i := range x.params {
			if x.params[i].name == name {
				return x.params[i].value
			}
		}
	}
	return r.PathValue(name)
}

// Found is what the resolver of a catch-all made of the path, nil on other routes.
func Found(r *http.Request) any {
	if x := exchangeOf(r); x != nil {
		return x.found
	}
	return nil
}
