package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
)

// Channel is the document of a channel (spec 01 §3.7), with what programs look at most; Document is all of it.
type Channel struct {
	Name        string `json:"name"`
	Owner       string `json:"owner"`
	Description string `json:"description"`
	Storage     string `json:"storage"`
	MutableTime string `json:"mutableTime"` // "": an ordinary channel
	TTLDays     int64  `json:"ttlDays"`
	MaxItems    int64  `json:"maxItems"`
	KeepForever bool   `json:"keepForever"`

	Document json.RawMessage `json:"-"`
}

// UnmarshalJSON keeps the whole document.
func (c *Channel) UnmarshalJSON(text []byte) error {
	type plain Channel
	if err := json.Unmarshal(text, (*plain)(c)); err != nil {
		return err
	}
	c.Document = append(json.RawMessage(nil), text...)
	return nil
}

// Historical reports whether items can be inserted at instants of the past.
func (c *Channel) Historical() bool { return c.MutableTime != "" }

func channelPath(name string) string { return "/channel/" + url.PathEscape(name) }

// Channels lists the names of all channels, sorted.
func (c *Client) Channels(ctx context.Context) ([]string, error) {
	var d struct {
		Links struct{ Channels []struct{ Name string } } `json:"_links"`
	}
	if _, err := c.document(ctx, request{method: http.MethodGet, path: "/channel", again: true}, &d); err != nil {
		return nil, err
	}
	names := make([]string, len(d.Links.Channels))
	for i, ch := range d.Links.Channels {
		names[i] = ch.Name
	}
	return names, nil
}

// Channel reads a channel's document, past any cache; NotFound if there is none.
func (c *Client) Channel(ctx context.Context, name string) (Channel, error) {
	return c.channel(ctx, http.MethodGet, channelPath(name)+"?cached=false", nil)
}

// CreateChannel makes a channel of members (a map or a struct, with a name); Conflict if it exists. It is not repeated.
func (c *Client) CreateChannel(ctx context.Context, members any) (Channel, error) {
	return c.channel(ctx, http.MethodPost, "/channel", members)
}

// PutChannel makes a channel, or merges members into it. nil: all defaults.
func (c *Client) PutChannel(ctx context.Context, name string, members any) (Channel, error) {
	if members == nil {
		members = struct{}{}
	}
	return c.channel(ctx, http.MethodPut, channelPath(name), members)
}

// PatchChannel merges members into a channel that exists.
func (c *Client) PatchChannel(ctx context.Context, name string, members any) (Channel, error) {
	return c.channel(ctx, http.MethodPatch, channelPath(name), members)
}

// DeleteChannel removes a channel with all its items.
func (c *Client) DeleteChannel(ctx context.Context, name string) error {
	_, err := c.document(ctx, request{method: http.MethodDelete, path: channelPath(name), again: true}, nil)
	return err
}

func (c *Client) channel(ctx context.Context, method, path string, members any) (ch Channel, err error) {
	r := request{method: method, path: path, again: method != http.MethodPost}
	if members != nil {
		if r.body, err = jsonBody(members); err != nil {
			return ch, err
		}
		r.header = http.Header{"Content-Type": {"application/json"}}
	}
	if _, err = c.document(ctx, r, &ch); err != nil {
		return ch, err
	}
	if ch.Name == "" {
		return ch, fmt.Errorf("the answer to %s %s is no channel", method, path)
	}
	return ch, nil
}
