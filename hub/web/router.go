package web

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"timehub/hub"
)

const maxParams = 4

// Methods are the handlers of one path by method. HEAD is answered by GET's unless it has its own; OPTIONS always by the router.
type Methods map[string]Handler

// Resolver says what the paths under a catch-all are: their methods, and anything the handlers want to know about the path (Found). An error is the
// answer to every method: NotFound for a path that does not exist.
type Resolver func(r *http.Request, rest string) (Methods, any, error)

// Router finds the handler of a request. Routes are added before it serves; then it is safe for concurrent use.
type Router struct {
	opt     Options
	root    *branch
	common  []header // of every answer
	shared  int      // how many of them a Prefacer writes, the first ones
	preface []byte   // those as it writes them
	coders  coders
	last    atomic.Pointer[knownBase]
}

type branch struct {
	literals map[string]*branch
	name     string // of the parameter
	param    *branch
	tailName string
	tail     Resolver
	tailPath string
	methods  Methods
	pattern  string
}

// Handle adds a route. A pattern is a path whose segments are literals or {parameters}; a literal beats a parameter, a parameter beats a catch-all. It
// panics on a pattern that makes no sense or exists already: that is a mistake in the program.
func (rt *Router) Handle(method, pattern string, h Handler) {
	b := rt.grow(pattern, split(pattern))
	if b.methods == nil {
		b.methods = Methods{}
	}
	if b.methods[method] != nil {
		panic("web: " + method + " " + pattern + " is there already")
	}
	b.methods[method], b.pattern = h, pattern
}

// Resolve adds a catch-all: pattern ends with {name...}, which stands for one or more segments.
func (rt *Router) Resolve(pattern string, f Resolver) {
	segments := split(pattern)
	last := segments[len(segments)-1]
	if !strings.HasPrefix(last, "{") || !strings.HasSuffix(last, "...}") {
		panic("web: " + pattern + " is no catch-all")
	}
	b := rt.grow(pattern, segments[:len(segments)-1])
	if b.tail != nil {
		panic("web: " + pattern + " is there already")
	}
	b.tail, b.tailName, b.tailPath = f, last[1:len(last)-4], pattern
}

func split(pattern string) []string {
	if !strings.HasPrefix(pattern, "/") {
		panic("web: pattern " + pattern + " does not begin with /")
	}
	if pattern == "/" {
		return nil
	}
	return strings.Split(pattern[1:], "/")
}

func (rt *Router) grow(pattern string, segments []string) *branch {
	b, params := rt.root, 1 // one is kept for a catch-all
	for _, s := range segments {
		if !strings.HasPrefix(s, "{") {
			if b.literals == nil {
				b.literals = map[string]*branch{}
			}
			if b.literals[s] == nil {
				b.literals[s] = &branch{}
			}
			b = b.literals[s]
			continue
		}
		name := strings.Trim(s, "{}")
		if b.param == nil {
			b.param, b.name = &branch{}, name
		}
		if params++; b.name != name || params > maxParams {
			panic("web: parameter " + name + " of " + pattern + " has another name elsewhere, or is one too many")
		}
		b = b.param
	}
	return b
}

// route is what was found for a path.
type route struct {
	methods Methods
	pattern string
	found   any
}

// find looks for rest, which follows a slash, below b. ok is false if there is no such path; err is the word of a resolver.
func (x *exchange) find(r *http.Request, b *branch, rest string, n int) (_ route, ok bool, err error) {
	segment, more, deeper := strings.Cut(rest, "/")
	for _, next := range [2]*branch{b.literals[segment], b.param} {
		if next == nil || segment == "" {
			continue
		}
		at := n
		if next == b.param {
			value, good := unescape(segment)
			if !good {
				continue
			}
			x.params[n] = param{b.name, value}
			at++
		}
		if deeper {
			if found, ok, err := x.find(r, next, more, at); ok || err != nil {
				return found, ok, err
			}
		} else if next.methods != nil {
			return route{next.methods, next.pattern, nil}, true, nil
		}
		clear(x.params[n:])
	}
	if b.tail == nil || rest == "" || strings.HasPrefix(rest, "/") || strings.HasSuffix(rest, "/") || strings.Contains(rest, "//") {
		return route{}, false, nil
	}
	x.params[n] = param{b.tailName, rest}
	x.pattern = b.tailPath
	methods, value, err := b.tail(r, rest)
	return route{methods, b.tailPath, value}, err == nil, err
}

