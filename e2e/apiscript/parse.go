package apiscript

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Script is one file: what the hub is started with, and the steps.
type Script struct {
	Name  string
	Own   bool     // wants a hub of its own
	Flags []string // what that hub is started with
	Steps []*Step
	dir   string
}

// Step is one request and what its answer must be.
type Step struct {
	Line   int
	Title  string
	req    request
	checks []check
}

// request is what is sent, unexpanded.
type request struct {
	method, target string
	headers        []string // "Name: value", as written
	body           []piece
	save           string
	raw            bool // body is everything that is sent
	chunked        bool
	half           bool // close the sending side after the last byte
	times          int
	within         time.Duration
}

// piece is one contribution to a body; those that encode replace what is there.
type piece struct {
	kind, text string
	n          int
}

// check is one expectation or capture of an answer.
type check struct {
	line int
	kind string // status, closed, header, absent, body, matches, lacks, json, exactly, size, saved, decoded, multipart, part, zip, entry, set
	name string
	op   string // : *= ~
	text string
	n    int
}

// Read parses a script file.
func Read(path string) (*Script, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read script: %w", err)
	}
	s, err := Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	s.Name = strings.TrimSuffix(filepath.Base(path), ".txt")
	s.dir = filepath.Dir(path)
	return s, nil
}

// Parse reads the text of a script. Errors name the line.
func Parse(text string) (*Script, error) {
	s := &Script{}
	p := parser{script: s}
	for i, line := range strings.Split(text, "\n") {
		if err := p.line(i+1, strings.TrimSuffix(line, "\r")); err != nil {
			return nil, fmt.Errorf("%d: %w", i+1, err)
		}
	}
	if err := p.finish(); err != nil {
		return nil, err
	}
	if len(s.Steps) == 0 {
		return nil, fmt.Errorf("1: the script has no step")
	}
	return s, nil
}

type parser struct {
	script *Script
	step   *Step
	title  string
	asking bool // the last line of the step was a request line
}

func (p *parser) line(n int, line string) error {
	switch {
	case strings.TrimSpace(line) == "":
		return nil
	case strings.HasPrefix(line, "# hub:"):
		p.script.Own = true
		p.script.Flags = append(p.script.Flags, strings.Fields(strings.TrimPrefix(line, "# hub:"))...)
		return nil
	case strings.HasPrefix(line, "#"):
		return nil
	case strings.HasPrefix(line, "== "):
		p.title = strings.TrimPrefix(line, "== ")
		return nil
	case strings.HasPrefix(line, ">"):
		return p.request(n, line[1:])
	case strings.HasPrefix(line, "<"):
		if p.step == nil {
			return fmt.Errorf("an expectation before the first request")
		}
		p.asking = false
		return p.expect(n, line[1:])
	}
	return fmt.Errorf("%q: a line begins with >, <, == or #", line)
}

func (p *parser) finish() error {
	for _, s := range p.script.Steps {
		answered := false
		for _, c := range s.checks {
			answered = answered || c.kind == "status"
		}
		if !answered {
			return fmt.Errorf("%d: the request has no expected status", s.Line)
		}
	}
	return nil
}

func (p *parser) request(n int, rest string) error {
	if !p.asking {
		p.step = &Step{Line: n, Title: p.title, req: request{times: 1}}
		p.title = ""
		p.script.Steps = append(p.script.Steps, p.step)
		p.asking = true
	}
	r := &p.step.req
	if text, ok := strings.CutPrefix(rest, "|| "); ok || rest == "||" {
		r.body = append(r.body, piece{kind: "crlf", text: after(text, ok)})
		return nil
	}
	if text, ok := strings.CutPrefix(rest, "| "); ok || rest == "|" {
		r.body = append(r.body, piece{kind: "line", text: after(text, ok)})
		return nil
	}
	if head, ok := strings.CutPrefix(rest, " "); ok {
		return r.head(head)
	}
	word, arg, _ := strings.Cut(rest, " ")
	return r.directive(word, arg)
}

// after is the text after a marker that may stand alone on its line.
func after(text string, ok bool) string {
	if ok {
		return text
	}
	return ""
}

// head reads the request line and the headers.
func (r *request) head(line string) error {
	if r.method == "" {
		method, target, ok := strings.Cut(line, " ")
		if !ok {
			return fmt.Errorf("a request line is METHOD PATH")
		}
		r.method, r.target = method, strings.TrimSpace(target)
		return nil
	}
	if !strings.Contains(line, ":") {
		return fmt.Errorf("%q is no header", line)
	}
	r.headers = append(r.headers, line)
	return nil
}

