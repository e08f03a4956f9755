package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// finish reads everything from everywhere.
func (r *Run) finish() {
	r.t.Helper()
	c := r.client("final", time.Minute)
	for node := range r.s.Hubs {
		for _, channel := range r.names() {
			r.insist(fmt.Sprintf("node %d shows the last item of %s as stable", node, channel), func() error { return c.stable(r.t.Context(), node, channel, r.marker[channel]) })
			r.insist("a final list", func() error { return r.list(c, node, channel) })
			r.insist("a final walk", func() error { return r.walk(c, node, channel, "next") })
			r.insist("a final walk back", func() error { return r.walk(c, node, channel, "previous") })
		}
	}
}

// stable reports whether a stable answer reaches to a key.
func (c *client) stable(ctx context.Context, node int, channel, key string) error {
	op := Op{Node: node, Path: "/channel/" + channel + "/latest"}
	a, err := c.ask(ctx, &op, "GET", nil)
	if err == nil && keyOf(a.header.Get("Location")) < key {
		err = fmt.Errorf("%d %s %s, not yet %s", op.Status, a.header.Get("Location"), op.Error, key)
	}
	return err
}

// list reads a channel minute by minute, with all bodies.
func (r *Run) list(c *client, node int, channel string) error {
	op := Op{Proc: c.proc, Kind: Final, Channel: channel, Node: node, Begin: r.rec.Now(), Result: OK, Path: "/channel/" + channel + "/{minute}?bulk=true"}
	first, err := keyTime(r.start[channel])
	if err != nil {
		return err
	}
	for minute := first.Truncate(time.Minute); minute.Before(time.Now().UTC().Add(time.Minute)); minute = minute.Add(time.Minute) {
		one := Op{Node: node, Path: "/channel/" + channel + minute.Format("/2006/01/02/15/04") + "?bulk=true"}
		a, err := c.ask(r.t.Context(), &one, "GET", nil)
		if err != nil {
			return err
		}
		if one.Result != OK {
			return fmt.Errorf("%s: %d %s", one.Path, one.Status, one.Error)
		}
		items, err := a.parts()
		if err != nil {
			return err
		}
		op.Items = append(op.Items, items...)
	}
	op.End = r.rec.Now()
	r.rec.Add(op)
	if node == 0 {
		r.final[channel] = op.Items
	}
	return nil
}

// walk reads a channel page by page, from its first item on or from its last one back.
func (r *Run) walk(c *client, node int, channel, way string) error {
	const page = 700
	op := Op{Proc: c.proc, Kind: Walk, Channel: channel, Node: node, Begin: r.rec.Now(), Result: OK, Path: "/channel/" + channel + "/{key}/" + way}
	path := fmt.Sprintf("/channel/%s/earliest/%d", channel, page)
	if way == "previous" {
		path = fmt.Sprintf("/channel/%s/latest/%d", channel, page)
	}
	for {
		one := Op{Node: node, Path: path}
		a, err := c.ask(r.t.Context(), &one, "GET", nil)
		if err != nil {
			return err
		}
		items, err := a.keys()
		if one.Result != OK || err != nil {
			return errors.Join(err, fmt.Errorf("%s: %d %s", one.Path, one.Status, one.Error))
		}
		if len(items) == 0 {
			break
		}
		from := items[len(items)-1].Key
		if way == "previous" {
			from = items[0].Key
			op.Items = append(items, op.Items...)
		} else {
			op.Items = append(op.Items, items...)
		}
		path = strings.Join([]string{"/channel", channel, from, way, fmt.Sprint(page)}, "/")
	}
	op.End = r.rec.Now()
	r.rec.Add(op)
	return nil
}
