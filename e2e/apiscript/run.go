package apiscript

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Options say where a script runs.
type Options struct {
	Addr    string        // host:port of the server
	Timeout time.Duration // for one request; 0: a minute
	Vars    map[string]string
}

// Runner runs scripts against one server. Not for concurrent use.
type Runner struct {
	opt  Options
	vars map[string]string
	dir  string
}

// New makes a runner. The variables hub and host are set from Addr.
func New(opt Options) *Runner {
	if opt.Timeout == 0 {
		opt.Timeout = time.Minute
	}
	return &Runner{opt: opt}
}

// answer is what came back; closed means that nothing did.
type answer struct {
	closed bool
	status int
	header http.Header
	body   []byte
	err    error // while reading the body
}

// Run runs the steps in order and returns what was wrong with each; one bad step does not stop the rest. A step whose answer never came does.
func (r *Runner) Run(s *Script) []error {
	r.dir = s.dir
	r.vars = map[string]string{"hub": "http://" + r.opt.Addr, "host": r.opt.Addr}
	for k, v := range r.opt.Vars {
		r.vars[k] = v
	}
	var wrong []error
	for _, step := range s.Steps {
		for _, err := range r.step(step) {
			title := ""
			if step.Title != "" {
				title = " (" + step.Title + ")"
			}
			wrong = append(wrong, fmt.Errorf("%s.txt:%d%s: %s %s: %w", s.Name, step.Line, title, step.req.method, short(step.req.target), err))
		}
	}
	return wrong
}

// step sends and checks, again while the script allows it.
func (r *Runner) step(s *Step) []error {
	deadline := time.Now().Add(s.req.within)
	for round := 0; ; round++ {
		wrong := r.once(s)
		switch {
		case len(wrong) > 0 && s.req.within > 0 && time.Now().Before(deadline):
			time.Sleep(50 * time.Millisecond)
		case len(wrong) > 0 || s.req.within > 0 || round+1 >= s.req.times:
			return wrong
		}
	}
}

func (r *Runner) once(s *Step) []error {
	out, body, err := r.compose(&s.req)
	if err != nil {
		return []error{err}
	}
	if s.req.save != "" {
		r.vars["saved "+s.req.save] = string(body)
	}
	a, err := r.send(&s.req, out)
	if err != nil {
		return []error{err}
	}
	return r.checkAll(s, a)
}

// compose builds the bytes of a request; body is what it carries before any encoding.
func (r *Runner) compose(q *request) (out, body []byte, err error) {
	coded, body, err := r.build(q.body)
	if err != nil {
		return nil, nil, err
	}
	if q.raw {
		return coded, body, nil
	}
	target, err := r.expand(q.target)
	if err != nil {
		return nil, nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", q.method, strings.TrimPrefix(target, r.vars["hub"]))
	said := map[string]bool{}
	for _, h := range q.headers {
		h, err := r.expand(h)
		if err != nil {
			return nil, nil, err
		}
		name, value, _ := strings.Cut(h, ":")
		said[strings.ToLower(name)] = true
		fmt.Fprintf(&b, "%s: %s\r\n", name, strings.TrimSpace(value))
	}
	if !said["host"] {
		fmt.Fprintf(&b, "Host: %s\r\n", r.opt.Addr)
	}
	if !said["connection"] {
		b.WriteString("Connection: close\r\n")
	}
	switch sends := len(q.body) > 0 || q.method == "POST" || q.method == "PUT" || q.method == "PATCH"; {
	case q.chunked:
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		for rest := coded; len(rest) > 0; {
			n := min(len(rest), 10_000)
			fmt.Fprintf(&b, "%x\r\n%s\r\n", n, rest[:n])
			rest = rest[n:]
		}
		b.WriteString("0\r\n\r\n")
		return b.Bytes(), body, nil
	case sends && !said["content-length"] && !said["transfer-encoding"]:
		b.WriteString("Content-Length: " + strconv.Itoa(len(coded)) + "\r\n")
	}
	b.WriteString("\r\n")
	b.Write(coded)
	return b.Bytes(), body, nil
}

// send writes and reads at the same time: a server may answer, and close, before it has read all.
func (r *Runner) send(q *request, out []byte) (*answer, error) {
	conn, err := net.DialTimeout("tcp", r.opt.Addr, r.opt.Timeout)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	conn.SetDeadline(time.Now().Add(r.opt.Timeout))
	written := make(chan struct{})
	go func() {
		defer close(written)
		// A failed write is no finding: what the server answered tells.
		if _, err := conn.Write(out); err == nil && q.half {
			conn.(*net.TCPConn).CloseWrite()
		}
	}()
	defer func() { conn.Close(); <-written }()

	method := q.method
	if q.raw {
		first, _, _ := strings.Cut(string(out), " ")
		method = first
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return nil, fmt.Errorf("no answer within %v", r.opt.Timeout)
	case err != nil && strings.Contains(err.Error(), "malformed"):
		return nil, fmt.Errorf("answer is no HTTP: %w", err)
	case err != nil:
		return &answer{closed: true, header: http.Header{}}, nil
	}
	defer resp.Body.Close()
	a := &answer{status: resp.StatusCode, header: resp.Header}
	if resp.ContentLength >= 0 {
		a.header.Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	}
	a.body, a.err = io.ReadAll(resp.Body)
	return a, nil
}

var (
	variable = regexp.MustCompile(`\$\{([^}]*)\}`)
	nowForm  = regexp.MustCompile(`^now([+-][0-9a-z.]+)?:(.+)$`)
)

// expand replaces ${name} and ${now-1h:2006/01/02}, times being UTC.
func (r *Runner) expand(s string) (string, error) {
	var bad error
	out := variable.ReplaceAllStringFunc(s, func(m string) string {
		name := m[2 : len(m)-1]
		if f := nowForm.FindStringSubmatch(name); f != nil {
			t := time.Now().UTC()
			if f[1] != "" {
				d, err := time.ParseDuration(f[1])
				if err != nil {
					bad = err
				}
				t = t.Add(d)
			}
			return t.Format(f[2])
		}
		if v, ok := r.vars[name]; ok {
			return v
		}
		if n, err := strconv.Unquote(name); err == nil {
			return n
		}
		bad = fmt.Errorf("no variable %q", name)
		return m
	})
	return out, bad
}

func short(s string) string {
	if len(s) > 120 {
		return s[:100] + "…" + s[len(s)-15:]
	}
	return s
}
