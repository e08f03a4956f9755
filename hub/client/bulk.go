package client

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"iter"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"

	"timehub/hub"
)

// Part is one item of a bulk insert.
type Part struct {
	ContentType string // "": text/plain, which is what the hub takes it for
	Body        []byte
}

// InsertBulk stores parts in one request, all or none, and returns their keys in the order of the parts. The parts are sent as they come. It is never
// repeated. Parts without a byte are dropped by the hub.
func (c *Client) InsertBulk(ctx context.Context, channel string, parts iter.Seq[Part]) ([]hub.Key, error) {
	boundary := "hub" + rand.Text()
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pw.CloseWithError(writeParts(pw, boundary, parts))
	}()
	var d struct {
		Links struct {
			URIs []string `json:"uris"`
		} `json:"_links"`
	}
	_, err := c.document(ctx, request{
		method: http.MethodPost, path: channelPath(channel) + "/bulk",
		header: http.Header{"Content-Type": {"multipart/mixed; boundary=" + boundary}},
		body:   func() (io.Reader, int64) { return pr, -1 },
	}, &d)
	pr.Close() // the writer stops, if the hub answered before it had read everything
	<-done
	if err != nil {
		return nil, err
	}
	keys := make([]hub.Key, len(d.Links.URIs))
	for i, u := range d.Links.URIs {
		if keys[i], err = KeyOf(u); err != nil {
			return nil, fmt.Errorf("read the answer: %w", err)
		}
	}
	return keys, nil
}

func writeParts(w io.Writer, boundary string, parts iter.Seq[Part]) error {
	var head strings.Builder
	for p := range parts {
		head.Reset()
		head.WriteString("--" + boundary + "\r\n")
		if p.ContentType != "" {
			head.WriteString("Content-Type: " + strings.NewReplacer("\r", " ", "\n", " ").Replace(p.ContentType) + "\r\n")
		}
		head.WriteString("\r\n")
		if _, err := io.WriteString(w, head.String()); err != nil {
			return err
		}
		if _, err := w.Write(p.Body); err != nil {
			return err
		}
		if _, err := io.WriteString(w, "\r\n"); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, "--"+boundary+"--\r\n")
	return err
}

// Items reads the items of a query with their bodies, in one request: path is what follows the channel, such as 2021/03/04/05, latest/100 or
// {key}/next/100. A Body is good until the next step, and need not be closed. An answer that ends too early is an error. The iteration ends with the
// first error; breaking off is fine.
func (c *Client) Items(ctx context.Context, channel, path string, q Query) iter.Seq2[*hub.Item, error] {
	return func(yield func(*hub.Item, error) bool) {
		v := q.values()
		v.Set("bulk", "true")
		resp, err := c.do(ctx, request{
			method: http.MethodGet, path: channelPath(channel) + "/" + path, query: v, again: true, header: http.Header{"Accept": {"multipart/mixed"}},
		})
		if err != nil {
			yield(nil, err)
			return
		}
		defer resp.Body.Close()
		kind, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		if err != nil || !strings.HasPrefix(kind, "multipart/") || params["boundary"] == "" {
			yield(nil, fmt.Errorf("the answer is %q and not multipart", resp.Header.Get("Content-Type")))
			return
		}
		last := &tail{r: resp.Body, keep: len(params["boundary"]) + 8}
		reader := multipart.NewReader(last, params["boundary"])
		for {
			part, err := reader.NextRawPart()
			if err == io.EOF { // also where the answer was cut within the head of a part
				if !last.endsWith("--" + params["boundary"] + "--") {
					yield(nil, fmt.Errorf("read the answer: %w: it has no end", io.ErrUnexpectedEOF))
				}
				return
			}
			var it *hub.Item
			if err == nil {
				it, err = partItem(part)
			}
			if err != nil {
				yield(nil, fmt.Errorf("read the answer: %w", err))
				return
			}
			if !yield(it, nil) {
				return
			}
		}
	}
}

// tail remembers the last bytes that were read.
type tail struct {
	r    io.Reader
	keep int
	last []byte
}

func (t *tail) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.last = append(t.last, p[max(0, n-t.keep):n]...)
	if over := len(t.last) - t.keep; over > 0 {
		t.last = append(t.last[:0], t.last[over:]...)
	}
	return n, err
}

// endsWith reads what is left and reports whether it was the end that it should be.
func (t *tail) endsWith(end string) bool {
	if _, err := io.Copy(io.Discard, t); err != nil {
		return false
	}
	return strings.HasSuffix(strings.TrimRight(string(t.last), "\r\n"), end)
}

func partItem(p *multipart.Part) (*hub.Item, error) {
	key, err := KeyOf(p.Header.Get("Content-Key"))
	if err != nil {
		return nil, err
	}
	return &hub.Item{Key: key, ContentType: p.Header.Get("Content-Type"), Size: -1, Body: io.NopCloser(p)}, nil
}

// Zip reads the same items as one zip archive; the caller closes it.
func (c *Client) Zip(ctx context.Context, channel, path string, q Query) (io.ReadCloser, error) {
	v := q.values()
	v.Set("bulk", "true")
	resp, err := c.do(ctx, request{
		method: http.MethodGet, path: channelPath(channel) + "/" + path, query: v, again: true, header: http.Header{"Accept": {"application/zip"}},
	})
	if err != nil {
		return nil, err
	}
	if t := resp.Header.Get("Content-Type"); t != "application/zip" {
		resp.Body.Close()
		return nil, fmt.Errorf("the answer is %q and not a zip", t)
	}
	return resp.Body, nil
}
