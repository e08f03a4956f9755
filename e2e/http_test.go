package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
)

// reply is an answer read to its end.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// call sends one request. An error means that there was no whole answer: what was asked may have happened or not.
func call(ctx context.Context, method, url string, body []byte, headers ...string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, b}, err
}

// must sends one request that has to be answered with the status.
func must(t *testing.T, status int, method, url string, body []byte, headers ...string) reply {
	t.Helper()
	r, err := call(t.Context(), method, url, body, headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	if r.status != status {
		t.Fatalf("%s %s: %d, want %d: %.500s", method, url, r.status, status, r.body)
	}
	return r
}

// putChannel creates or updates a channel.
func putChannel(t *testing.T, hub, name, config string) {
	t.Helper()
	must(t, 201, "PUT", hub+"/channel/"+name, []byte(config), "Content-Type", "application/json")
}

// uris is what a list answer lists.
func (r reply) uris() ([]string, error) {
	var v struct {
		Links struct {
			URIs []string `json:"uris"`
		} `json:"_links"`
	}
	if err := json.Unmarshal(r.body, &v); err != nil {
		return nil, fmt.Errorf("list answer: %w", err)
	}
	return v.Links.URIs, nil
}

// item is one item as a bulk answer carries it.
type item struct {
	key, contentType string
	body             []byte
}

// parts reads a multipart answer; keys are without host and channel.
func (r reply) parts() ([]item, error) {
	_, params, err := mime.ParseMediaType(r.header.Get("Content-Type"))
	if err != nil {
		return nil, fmt.Errorf("multipart answer: %w", err)
	}
	if string(r.body) == "--"+params["boundary"]+"--" {
		return nil, nil
	}
	var items []item
	for mr := multipart.NewReader(bytes.NewReader(r.body), params["boundary"]); ; {
		p, err := mr.NextRawPart()
		if err == io.EOF {
			return items, nil
		}
		if err != nil {
			return nil, fmt.Errorf("multipart answer: %w", err)
		}
		body, err := io.ReadAll(p)
		if err != nil {
			return nil, fmt.Errorf("multipart answer: %w", err)
		}
		items = append(items, item{keyOf(p.Header.Get("Content-Key")), p.Header.Get("Content-Type"), body})
	}
}

// keyOf cuts the key out of an item's address.
func keyOf(uri string) string {
	_, rest, _ := strings.Cut(uri, "/channel/")
	_, key, _ := strings.Cut(rest, "/")
	return key
}

// bulkBody makes a multipart body of items.
func bulkBody(contentType string, bodies [][]byte) (body []byte, header string) {
	const boundary = "e2e-boundary-7d1f"
	var b bytes.Buffer
	for _, item := range bodies {
		fmt.Fprintf(&b, "--%s\r\nContent-Type: %s\r\n\r\n", boundary, contentType)
		b.Write(item)
		b.WriteString("\r\n")
	}
	fmt.Fprintf(&b, "--%s--", boundary)
	return b.Bytes(), "multipart/mixed; boundary=" + boundary
}
