package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"timehub/hub"
)

// Upload is one item to be stored.
type Upload struct {
	ContentType string
	Body        io.Reader
	Size        int64 // bytes of Body; -1: not known
}

// Insert stores an item and returns its key. It is never repeated.
func (c *Client) Insert(ctx context.Context, channel string, u Upload) (hub.Key, error) {
	return c.insert(ctx, channelPath(channel), u, false)
}

// InsertAt stores an item of a historical channel under a key of the caller's choice; one that is there is replaced. With an empty hash the hub draws
// one, and the call is not repeated. It is repeated otherwise, if Body is an io.Seeker.
func (c *Client) InsertAt(ctx context.Context, channel string, key hub.Key, u Upload) (hub.Key, error) {
	_, seekable := u.Body.(io.Seeker)
	return c.insert(ctx, channelPath(channel)+"/"+keyPath(key), u, seekable && key.Hash() != "")
}

func (c *Client) insert(ctx context.Context, path string, u Upload, again bool) (hub.Key, error) {
	r := request{method: http.MethodPost, path: path, again: again, header: http.Header{}}
	if u.ContentType != "" {
		r.header.Set("Content-Type", u.ContentType)
	}
	var rewound error
	r.body = func() (io.Reader, int64) {
		if s, ok := u.Body.(io.Seeker); ok && again {
			_, rewound = s.Seek(0, io.SeekStart)
		}
		return io.NopCloser(u.Body), u.Size
	}
	header, err := c.document(ctx, r, nil)
	if err == nil {
		err = rewound
	}
	if err != nil {
		return hub.Key{}, err
	}
	return KeyOf(header.Get("Location"))
}

// DeleteAt removes an item of a historical channel; one that does not exist is no error.
func (c *Client) DeleteAt(ctx context.Context, channel string, key hub.Key) error {
	_, err := c.document(ctx, request{method: http.MethodDelete, path: channelPath(channel) + "/" + keyPath(key), again: true}, nil)
	return err
}

// Get reads an item; the caller closes its Body, which streams. NotFound if there is none.
func (c *Client) Get(ctx context.Context, channel string, key hub.Key) (*hub.Item, error) {
	return c.GetURL(ctx, channelPath(channel)+"/"+keyPath(key))
}

// GetItem is Get with the headers of the answer.
func (c *Client) GetItem(ctx context.Context, channel string, key hub.Key) (*hub.Item, http.Header, error) {
	resp, err := c.do(ctx, request{method: http.MethodGet, path: channelPath(channel) + "/" + keyPath(key), again: true})
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, nil, fmt.Errorf("the answer has status %d", resp.StatusCode)
	}
	it, err := item(resp)
	return it, resp.Header, err
}

// maxHops is how many redirects GetURL follows.
const maxHops = 5

// GetURL reads an item by its path or URL; it follows redirects, as those of latest.
func (c *Client) GetURL(ctx context.Context, pathOrURL string) (*hub.Item, error) {
	for range maxHops {
		resp, err := c.do(ctx, request{method: http.MethodGet, path: pathOrURL, again: true})
		if err != nil {
			return nil, err
		}
		if resp.StatusCode < 300 {
			return item(resp)
		}
		resp.Body.Close()
		if pathOrURL = resp.Header.Get("Location"); pathOrURL == "" {
			return nil, fmt.Errorf("the answer has status %d and no Location", resp.StatusCode)
		}
	}
	return nil, hub.E(hub.Invalid, "%s redirects too often", pathOrURL)
}

func item(resp *http.Response) (*hub.Item, error) {
	it := &hub.Item{ContentType: resp.Header.Get("Content-Type"), Size: resp.ContentLength, Body: resp.Body, Large: resp.Header.Get("X-LargeItem") == "true"}
	if n, err := strconv.ParseInt(resp.Header.Get("X-Item-Length"), 10, 64); err == nil {
		it.Size = n
	}
	it.Key, _ = KeyOf(resp.Request.URL.EscapedPath()) // other documents have none
	return it, nil
}

// keyPath is a key as it stands in a URL.
func keyPath(k hub.Key) string {
	b := hub.AppendTimePath(nil, k.Millis())
	if k.Hash() == "" {
		return string(b)
	}
	return string(b) + "/" + url.PathEscape(k.Hash())
}

// KeyOf reads the key out of an item's URL or path: its last eight segments.
func KeyOf(address string) (hub.Key, error) {
	path, _, _ := strings.Cut(address, "?")
	segments := strings.Split(strings.TrimSuffix(path, "/"), "/")
	if len(segments) < 8 {
		return hub.Key{}, hub.E(hub.Invalid, "%q is not the address of an item", address)
	}
	p, err := hub.ParsePath(strings.Join(segments[len(segments)-8:], "/"))
	if err != nil || p.Unit != hub.ItemUnit || p.Verb != hub.NoVerb {
		return hub.Key{}, hub.E(hub.Invalid, "%q is not the address of an item", address)
	}
	return p.Key(), nil
}