func (r *request) directive(word, arg string) (err error) {
	p := piece{kind: word}
	switch word {
	case "q", "file":
		p.text = arg
		if word == "q" {
			p.text, err = strconv.Unquote(arg)
		}
		r.body = append(r.body, p)
	case "repeat":
		count, quoted, _ := strings.Cut(arg, " ")
		if p.n, err = strconv.Atoi(count); err == nil {
			p.text, err = strconv.Unquote(quoted)
		}
		r.body = append(r.body, p)
	case "bytes":
		p.n, err = strconv.Atoi(arg)
		r.body = append(r.body, p)
	case "gzip", "deflate", "zstd":
		r.body = append(r.body, p)
	case "save":
		r.save = arg
	case "raw":
		r.raw = true
	case "chunked":
		r.chunked = true
	case "half":
		r.half = true
	case "times":
		r.times, err = strconv.Atoi(arg)
	case "within":
		r.within, err = time.ParseDuration(arg)
	default:
		return fmt.Errorf("unknown request directive %q", word)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", word, arg, err)
	}
	return nil
}

var (
	statusLine = regexp.MustCompile(`^ ([1-5][0-9x]{2}|closed)(\|([1-5][0-9x]{2}|closed))*$`)
	headerLine = regexp.MustCompile(`^ ([A-Za-z0-9-]+)(: ?| \*= | ~ )(.*)$`)
	absentLine = regexp.MustCompile(`^ !([A-Za-z0-9-]+)$`)
)

func (p *parser) expect(n int, rest string) error {
	c := check{line: n}
	if strings.HasPrefix(rest, " ") {
		switch {
		case statusLine.MatchString(rest):
			c.kind, c.text = "status", rest[1:]
		case absentLine.MatchString(rest):
			c.kind, c.name = "absent", absentLine.FindStringSubmatch(rest)[1]
		case headerLine.MatchString(rest):
			m := headerLine.FindStringSubmatch(rest)
			c.kind, c.name, c.op, c.text = "header", m[1], strings.TrimSpace(m[2]), m[3]
		default:
			return fmt.Errorf("%q is neither a status nor a header", rest)
		}
		p.step.checks = append(p.step.checks, c)
		return nil
	}
	word, arg, _ := strings.Cut(rest, " ")
	switch word {
	case "|":
		return p.more("body", c, arg)
	case "json", "json=":
		kind := map[string]string{"json": "json", "json=": "exactly"}[word]
		return p.more(kind, c, arg)
	}
	if err := c.directive(word, arg); err != nil {
		return err
	}
	p.step.checks = append(p.step.checks, c)
	return nil
}

// more joins consecutive lines of one kind to one check; a JSON document that is complete ends it.
func (p *parser) more(kind string, c check, text string) error {
	if k := len(p.step.checks); k > 0 && p.step.checks[k-1].kind == kind && p.step.checks[k-1].n+1 == c.line &&
		(kind == "body" || !json.Valid([]byte(p.step.checks[k-1].text))) {
		last := &p.step.checks[k-1]
		last.text += "\n" + text
		last.n = c.line
		return nil
	}
	c.kind, c.text, c.n = kind, text, c.line
	p.step.checks = append(p.step.checks, c)
	return nil
}

func (c *check) directive(word, arg string) (err error) {
	c.text = arg
	switch word {
	case "q":
		c.kind = "body"
		c.text, err = strconv.Unquote(arg)
	case "~":
		c.kind = "matches"
	case "!~":
		c.kind = "lacks"
	case "bytes":
		c.kind = "size"
		c.n, err = strconv.Atoi(arg)
	case "empty":
		c.kind = "size"
	case "saved", "decoded":
		c.kind = word
	case "multipart", "zip":
		c.kind = word
		c.n, err = strconv.Atoi(arg)
	case "part", "entry":
		c.kind = word
		index, text, _ := strings.Cut(arg, " ")
		c.text = text
		c.n, err = strconv.Atoi(index)
	case "set":
		c.kind = word
		var ok bool
		if c.name, c.text, ok = strings.Cut(arg, " = "); !ok {
			err = fmt.Errorf("want NAME = SOURCE")
		}
	default:
		return fmt.Errorf("unknown expectation %q", word)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", word, arg, err)
	}
	return nil
}

// decode reads one JSON document, numbers kept as written.
func decode(text string) (any, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("text after the JSON document")
	}
	return v, nil
}
