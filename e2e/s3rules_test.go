package e2e

import (
	"encoding/xml"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"timehub/e2e/hubproc"
)

// ruleBook stands before an S3 server that knows no lifecycle rules (none that can be had here does) and keeps the document of them in its place.
type ruleBook struct {
	URL string

	mu       sync.Mutex // guards what follows
	document string
	puts     int
}

const foreignRule = `<Rule><ID>theirs</ID><Status>Enabled</Status><Filter><Prefix>logs/</Prefix></Filter><Expiration><Days>7</Days></Expiration></Rule>`

// keepRules starts one; a rule of somebody else's is there already.
func keepRules(t *testing.T, server string) *ruleBook {
	to, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	b := &ruleBook{document: "<LifecycleConfiguration>" + foreignRule + "</LifecycleConfiguration>"}
	proxy := &httputil.ReverseProxy{
		Rewrite:  func(p *httputil.ProxyRequest) { p.Out.URL.Scheme, p.Out.URL.Host = to.Scheme, to.Host },
		ErrorLog: log.New(io.Discard, "", 0), // calls that end with their context
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !r.URL.Query().Has("lifecycle") {
			proxy.ServeHTTP(w, r)
			return
		}
		b.serve(w, r)
	}))
	t.Cleanup(s.Close)
	b.URL = s.URL
	return b
}

func (b *ruleBook) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err != nil:
		w.WriteHeader(http.StatusBadRequest)
	case r.Method == http.MethodPut:
		b.document = string(body)
		b.puts++
	case r.Method == http.MethodDelete:
		b.document = ""
	default:
		_, _ = io.WriteString(w, b.document)
	}
}

// check waits until the rules are what they should be: they are looked at once a minute, and by each node that begins to.
func (b *ruleBook) check(t *testing.T, hubs []*hubproc.Hub, want ...string) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		have, puts := b.rules(t)
		most := 3
		for _, h := range hubs {
			most += upsets(h.Log())
		}
		switch {
		case puts > most:
			t.Fatalf("the lifecycle rules were set %d times: one node should, when a channel has changed", puts)
		case slices.Equal(have, want):
			return
		case time.Now().After(deadline):
			t.Fatalf("the lifecycle rules are %q, want %q", have, want)
		}
	}
}

func (b *ruleBook) rules(t *testing.T) (list []string, puts int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var d struct {
		Rules []struct {
			ID     string
			Filter struct{ Prefix string }
			Days   int `xml:"Expiration>Days"`
		} `xml:"Rule"`
	}
	if err := xml.Unmarshal([]byte(b.document), &d); err != nil {
		t.Fatal(err)
	}
	for _, r := range d.Rules {
		list = append(list, fmt.Sprint(r.ID, " ", r.Filter.Prefix, " ", r.Days))
	}
	return list, b.puts
}
