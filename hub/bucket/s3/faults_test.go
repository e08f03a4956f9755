package s3

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"timehub/e2e/s3proc"
	"timehub/hub"
	"timehub/hub/bucket"
)

// proxy stands between the adapter and a real server, and spoils some answers.
func proxy(t *testing.T, target string, spoil func(w http.ResponseWriter, r *http.Request, forward http.Handler)) string {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		host := r.In.Host
		r.SetURL(u)
		r.Out.Host = host // the signature holds it
	}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { spoil(w, r, forward) }))
	t.Cleanup(s.Close)
	return s.URL
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>spoiled</Message></Error>", code)
}

// TestTroubledStore: a store that fails now and then costs time, not blobs.
func TestTroubledStore(t *testing.T) {
	target := start(t, s3proc.GoFakeS3)
	var n atomic.Int64
	at := proxy(t, target, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		switch n.Add(1) % 4 {
		case 0:
			refuse(w, http.StatusServiceUnavailable, "SlowDown")
		case 2:
			refuse(w, http.StatusInternalServerError, "InternalError")
		default:
			forward.ServeHTTP(w, r)
		}
	})
	b := create(t, open(t, Options{Endpoint: at, MaxPause: 10 * time.Millisecond}))
	for i := range 10 {
		name, content := fmt.Sprintf("x/%d", i), strings.Repeat("content", i)
		if _, err := b.Put(t.Context(), name, strings.NewReader(content), -1, bucket.PutOptions{IfAbsent: true}); err != nil {
			t.Fatal(err)
		}
		body, _, err := b.Get(t.Context(), name, 0, -1, "")
		if err != nil {
			t.Fatal(err)
		}
		have, err := io.ReadAll(body)
		if err != nil || string(have) != content {
			t.Errorf("%q, %v", have, err)
		}
	}
}

// TestBrokenBody: a read that breaks off goes on where it was, and never with another blob.
func TestBrokenBody(t *testing.T) {
	target := start(t, s3proc.GoFakeS3)
	var cut atomic.Int64
	at := proxy(t, target, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		if limit := cut.Load(); r.Method == http.MethodGet && limit > 0 && !strings.Contains(r.URL.RawQuery, "list") {
			w = &cutter{ResponseWriter: w, left: int(limit)}
		}
		forward.ServeHTTP(w, r)
	})
	b := create(t, open(t, Options{Endpoint: at}))
	content := make([]byte, 1<<20)
	_, _ = io.ReadFull(&pattern{n: 1 << 20}, content)
	if _, err := b.Put(t.Context(), "x", bytes.NewReader(content), int64(len(content)), bucket.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	cut.Store(200_000)
	body, _, err := b.Get(t.Context(), "x", 100, 900_000, "")
	if err != nil {
		t.Fatal(err)
	}
	have, err := io.ReadAll(body)
	if err != nil || !bytes.Equal(have, content[100:900_100]) {
		t.Errorf("%d bytes, %v", len(have), err)
	}
	_ = body.Close()
	body, _, err = b.Get(t.Context(), "x", 0, -1, "")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), "x", strings.NewReader("another"), 7, bucket.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(body); err == nil {
		t.Errorf("%d bytes of two blobs", len(rest))
	}
}

// cutter breaks the connection after some bytes.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if c.left <= len(p) {
		_, _ = c.ResponseWriter.Write(p[:c.left])
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

func (c *cutter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// TestSilence: a store that takes the request and says nothing more does not hold a call for ever.
func TestSilence(t *testing.T) {
	stop := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	}))
	defer s.Close()
	defer close(stop)
	b := open(t, Options{Endpoint: s.URL, SilenceTimeout: 50 * time.Millisecond, Attempts: 2})
	if _, err := b.Stat(t.Context(), "x"); !hub.Is(err, hub.Unavailable) {
		t.Errorf("have %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := open(t, Options{Endpoint: s.URL}).Stat(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("have %v", err)
	}
}

