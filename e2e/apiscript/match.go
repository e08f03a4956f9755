package apiscript

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// checkAll compares one answer with a step's expectations and takes its captures.
func (r *Runner) checkAll(s *Step, a *answer) []error {
	var wrong []error
	for _, c := range s.checks {
		if a.closed && c.kind != "status" {
			continue
		}
		if err := r.check(c, a); err != nil {
			wrong = append(wrong, fmt.Errorf("line %d: %w", c.line, err))
		}
	}
	if len(wrong) > 0 && !a.closed {
		var h strings.Builder
		for _, name := range sorted(a.header) {
			fmt.Fprintf(&h, "\n      %s: %s", name, strings.Join(a.header[name], "\n      "+name+": "))
		}
		wrong = append(wrong, fmt.Errorf("the answer was %d%s\n      %s", a.status, h.String(), brief(a.body)))
	}
	return wrong
}

func (r *Runner) check(c check, a *answer) error {
	want := c.text
	if c.kind != "lacks" && c.kind != "set" {
		var err error
		if want, err = r.expand(c.text); err != nil {
			return err
		}
	}
	if c.kind != "status" && c.kind != "header" && c.kind != "absent" && a.err != nil {
		return fmt.Errorf("body breaks off: %w", a.err)
	}
	switch c.kind {
	case "status":
		return statusIs(want, a)
	case "header":
		return headerIs(c, want, a.header)
	case "absent":
		if v := a.header.Values(c.name); len(v) > 0 {
			return fmt.Errorf("header %s should not be there, it is %q", c.name, v)
		}
	case "set":
		return r.capture(c, a)
	case "decoded":
		body, err := decoded(a.header.Get("Content-Encoding"), a.body)
		if err != nil {
			return err
		}
		a.body = body
	case "saved":
		if saved, ok := r.vars["saved "+want]; !ok || saved != string(a.body) {
			return fmt.Errorf("body of %d bytes is not the %d bytes saved as %s", len(a.body), len(saved), want)
		}
	case "size":
		if len(a.body) != c.n {
			return fmt.Errorf("body has %d bytes, not %d", len(a.body), c.n)
		}
	case "body":
		if string(a.body) != want {
			return fmt.Errorf("body is %s, not %s", brief(a.body), brief([]byte(want)))
		}
	case "matches", "lacks":
		re, err := regexp.Compile("(?s)" + want)
		if err != nil {
			return fmt.Errorf("expression: %w", err)
		}
		if re.Match(a.body) != (c.kind == "matches") {
			return fmt.Errorf("body %s %q", map[string]string{"matches": "does not match", "lacks": "matches"}[c.kind], want)
		}
	case "json", "exactly":
		return jsonIs(want, a.body, c.kind == "exactly")
	default:
		return archiveIs(c, want, a)
	}
	return nil
}

func statusIs(want string, a *answer) error {
	for _, w := range strings.Split(want, "|") {
		if w == "closed" && a.closed {
			return nil
		}
		got := strconv.Itoa(a.status)
		if !a.closed && len(w) == len(got) {
			same := true
			for i := range w {
				same = same && (w[i] == 'x' || w[i] == got[i])
			}
			if same {
				return nil
			}
		}
	}
	if a.closed {
		return fmt.Errorf("connection closed without an answer, want %s", want)
	}
	return fmt.Errorf("status %d, want %s", a.status, want)
}

// headerIs holds if one of the header's values is, contains or matches what is wanted.
func headerIs(c check, want string, h http.Header) error {
	var re *regexp.Regexp
	if c.op == "~" {
		var err error
		if re, err = regexp.Compile(want); err != nil {
			return fmt.Errorf("expression: %w", err)
		}
	}
	values := h.Values(c.name)
	for _, v := range values {
		switch {
		case c.op == ":" && v == want, c.op == "*=" && strings.Contains(v, want), re != nil && re.MatchString(v):
			return nil
		}
	}
	if len(values) == 0 {
		return fmt.Errorf("header %s is missing, want %q", c.name, want)
	}
	return fmt.Errorf("header %s is %q, want %s %q", c.name, values, c.op, want)
}

// capture sets a variable: from a header, "body", or "json a.b.0", perhaps cut out by "~ expression" (its first group, else the whole match).
func (r *Runner) capture(c check, a *answer) error {
	source, expr, cut := strings.Cut(c.text, " ~ ")
	var value string
	switch path, isJSON := strings.CutPrefix(source, "json "); {
	case isJSON:
		v, err := decode(string(a.body))
		if err != nil {
			return fmt.Errorf("set %s: body is no JSON: %w", c.name, err)
		}
		found, ok := at(v, path)
		if !ok {
			return fmt.Errorf("set %s: the answer has no %s", c.name, path)
		}
		value = fmt.Sprint(found)
	case source == "body":
		value = string(a.body)
	default:
		if value = a.header.Get(source); value == "" {
			return fmt.Errorf("set %s: the answer has no header %s", c.name, source)
		}
	}
	if cut {
		re, err := regexp.Compile("(?s)" + expr)
		if err != nil {
			return fmt.Errorf("expression: %w", err)
		}
		m := re.FindStringSubmatch(value)
		if m == nil {
			return fmt.Errorf("set %s: %q does not match %q", c.name, value, expr)
		}
		value = m[len(m)-1]
	}
	r.vars[c.name] = value
	return nil
}

// at follows a path of member names and array positions; -1 is the last.
func at(v any, path string) (any, bool) {
	for _, step := range strings.Split(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = x[step]; !ok {
				return nil, false
			}
		case []any:
			i, err := strconv.Atoi(step)
			if i < 0 {
				i += len(x)
			}
			if err != nil || i < 0 || i >= len(x) {
				return nil, false
			}
			v = x[i]
		default:
			return nil, false
		}
	}
	return v, true
}

