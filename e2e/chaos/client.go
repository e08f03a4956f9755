package chaos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"strings"
	"time"
)

// client asks hubs, one question at a time, and writes down what it was told.
type client struct {
	proc string
	rec  *Recorder
	hubs []string // URLs
	rng  *rand.Rand
	http *http.Client
}

func newClient(proc string, rec *Recorder, hubs []string, rng *rand.Rand, timeout time.Duration) *client {
	return &client{proc, rec, hubs, rng, &http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{MaxIdleConnsPerHost: 2, DisableCompression: true, IdleConnTimeout: 30 * time.Second},
	}}
}

// answer is a whole one.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// ask sends a request for op, whose Node, Path, After and Seen say what; it fills in times, status and result: OK for 2xx and 3xx. A 404 is Fail; so
// is a request that was never sent, or refused.
func (c *client) ask(ctx context.Context, op *Op, method string, body []byte, headers ...string) (answer, error) {
	op.Proc = c.proc
	req, err := http.NewRequestWithContext(ctx, method, c.hubs[op.Node]+op.Path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	if op.After != "" {
		req.Header.Set("Hub-After", op.After)
	}
	if op.Seen != "" {
		req.Header.Set("Hub-Horizon", op.Seen)
	}
	op.Begin = c.rec.Now()
	a, err := c.do(req)
	op.End = c.rec.Now()
	op.Status, op.Horizon, op.Silent = a.status, a.header.Get("Hub-Horizon"), a.header.Get("Hub-Silent") != ""
	switch {
	case err != nil:
		op.Error, op.Result = err.Error(), Unknown
		if dial := (*net.OpError)(nil); errors.As(err, &dial) && dial.Op == "dial" {
			op.Result = Fail
		}
	case a.status < 400:
		op.Result = OK
	case a.status == 503:
		op.Result = Unknown
		op.Error = clip(string(a.body))
	default:
		op.Result = Fail
		op.Error = clip(string(a.body))
	}
	return a, err
}

func (c *client) do(req *http.Request) (answer, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, b}, err
}

func clip(s string) string { return s[:min(len(s), 300)] }

// pause waits, up to the end of the context.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// makeBody makes the body of an id. It depends on nothing else, so whoever sees one knows what it has to be.
func makeBody(id string, size int) []byte {
	h := fnv.New64a()
	h.Write([]byte(id))
	rng := rand.New(rand.NewPCG(h.Sum64(), uint64(size)))
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	b := append(make([]byte, 0, len(id)+1+size), id...)
	b = append(b, ' ')
	for n := uint64(0); size > 0; size-- {
		if n < 64 {
			n = rng.Uint64()
		}
		b = append(b, letters[n%64])
		n >>= 6
	}
	return b
}

// seen is an item of which the body was seen.
func seen(key string, body []byte) Item {
	sum := sha256.Sum256(body)
	id, _, _ := strings.Cut(string(body[:min(len(body), 64)]), " ")
	return Item{key, id, hex.EncodeToString(sum[:8])}
}

// keyOf cuts the key out of an item's address.
func keyOf(uri string) string {
	_, rest, _ := strings.Cut(uri, "/channel/")
	_, key, _ := strings.Cut(rest, "/")
	key, _, _ = strings.Cut(key, "?")
	return key
}

// keys is what a list answer lists.
func (a answer) keys() ([]Item, error) {
	var v struct {
		Links struct {
			URIs []string `json:"uris"`
		} `json:"_links"`
	}
	if err := json.Unmarshal(a.body, &v); err != nil {
		return nil, fmt.Errorf("list answer: %w", err)
	}
	items := make([]Item, len(v.Links.URIs))
	for i, u := range v.Links.URIs {
		items[i].Key = keyOf(u)
	}
	return items, nil
}

// parts reads a bulk answer.
func (a answer) parts() ([]Item, error) {
	_, params, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil {
		return nil, fmt.Errorf("bulk answer: %w", err)
	}
	if string(a.body) == "--"+params["boundary"]+"--" {
		return nil, nil
	}
	var items []Item
	for mr := multipart.NewReader(bytes.NewReader(a.body), params["boundary"]); ; {
		p, err := mr.NextRawPart()
		if err == io.EOF {
			return items, nil
		}
		if err != nil {
			return nil, fmt.Errorf("bulk answer: %w", err)
		}
		body, err := io.ReadAll(p)
		if err != nil {
			return nil, fmt.Errorf("bulk answer: %w", err)
		}
		items = append(items, seen(keyOf(p.Header.Get("Content-Key")), body))
	}
}

// bulkBody makes a multipart body.
func bulkBody(bodies [][]byte) (body []byte, contentType string) {
	const boundary = "chaos-boundary-91c5"
	var b bytes.Buffer
	for _, one := range bodies {
		b.WriteString("--" + boundary + "\r\nContent-Type: text/plain\r\n\r\n")
		b.Write(one)
		b.WriteString("\r\n")
	}
	b.WriteString("--" + boundary + "--")
	return b.Bytes(), "multipart/mixed; boundary=" + boundary
}