// TestKinds: what the store says has its kind; what it does not say is Unavailable.
func TestKinds(t *testing.T) {
	var status atomic.Int64
	var code atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, int(status.Load()), code.Load().(string))
	}))
	defer s.Close()
	b := open(t, Options{Endpoint: s.URL, Attempts: 1})
	for _, c := range []struct {
		status int
		code   string
		kind   hub.Kind
	}{
		{404, "NoSuchKey", hub.NotFound}, {404, "NoSuchBucket", hub.Unavailable}, {403, "AccessDenied", hub.Unavailable}, {412, "PreconditionFailed", hub.Conflict},
		{416, "InvalidRange", hub.RangeInvalid}, {500, "InternalError", hub.Unavailable}, {503, "SlowDown", hub.Unavailable}, {507, "QuotaExceeded", hub.Full},
		{400, "EntityTooLarge", hub.TooLarge}, {418, "Teapot", hub.Unavailable}, {301, "PermanentRedirect", hub.Unavailable},
	} {
		status.Store(int64(c.status))
		code.Store(c.code)
		_, err := b.Put(t.Context(), "x", strings.NewReader(""), 0, bucket.PutOptions{})
		if !hub.Is(err, c.kind) {
			t.Errorf("%d %s: have %v", c.status, c.code, err)
		}
	}
}

// TestConditionsNotHonoured: a store that ignores a condition is found out.
func TestConditionsNotHonoured(t *testing.T) {
	target := start(t, s3proc.GoFakeS3)
	for _, header := range []string{"If-None-Match", "If-Match"} {
		at := proxy(t, target, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
			r.Header.Del(header)
			forward.ServeHTTP(w, r)
		})
		err := create(t, open(t, Options{Endpoint: at})).Probe(t.Context(), ".hub/probe/")
		if !hub.Is(err, hub.Unsupported) || !strings.Contains(err.Error(), header) {
			t.Errorf("without %s: %v", header, err)
		}
	}
}

// TestProbeOfATroubledStore: that a store fails, or loses an answer, does not mean that it ignores a condition; that access is denied does not pass.
func TestProbeOfATroubledStore(t *testing.T) {
	target := start(t, s3proc.GoFakeS3)
	for at := int64(1); at <= 6; at++ {
		for _, lost := range []bool{false, true} {
			var n atomic.Int64
			url := proxy(t, target, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
				if r.Method == http.MethodDelete || n.Add(1) != at+1 { // the first makes the bucket
					forward.ServeHTTP(w, r)
					return
				}
				if lost { // it is done, and sent again
					forward.ServeHTTP(httptest.NewRecorder(), r)
				} else {
					_, _ = io.Copy(io.Discard, r.Body)
				}
				refuse(w, http.StatusInternalServerError, "InternalError")
			})
			attempts := 1
			if lost {
				attempts = 2
			}
			err := create(t, open(t, Options{Endpoint: url, Bucket: strings.ToLower(fmt.Sprintf("probe-%d-%v", at, lost)), Attempts: attempts})).Probe(t.Context(), ".hub/probe/")
			if hub.Is(err, hub.Unsupported) || Denied(err) || err == nil && !lost {
				t.Errorf("request %d fails, lost %v: %v", at, lost, err)
			}
		}
	}
	denies := proxy(t, target, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		refuse(w, http.StatusForbidden, "AccessDenied")
	})
	if err := open(t, Options{Endpoint: denies}).Probe(t.Context(), ".hub/probe/"); !Denied(err) {
		t.Errorf("access is denied: %v", err)
	}
}

// TestRaces: a condition that the store could not decide is asked again.
func TestRaces(t *testing.T) {
	target := start(t, s3proc.GoFakeS3)
	var n atomic.Int64
	at := proxy(t, target, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		if r.Method == http.MethodPut && r.Header.Get("If-None-Match") != "" && n.Add(1) < 4 {
			_, _ = io.Copy(io.Discard, r.Body)
			refuse(w, http.StatusConflict, "ConditionalRequestConflict")
			return
		}
		forward.ServeHTTP(w, r)
	})
	b := create(t, open(t, Options{Endpoint: at}))
	if _, err := b.Put(t.Context(), "x", strings.NewReader("y"), 1, bucket.PutOptions{IfAbsent: true}); err != nil {
		t.Error(err)
	}
	if _, err := b.Put(t.Context(), "x", strings.NewReader("z"), 1, bucket.PutOptions{IfAbsent: true}); !hub.Is(err, hub.Conflict) {
		t.Errorf("have %v", err)
	}
}

