package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"time"

	"timehub/hub"
	"timehub/hub/client"
)

const (
	followWait    = 30 * time.Second       // how long a request for what comes next is held
	followGrace   = 30 * time.Second       // and how much longer its answer may take
	followPoll    = 500 * time.Millisecond // between requests to a hub that holds none
	followPage    = 1000
	followPause   = 100 * time.Millisecond // after a failure; it doubles
	followSlowest = 5 * time.Second
	followTries   = 8 // in a row, without live
)

// followed is an item that a follower has come to.
type followed struct {
	key         hub.Key
	uri         string
	contentType string // with bodies only, as is body
	body        []byte
}

// follower reads a channel in the order of its keys: the hub answers what is above a key, and holds the request while there is nothing. All it has to
// remember is that key, so it goes on after any interruption, of the network or of the hub, with nothing missed and nothing twice. An item is read
// whole before it is handed on.
type follower struct {
	client  *client.Client
	channel string
	query   client.Query // stable: what is below its answers never changes
	at      hub.Key      // the last key that was handed on; exclusive
	live    bool         // go on after until
	until   hub.Key      // otherwise
	left    int64        // items to hand on; negative: no limit
	bodies  bool
	notice  func(text string) // told of an interruption, and of its end

	failures int // in a row
}

// run hands on what comes until it is done, take fails, or ctx ends.
func (f *follower) run(ctx context.Context, take func(followed) error) error {
	for f.left != 0 && (f.live || f.at.Less(f.until)) {
		began := time.Now()
		page, err := f.page(ctx)
		if err == nil && len(page.Keys) > 0 {
			var taken error
			if taken, err = f.hand(ctx, page, take); taken != nil {
				return taken
			}
		}
		if err != nil {
			if err := f.recover(ctx, err); err != nil {
				return err
			}
			continue
		}
		if f.failures > 0 {
			f.notice("the hub answers again")
		}
		f.failures = 0
		if len(page.Keys) > 0 {
			continue
		}
		if !f.live && (page.Horizon.IsZero() || !page.Horizon.Less(f.until)) {
			return nil // what was there is gone
		}
		if pause := followPoll - time.Since(began); pause > 0 {
			if err := sleep(ctx, pause); err != nil {
				return err
			}
		}
	}
	return nil
}

// page asks for what comes next.
func (f *follower) page(ctx context.Context) (client.Page, error) {
	q, n := f.query, followPage
	q.Wait = followWait
	if !f.live {
		q.Wait = time.Second
	}
	if f.left > 0 {
		n = int(min(f.left, followPage))
	}
	ctx, cancel := context.WithTimeout(ctx, q.Wait+followGrace)
	defer cancel()
	return f.client.After(ctx, f.channel, f.at, n, q)
}

// hand hands the items of a page on. What take says is taken; err is what the hub did.
func (f *follower) hand(ctx context.Context, page client.Page, take func(followed) error) (taken, err error) {
	one := func(it followed) error {
		if err := take(it); err != nil {
			return err
		}
		f.at = it.key
		if f.left > 0 {
			f.left--
		}
		return nil
	}
	if !f.bodies {
		for i, k := range page.Keys {
			if !f.live && f.until.Less(k) {
				f.at = f.until
				return nil, nil
			}
			if err := one(followed{key: k, uri: page.URIs[i]}); err != nil {
				return err, nil
			}
		}
		return nil, nil
	}
	last := page.Keys[len(page.Keys)-1]
	for item, err := range f.client.Items(ctx, f.channel, keyPath(f.at)+"/next/"+strconv.Itoa(len(page.Keys)), f.query) {
		if err != nil {
			return nil, err
		}
		if !f.live && f.until.Less(item.Key) {
			f.at = f.until
			return nil, nil
		}
		body, err := io.ReadAll(item.Body)
		if err != nil {
			return nil, fmt.Errorf("read item %s: %w", item.Key, err)
		}
		if err := one(followed{item.Key, itemURL(f.client, f.channel, item.Key), item.ContentType, body}); err != nil {
			return err, nil
		}
	}
	if f.at.Less(last) { // what was listed has gone since
		f.at = last
	}
	return nil, nil
}

// recover waits after a failure, or says that there is no use in it.
func (f *follower) recover(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var e *hub.Error
	if errors.As(err, &e) && exitCode(ctx, err) != exitUnavailable {
		return err
	}
	if !f.live && f.failures >= followTries {
		return err
	}
	if f.failures == 0 {
		f.notice(strings.TrimSuffix(err.Error(), "\n") + "; trying again")
	}
	pause := min(followPause<<min(f.failures, 10), followSlowest)
	if e != nil && e.RetryAfter > 0 {
		pause = min(max(pause, e.RetryAfter), followWait)
	}
	f.failures++
	return sleep(ctx, time.Duration(float64(pause)*(0.5+rand.Float64()/2)))
}

// sleep waits, or ends with ctx.
func sleep(ctx context.Context, d time.Duration) error {
	if !hub.Sleep(ctx, d) {
		return ctx.Err()
	}
	return nil
}

// keyPath is a key as it stands in a URL; one without a hash is the begin of its millisecond.
func keyPath(k hub.Key) string {
	hash := k.Hash()
	if hash == "" {
		hash = "0" // sorts before every hash that is minted
	}
	return string(hub.AppendTimePath(nil, k.Millis())) + "/" + url.PathEscape(hash)
}

const fromText = `now, earliest, previous (the newest item), "previous N" (the newest N), the URL or key of an item (what follows it), a time path such as
2026/11/20/13 or an instant in ISO 8601 (that moment included)`

// position finds the key after which somebody wants to begin.
func position(ctx context.Context, c *client.Client, channel, from string, q client.Query) (hub.Key, error) {
	origin := hub.First(time.UnixMilli(0))
	q.Unstable, q.Order = true, hub.Ascending
	text := strings.TrimSpace(from)
	word, number := text, ""
	if i := strings.IndexAny(text, " /:"); i >= 0 {
		word, number = text[:i], strings.TrimSpace(text[i+1:])
	}
	switch strings.ToLower(word) {
	case "earliest":
		return origin, nil
	case "now":
		p, err := c.Latest(ctx, channel, 1, q)
		if err != nil || len(p.Keys) == 0 {
			return origin, err
		}
		return p.Keys[0], nil
	case "previous":
		n := 1
		if number != "" {
			var err error
			if n, err = strconv.Atoi(number); err != nil || n < 0 {
				return origin, usage("%q is no place to begin at: want \"previous N\" with a count", from)
			}
		}
		if n == 0 {
			return position(ctx, c, channel, "now", q)
		}
		p, err := c.Latest(ctx, channel, n, q)
		if err != nil || len(p.Keys) == 0 {
			return origin, err
		}
		if p, err = c.Before(ctx, channel, p.Keys[0], 1, q); err != nil || len(p.Keys) == 0 {
			return origin, err
		}
		return p.Keys[0], nil
	}
	if t, err := parseInstant(text); err == nil {
		return hub.First(t), nil
	}
	if isURL(text) {
		_, rest, _ := strings.Cut(text, "/channel/")
		_, text, _ = strings.Cut(rest, "/")
		text, _, _ = strings.Cut(text, "?")
	}
	p, err := hub.ParsePath(strings.Trim(text, "/"))
	if err != nil || p.Verb != hub.NoVerb {
		return origin, usage("%q is no place to begin at: want one of %s", from, fromText)
	}
	if p.Unit == hub.ItemUnit {
		return p.Key(), nil
	}
	return hub.First(p.Start), nil
}
