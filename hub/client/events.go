package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"time"

	"timehub/hub"
)

// maxEventLine is how much of a line of an event stream is looked at: an id is shorter.
const maxEventLine = 16 << 10

// Events follows a channel by its server-sent events (spec 03 §6), beginning after a key. It yields the key of each item, and the zero Key for each
// heartbeat. Payloads are passed over, however long: an event cannot carry every byte string unchanged, so whoever wants the bytes reads the item.
// The sequence ends with an error when the stream does, with io.ErrUnexpectedEOF if the hub just closed it; it is not opened again. A hub
// without events answers with NotFound or another error about the request, or with something else than an event stream: ErrNoEvents is in the chain.
func (c *Client) Events(ctx context.Context, channel string, after hub.Key) iter.Seq2[hub.Key, error] {
	return func(yield func(hub.Key, error) bool) {
		header := http.Header{"Accept": {"text/event-stream"}, "Cache-Control": {"no-cache"}}
		if !after.IsZero() {
			header.Set("Last-Event-Id", c.base+channelPath(channel)+"/"+keyPath(someHash(after)))
		}
		resp, err := c.once(ctx, request{method: http.MethodGet, path: channelPath(channel) + "/events", header: header})
		if err != nil {
			if k := hub.KindOf(err); k != hub.Unavailable && k != hub.Internal && ctx.Err() == nil {
				err = errors.Join(ErrNoEvents, err)
			}
			yield(hub.Key{}, err)
			return
		}
		defer resp.Body.Close()
		if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); resp.StatusCode != http.StatusOK || kind != "text/event-stream" {
			yield(hub.Key{}, fmt.Errorf("%w: the answer has status %d and type %q", ErrNoEvents, resp.StatusCode, resp.Header.Get("Content-Type")))
			return
		}
		if err := readEvents(resp.Body, func(k hub.Key) bool { return yield(k, nil) }); err != nil {
			yield(hub.Key{}, fmt.Errorf("follow the events: %w", err))
		}
	}
}

// ErrNoEvents says that a hub has no event stream for the channel.
var ErrNoEvents = errors.New("the hub has no event stream here")

// readEvents reads a stream until it ends, which is an error, or visit has enough.
func readEvents(from io.Reader, visit func(hub.Key) bool) error {
	r := bufio.NewReaderSize(from, maxEventLine)
	var key hub.Key
	comment := false
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) { // a payload: nothing else is so long
			line = nil
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = r.ReadSlice('\n')
			}
			if err == nil {
				continue
			}
		}
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		name, value, _ := bytes.Cut(line, []byte{':'})
		switch {
		case len(line) == 0:
			if (comment || !key.IsZero()) && !visit(key) {
				return nil
			}
			key, comment = hub.Key{}, false
		case len(name) == 0:
			comment = true
		case string(name) == "id":
			if key, err = KeyOf(string(bytes.TrimPrefix(value, []byte{' '}))); err != nil {
				return err
			}
		}
	}
}

// ItemsAfter is Items of the n nearest keys above a key.
func (c *Client) ItemsAfter(ctx context.Context, channel string, key hub.Key, n int, q Query) iter.Seq2[*hub.Item, error] {
	return c.Items(ctx, channel, fmt.Sprintf("%s/next/%d", keyPath(someHash(key)), n), q)
}

// Stable asks for the instant before which stable answers of a channel do not change any more.
func (c *Client) Stable(ctx context.Context, channel string) (time.Time, error) {
	var d struct{ Stable struct{ Millis int64 } }
	if _, err := c.document(ctx, request{method: http.MethodGet, path: channelPath(channel) + "/time", again: true}, &d); err != nil {
		return time.Time{}, err
	}
	if d.Stable.Millis <= 0 {
		return time.Time{}, errors.New("the answer names no stable instant")
	}
	return time.UnixMilli(d.Stable.Millis).UTC(), nil
}