// unescape reads a path segment. One that hides a slash or a control character names nothing.
func unescape(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	v, err := url.PathUnescape(s)
	if err != nil || strings.ContainsFunc(v, func(c rune) bool { return c < 0x20 || c == 0x7f || c == '/' }) {
		return "", false
	}
	return v, true
}

// lookup finds the route of the request's path.
func (x *exchange) lookup(r *http.Request, path string) (route, bool, error) {
	clear(x.params[:])
	if path == "/" {
		return route{x.rt.root.methods, "/", nil}, x.rt.root.methods != nil, nil
	}
	return x.find(r, x.rt.root, path[1:], 0)
}

// ServeHTTP answers every request, also those that no route takes.
func (rt *Router) ServeHTTP(w http.ResponseWriter, outer *http.Request) {
	start := time.Now()
	x := &exchange{Context: outer.Context(), rt: rt, header: outer.Header}
	x.path, x.query = requestPath(outer), requestQuery(outer)
	x.out = response{ResponseWriter: w, x: x, head: outer.Method == http.MethodHead}
	r := outer.WithContext(x)
	if r.Body != nil && r.Body != http.NoBody {
		x.body.init(r, w, rt.opt)
		r.Body = &x.body
	}
	x.begin(w.Header())
	if x.query != "" && Bool(r, "trace", false) {
		x.trace = newTrace(start, rt.opt.TraceLimit, r.Method+" "+URI(r))
	}
	defer x.done(r, start)
	if err := x.serve(r); err != nil {
		x.fail(r, err)
	}
	x.out.finish()
}

// done is the end of every request, also of one that is broken off.
func (x *exchange) done(r *http.Request, start time.Time) {
	if x.rt.opt.Observe != nil {
		x.rt.opt.Observe(Observation{r.Method, x.pattern, x.subject(r), x.out.status, x.out.size, time.Since(start)})
	}
	if x.trace != nil {
		x.rt.opt.Log.Info("traced request", "trace", x.trace.id, "first", x.trace.first, "took", time.Since(start), "steps", x.trace.Steps())
	}
}

// subject is what the path is about, for Observation.
func (x *exchange) subject(r *http.Request) string {
	if t := Param(r, "tag"); t != "" {
		return "tag/" + t
	}
	return Param(r, "channel")
}

func (x *exchange) serve(r *http.Request) error {
	if r.RequestURI == "*" && r.Method == http.MethodOptions {
		x.out.Header().Set("Allow", "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")
		x.out.WriteHeader(http.StatusOK)
		return nil
	}
	found, ok, err := x.lookup(r, x.path)
	if err != nil {
		return err
	}
	if !ok {
		if x.slash(r) {
			return nil
		}
		return hub.E(hub.NotFound, "no such path: %s", clip(x.path))
	}
	x.pattern, x.found = found.pattern, found.found
	h := found.methods[r.Method]
	if h == nil && r.Method == http.MethodHead {
		h = found.methods[http.MethodGet]
	}
	if h != nil {
		if admit := x.rt.opt.Admit; admit != nil {
			if err := admit(r, found.pattern); err != nil {
				return err
			}
		}
		return call(h, &x.out, r)
	}
	x.out.Header().Set("Allow", found.methods.allow())
	if r.Method == http.MethodOptions {
		x.out.WriteHeader(http.StatusOK)
		return nil
	}
	return hub.E(hub.NotAllowed, "method %s is not allowed here: use %s", clip(r.Method), found.methods.allow())
}

// slash answers a path that ends in a slash and would be one without it (spec 02 §1.7).
func (x *exchange) slash(r *http.Request) bool {
	short, cut := strings.CutSuffix(x.path, "/")
	if !cut || short == "" || strings.HasSuffix(short, "/") {
		return false
	}
	if _, ok, _ := x.lookup(r, short); !ok {
		return false
	}
	Redirect(&x.out, http.StatusTemporaryRedirect, Base(r)+short+x.query)
	return true
}

func (m Methods) allow() string {
	names := []string{http.MethodOptions}
	for name := range m {
		names = append(names, name)
	}
	if m[http.MethodGet] != nil && m[http.MethodHead] == nil {
		names = append(names, http.MethodHead)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// Redirect answers with a status of 3xx and an absolute Location, without a body.
func Redirect(w http.ResponseWriter, status int, location string) {
	h := w.Header()
	h["Location"] = []string{location}
	h["Content-Length"] = []string{"0"}
	w.WriteHeader(status)
}
