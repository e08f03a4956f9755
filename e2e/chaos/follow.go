package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

const (
	followQuiet = 6 * time.Second // a connection on which nothing comes is given up
	followFlush = 200             // items of one line of the history
)

// follower is a client that is told of every item, and goes on at another node where it was when a connection ends.
type follower struct {
	*client
	channel string
	how     func(f *follower, ctx context.Context) error // one connection
	at      int
	last    string                 // the last key
	seen    atomic.Pointer[string] // the same, for those who wait
	open    Op                     // what came and is not written down yet
	begun   bool
}

func (f *follower) run(ctx context.Context) {
	for ctx.Err() == nil {
		f.open = Op{Proc: f.proc, Kind: Follow, Channel: f.channel, Node: f.at, Begin: f.rec.Now(), Result: OK}
		if !f.begun {
			f.open.Lo, f.begun = after(f.last), true
		}
		err := f.how(f, ctx)
		if err != nil {
			f.open.Error = clip(err.Error())
		}
		f.flush()
		f.at = (f.at + 1) % len(f.hubs)
		pause(ctx, 100*time.Millisecond)
	}
}

// got takes in what came.
func (f *follower) got(items ...Item) {
	if len(items) == 0 {
		return
	}
	f.open.Items = append(f.open.Items, items...)
	f.last = items[len(items)-1].Key
	key := f.last
	f.seen.Store(&key)
	if len(f.open.Items) >= followFlush {
		f.flush()
	}
}

// flush writes down what came on this connection so far.
func (f *follower) flush() {
	f.open.End = f.rec.Now()
	f.rec.Add(f.open)
	f.open.Items, f.open.Lo, f.open.Begin = nil, "", f.open.End
}

// reached reports whether it was sent a key, or one above it.
func (f *follower) reached(key string) bool {
	last := f.seen.Load()
	return last != nil && *last >= key
}

// events is a connection of server-sent events; the items come with their bodies.
func events(f *follower, ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	quiet := time.AfterFunc(followQuiet, cancel)
	defer quiet.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.hubs[f.at]+"/channel/"+f.channel+"/"+f.last+"/events", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: f.http.Transport}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	key, data := "", []string(nil)
	for lines := bufio.NewReader(resp.Body); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		quiet.Reset(followQuiet)
		line = strings.TrimSuffix(line, "\n")
		switch name, value, _ := strings.Cut(line, ": "); {
		case line == "" && key != "":
			f.got(seen(key, []byte(strings.Join(data, "\n"))))
			key, data = "", nil
		case name == "id":
			key = keyOf(value)
		case name == "data":
			data = append(data, value)
		}
	}
}

// socket is a websocket; the items come by their addresses.
func socket(f *follower, ctx context.Context) error {
	dialer := websocket.Dialer{HandshakeTimeout: followQuiet, NetDialContext: (&net.Dialer{Timeout: followQuiet}).DialContext}
	ws, _, err := dialer.DialContext(ctx, "ws"+strings.TrimPrefix(f.hubs[f.at], "http")+"/channel/"+f.channel+"/"+f.last+"/ws", nil)
	if err != nil {
		return err
	}
	defer ws.Close()
	unhook := context.AfterFunc(ctx, func() { _ = ws.Close() })
	defer unhook()
	for {
		if err := ws.SetReadDeadline(time.Now().Add(followQuiet)); err != nil {
			return err
		}
		_, message, err := ws.ReadMessage()
		if err != nil {
			return err
		}
		f.got(Item{Key: keyOf(string(message))})
	}
}

// poll asks, and is held until there is something.
func poll(f *follower, ctx context.Context) error {
	for {
		op := Op{Node: f.at, Path: fmt.Sprintf("/channel/%s/%s/next/100?wait=3", f.channel, f.last)}
		a, err := f.ask(ctx, &op, http.MethodGet, nil)
		if err != nil {
			return err
		}
		if op.Result != OK {
			return fmt.Errorf("%d %s", op.Status, op.Error)
		}
		items, err := a.keys()
		if err != nil {
			return err
		}
		f.got(items...)
	}
}
