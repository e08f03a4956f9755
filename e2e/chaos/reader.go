package chaos

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// reader asks all kinds of questions, of all nodes.
type reader struct {
	*client
	channels []string
	pool     *pool
	pace     time.Duration
	carries  bool // it takes the horizon from node to node
	horizon  string
}

func (r *reader) run(ctx context.Context) {
	for ctx.Err() == nil {
		w, ok := r.pool.pick(r.rng)
		if !ok {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		op := Op{Node: r.rng.IntN(len(r.hubs)), Channel: w.channel, Stable: r.rng.IntN(2) == 0}
		switch n := 1 + r.rng.IntN(60); r.rng.IntN(8) {
		case 0, 1:
			r.get(ctx, op, w.key)
		case 2:
			r.period(ctx, op, w.key, 6) // a second
		case 3:
			r.period(ctx, op, w.key, 5) // a minute
		case 4:
			r.direction(ctx, op, w.key, "next", n)
		case 5:
			r.direction(ctx, op, w.key, "previous", n)
		case 6:
			r.edge(ctx, op, "latest", n)
		default:
			r.edge(ctx, op, "earliest", n)
		}
		pause(ctx, r.pace)
	}
}

func (r *reader) get(ctx context.Context, op Op, key string) {
	op.Kind, op.Stable, op.Path = Get, false, "/channel/"+op.Channel+"/"+key
	op.Items = []Item{{Key: key}}
	a, err := r.ask(ctx, &op, "GET", nil)
	if err == nil && op.Result == OK {
		op.Items[0] = seen(key, a.body)
	}
	r.note(ctx, op)
}

// note writes an operation down, unless the end of the run broke it off.
func (r *reader) note(ctx context.Context, op Op) {
	if ctx.Err() == nil || op.Result == OK {
		r.rec.Add(op)
	}
}

// list asks for a list; lo and hi are the range that it is about.
func (r *reader) list(ctx context.Context, op Op, lo, hi string, headers ...string) Op {
	op.Kind = List
	if op.Stable && r.carries {
		op.Seen = r.horizon
	}
	bulk := r.rng.IntN(3) == 0
	sep := "?"
	if strings.Contains(op.Path, "?") {
		sep = "&"
	}
	if !op.Stable {
		op.Path, sep = op.Path+sep+"stable=false", "&"
	}
	if bulk {
		op.Path += sep + "bulk=true"
	}
	a, err := r.ask(ctx, &op, "GET", nil, headers...)
	if err == nil && op.Result == OK {
		if bulk {
			op.Items, err = a.parts()
		} else {
			op.Items, err = a.keys()
		}
		if err != nil { // a bulk answer that was cut ends without its closing delimiter
			op.Result, op.Error, op.Items = Unknown, err.Error(), nil
		}
	}
	if op.Result == OK {
		op.Lo, op.Hi = lo, hi
		if op.Stable {
			op.Hi = min(hi, after(op.Horizon))
			if op.Horizon == "" {
				op.Hi = ""
			}
			r.horizon = max(r.horizon, op.Horizon)
		}
	}
	return op
}

// period asks for the second (6 fields) or minute (5) of a key.
func (r *reader) period(ctx context.Context, op Op, key string, fields int) {
	path := strings.Join(strings.SplitN(key, "/", 8)[:fields], "/")
	op.Path = "/channel/" + op.Channel + "/" + path
	r.note(ctx, r.list(ctx, op, path+"/", path+"0")) // "0" comes after "/"
}

// direction asks for what comes after a key, or before it.
func (r *reader) direction(ctx context.Context, op Op, key, way string, n int) {
	op.Path = fmt.Sprintf("/channel/%s/%s/%s/%d", op.Channel, key, way, n)
	lo, hi := after(key), beyond
	if way == "previous" {
		lo, hi = "", key
	}
	op = r.list(ctx, op, lo, hi)
	narrow(&op, n, way == "previous")
	r.note(ctx, op)
}

// edge asks for the first or the last items of the channel.
func (r *reader) edge(ctx context.Context, op Op, which string, n int) {
	op.Path = fmt.Sprintf("/channel/%s/%s/%d", op.Channel, which, n)
	op = r.list(ctx, op, "", beyond)
	narrow(&op, n, which == "latest")
	r.note(ctx, op)
}

// narrow: an answer with as many items as were asked for says nothing about what lies behind the last of them. Neither do the bodies of unstable items, however few: what has no
// quorum when it is its turn is left out, and no others are looked for.
func narrow(op *Op, n int, backwards bool) {
	left := !op.Stable && len(op.Items) > 0 && strings.HasSuffix(op.Path, "bulk=true")
	if op.Hi == "" || len(op.Items) < n && !left {
		return
	}
	if backwards {
		op.Lo = op.Items[0].Key
	} else {
		op.Hi = min(op.Hi, after(op.Items[len(op.Items)-1].Key))
	}
}
