package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"timehub/hub"
)

// Query restricts a query (spec 01 §4). The zero value is the hub's own default: stable answers, ascending, the immutable epoch.
type Query struct {
	Unstable bool
	Order    hub.Order
	Epoch    hub.Epoch
	Tier     hub.Tier

	// Wait lets After and Latest, while there is nothing, hold the request for so long, in whole seconds of at most 60. A hub that does not know how
	// answers at once.
	Wait time.Duration
}

func (q Query) values() url.Values {
	v := url.Values{}
	if q.Unstable {
		v.Set("stable", "false")
	}
	if q.Order == hub.Descending {
		v.Set("order", "descending")
	}
	if q.Epoch != hub.Immutable {
		v.Set("epoch", q.Epoch.String())
	}
	if q.Tier != hub.AllTiers {
		v.Set("location", q.Tier.String())
	}
	if s := int64(q.Wait / time.Second); s > 0 {
		v.Set("wait", strconv.FormatInt(min(s, 60), 10))
	}
	return v
}

// Page is the answer to a query.
type Page struct {
	Keys     []hub.Key
	URIs     []string
	Next     string  // address of the query that follows; "" if there is none yet
	Previous string  // of the one before
	Horizon  hub.Key // up to which the answer can never change; zero if the hub did not say
}

// Window lists the keys of a second, minute, hour or day.
func (c *Client) Window(ctx context.Context, channel string, w hub.Window, q Query) (Page, error) {
	return c.page(ctx, channelPath(channel)+"/"+w.String(), q.values())
}

// After lists up to n keys above key, the nearest ones; Before those below it. Both are ascending unless q says otherwise.
func (c *Client) After(ctx context.Context, channel string, key hub.Key, n int, q Query) (Page, error) {
	return c.page(ctx, channelPath(channel)+"/"+keyPath(someHash(key))+"/next/"+strconv.Itoa(n), q.values())
}

// Before lists up to n keys below key.
func (c *Client) Before(ctx context.Context, channel string, key hub.Key, n int, q Query) (Page, error) {
	return c.page(ctx, channelPath(channel)+"/"+keyPath(someHash(key))+"/previous/"+strconv.Itoa(n), q.values())
}

// someHash makes an address of an instant: "0" sorts before every hash that is minted.
func someHash(k hub.Key) hub.Key {
	if k.Hash() == "" {
		return hub.KeyAt(k.Millis(), "0")
	}
	return k
}

// Latest lists the newest n keys, Earliest the oldest. An empty channel gives an empty page.
func (c *Client) Latest(ctx context.Context, channel string, n int, q Query) (Page, error) {
	return c.ends(ctx, channel, "latest", n, q)
}

// Earliest lists the oldest n keys.
func (c *Client) Earliest(ctx context.Context, channel string, n int, q Query) (Page, error) {
	return c.ends(ctx, channel, "earliest", n, q)
}

// ends tells an empty channel, which the hub answers with 404, from one that does not exist.
func (c *Client) ends(ctx context.Context, channel, which string, n int, q Query) (Page, error) {
	p, err := c.page(ctx, channelPath(channel)+"/"+which+"/"+strconv.Itoa(n), q.values())
	if hub.Is(err, hub.NotFound) {
		switch _, missing := c.Channel(ctx, channel); {
		case missing == nil:
			return Page{}, nil
		case !hub.Is(missing, hub.NotFound): // nobody knows whether there is such a channel
			return Page{}, missing
		}
	}
	return p, err
}

// Page follows a link of an answer: Next or Previous of another page, or any address of a list.
func (c *Client) Page(ctx context.Context, address string) (Page, error) {
	return c.page(ctx, address, nil)
}

func (c *Client) page(ctx context.Context, path string, v url.Values) (Page, error) {
	var d struct {
		Links struct {
			URIs           []string `json:"uris"`
			Next, Previous struct{ Href string }
		} `json:"_links"`
	}
	header, err := c.document(ctx, request{method: http.MethodGet, path: path, query: v, again: true, header: http.Header{"Accept": {"application/json"}}}, &d)
	if err != nil {
		return Page{}, err
	}
	p := Page{URIs: d.Links.URIs, Next: d.Links.Next.Href, Previous: d.Links.Previous.Href, Keys: make([]hub.Key, len(d.Links.URIs))}
	for i, u := range p.URIs {
		if p.Keys[i], err = KeyOf(u); err != nil {
			return Page{}, fmt.Errorf("read the answer: %w", err)
		}
	}
	if h := header.Get("Hub-Horizon"); h != "" {
		if p.Horizon, err = hub.ParseKey(h); err != nil {
			return Page{}, fmt.Errorf("read Hub-Horizon: %w", err)
		}
	}
	return p, nil
}

// List asks any query that answers with a list: path is what follows the channel, such as 2021/03/04/05, earliest/100 or {key}/next/100.
func (c *Client) List(ctx context.Context, channel, path string, q Query) (Page, error) {
	return c.page(ctx, channelPath(channel)+"/"+path, q.values())
}