func jsonIs(want string, body []byte, exactly bool) error {
	w, err := decode(want)
	if err != nil {
		return fmt.Errorf("the script's own JSON: %w", err)
	}
	got, err := decode(string(body))
	if err != nil {
		return fmt.Errorf("body is no JSON: %w", err)
	}
	return match("", w, got, exactly)
}

// match compares with the conventions of the README: "*", "#n", "~expression", "<absent>".
func match(path string, want, got any, exactly bool) error {
	at := path
	if at == "" {
		at = "the document"
	}
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%s is %s, not an object", at, show(got))
		}
		return matchObject(path, w, g, exactly)
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return fmt.Errorf("%s is %s, not an array of %d", at, show(got), len(w))
		}
		for i := range w {
			if err := match(path+"."+strconv.Itoa(i), w[i], g[i], exactly); err != nil {
				return err
			}
		}
		return nil
	case string:
		if special, err := matchSpecial(w, got); special {
			if err != nil {
				return fmt.Errorf("%s %w", at, err)
			}
			return nil
		}
	}
	if want != got {
		return fmt.Errorf("%s is %s, want %s", at, show(got), show(want))
	}
	return nil
}

func matchObject(path string, want, got map[string]any, exactly bool) error {
	for _, k := range sorted(want) {
		v, ok := got[k]
		if want[k] == "<absent>" {
			if ok {
				return fmt.Errorf("%s.%s should not be there, it is %s", path, k, show(v))
			}
			continue
		}
		if !ok {
			return fmt.Errorf("%s.%s is missing", path, k)
		}
		if err := match(path+"."+k, want[k], v, exactly); err != nil {
			return err
		}
	}
	if exactly {
		for _, k := range sorted(got) {
			if _, ok := want[k]; !ok {
				return fmt.Errorf("%s.%s is not expected, it is %s", path, k, show(got[k]))
			}
		}
	}
	return nil
}

func matchSpecial(want string, got any) (special bool, err error) {
	switch {
	case want == "*":
		return true, nil
	case strings.HasPrefix(want, "~"):
		re, err := regexp.Compile("(?s)" + want[1:])
		if err != nil {
			return true, fmt.Errorf("expression: %w", err)
		}
		text, ok := got.(string)
		if !ok {
			text = show(got)
		}
		if !re.MatchString(text) {
			return true, fmt.Errorf("is %s, want %s", show(got), want)
		}
		return true, nil
	case strings.HasPrefix(want, "#"):
		n, err := strconv.Atoi(want[1:])
		if err != nil {
			return false, nil
		}
		if g, ok := got.([]any); !ok || len(g) != n {
			return true, fmt.Errorf("is %s, want %d elements", show(got), n)
		}
		return true, nil
	}
	return false, nil
}

// archiveIs looks into multipart and zip answers.
func archiveIs(c check, want string, a *answer) error {
	type file struct {
		header map[string][]string
		name   string
		body   []byte
	}
	var files []file
	if c.kind == "multipart" || c.kind == "part" {
		_, params, err := mime.ParseMediaType(a.header.Get("Content-Type"))
		if err != nil {
			return fmt.Errorf("content type of a multipart answer: %w", err)
		}
		// An empty answer is the close delimiter alone, which mime/multipart takes for a broken body.
		if bytes.HasPrefix(a.body, []byte("--"+params["boundary"]+"--")) {
			a = &answer{}
		}
		for mr := multipart.NewReader(bytes.NewReader(a.body), params["boundary"]); len(a.body) > 0; {
			p, err := mr.NextRawPart()
			if err == io.EOF {
				break
			}
			if err != nil {
				return fmt.Errorf("multipart answer: %w", err)
			}
			body, err := io.ReadAll(p)
			if err != nil {
				return fmt.Errorf("multipart answer: %w", err)
			}
			files = append(files, file{header: p.Header, body: body})
		}
	} else {
		z, err := zip.NewReader(bytes.NewReader(a.body), int64(len(a.body)))
		if err != nil {
			return fmt.Errorf("zip answer: %w", err)
		}
		for _, f := range z.File {
			body, err := unzip(f)
			if err != nil {
				return fmt.Errorf("zip answer: %w", err)
			}
			files = append(files, file{name: f.Name, body: body})
		}
	}
	if c.kind == "multipart" || c.kind == "zip" {
		if len(files) != c.n {
			return fmt.Errorf("%s answer has %d items, not %d", c.kind, len(files), c.n)
		}
		return nil
	}
	if c.n < 0 || c.n >= len(files) {
		return fmt.Errorf("%s answer has no item %d", c.kind, c.n)
	}
	f := files[c.n]
	if quoted, err := strconv.Unquote(want); err == nil {
		if string(f.body) != quoted {
			return fmt.Errorf("item %d is %s, not %s", c.n, brief(f.body), brief([]byte(quoted)))
		}
		return nil
	}
	if m := headerLine.FindStringSubmatch(" " + want); m != nil && c.kind == "part" {
		return headerIs(check{name: m[1], op: strings.TrimSpace(m[2])}, m[3], f.header)
	}
	if f.name != want {
		return fmt.Errorf("item %d is called %q, not %q", c.n, f.name, want)
	}
	return nil
}

func unzip(f *zip.File) ([]byte, error) {
	in, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return io.ReadAll(in)
}

func show(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if len(b) > 600 {
		return string(b[:600]) + "…"
	}
	return string(b)
}

func brief(b []byte) string {
	if len(b) > 600 {
		return fmt.Sprintf("%q… (%d bytes)", b[:600], len(b))
	}
	return fmt.Sprintf("%q", b)
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