// rules is the document of lifecycle rules as S3 has it, as far as the test looks.
type rules struct {
	XMLName xml.Name `xml:"LifecycleConfiguration"`
	Rules   []struct {
		ID     string
		Status string
		Filter struct{ Prefix string }
		Days   int `xml:"Expiration>Days"`
	} `xml:"Rule"`
}

// TestRules: no server that can be had here knows lifecycle rules, so a recorder stands in for S3 and shows what it is told.
func TestRules(t *testing.T) {
	const foreign = `<Rule><ID>theirs</ID><Status>Enabled</Status><Filter><Prefix>logs/</Prefix></Filter><Expiration><Days>7</Days></Expiration></Rule>`
	var mu sync.Mutex
	document := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch body, _ := io.ReadAll(r.Body); {
		case !r.URL.Query().Has("lifecycle"):
			refuse(w, http.StatusNotImplemented, "NotImplemented")
		case r.Method == http.MethodPut:
			document = string(body)
		case r.Method == http.MethodDelete:
			document = ""
			w.WriteHeader(http.StatusNoContent)
		case document == "":
			refuse(w, http.StatusNotFound, "NoSuchLifecycleConfiguration")
		default:
			_, _ = io.WriteString(w, document)
		}
	}))
	defer s.Close()
	b := open(t, Options{Endpoint: s.URL})
	now := func() (list []string) {
		mu.Lock()
		defer mu.Unlock()
		var r rules
		if document != "" {
			if err := xml.Unmarshal([]byte(document), &r); err != nil {
				t.Fatalf("%v in %s", err, document)
			}
		}
		for _, x := range r.Rules {
			list = append(list, fmt.Sprint(x.ID, " ", x.Status, " ", x.Filter.Prefix, " ", x.Days))
		}
		return list
	}
	set := func(r ...bucket.Rule) {
		t.Helper()
		if err := b.SetRules(t.Context(), "hub-", r); err != nil {
			t.Fatal(err)
		}
	}
	is := func(want ...string) {
		t.Helper()
		if have := now(); !slices.Equal(have, want) {
			t.Errorf("have %q, want %q", have, want)
		}
	}
	set(bucket.Rule{ID: "hub-a", Prefix: "a/2", Days: 10}, bucket.Rule{ID: "hub-b", Prefix: "b/2", Days: 3})
	is("hub-a Enabled a/2 10", "hub-b Enabled b/2 3")
	document = "<LifecycleConfiguration>" + foreign + strings.TrimPrefix(document[strings.Index(document, ">")+1:], "")
	set(bucket.Rule{ID: "hub-b", Prefix: "b/2", Days: 4})
	is("theirs Enabled logs/ 7", "hub-b Enabled b/2 4")
	set()
	is("theirs Enabled logs/ 7")
	document = ""
	set(bucket.Rule{ID: "hub-c", Prefix: "c/2", Days: 1})
	set()
	is()
	if document != "" {
		t.Errorf("an empty document was put: %s", document)
	}
	var many []bucket.Rule
	for i := range 1000 {
		many = append(many, bucket.Rule{ID: fmt.Sprint("hub-", i), Prefix: fmt.Sprint(i), Days: 1})
	}
	set(many...)
	if n := len(now()); n != 1000 {
		t.Errorf("%d rules", n)
	}
	document = "<LifecycleConfiguration>" + foreign + "</LifecycleConfiguration>"
	if err := b.SetRules(t.Context(), "hub-", many); !hub.Is(err, hub.Invalid) {
		t.Errorf("more rules than a bucket has: %v", err)
	}
	is("theirs Enabled logs/ 7")
	document = ""
	if err := b.SetRules(t.Context(), "hub-", []bucket.Rule{{ID: "x", Prefix: "y", Days: 1}}); !hub.Is(err, hub.Invalid) {
		t.Errorf("a foreign rule: %v", err)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{}, {Bucket: "b", MaxPart: 1 << 20}} {
		if _, err := New(t.Context(), o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	for in, want := range map[string]string{"": "", "s3-external-1.amazonaws.com": "https://s3-external-1.amazonaws.com", "http://127.0.0.1:9": "http://127.0.0.1:9"} {
		if have := (&Options{Endpoint: in}).endpoint(); have != want {
			t.Errorf("%s: %s", in, have)
		}
	}
}
