package rest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/channel"
	"timehub/hub"
)

// waiter says what was waited for, and does what the test wants meanwhile.
type waiter struct {
	mu    sync.Mutex // guards what follows
	asked []string
	then  func(ctx context.Context, after hub.Key) (hub.Key, error)
}

func (w *waiter) take(ctx context.Context, what string, after hub.Key) (hub.Key, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, what)
	return w.then(ctx, after)
}

func (w *waiter) Wait(ctx context.Context, ch string, after hub.Key) (hub.Key, error) {
	return w.take(ctx, "stable "+ch, after)
}

func (w *waiter) WaitAny(ctx context.Context, ch string, after hub.Key) (hub.Key, error) {
	return w.take(ctx, "any "+ch, after)
}

func (w *waiter) WaitTag(ctx context.Context, tag string, after hub.Key) (hub.Key, error) {
	return w.take(ctx, "tag "+tag, after)
}

func TestLongPoll(t *testing.T) { synctest.Test(t, longPoll) }

func longPoll(t *testing.T) {
	wait := &waiter{}
	leaving, leave := context.WithCancel(t.Context())
	w := newWorld(t, func(_ *channel.Options, o *Options) { o.Waiter, o.Stopping = wait, leaving })
	w.put("Orders", `{"tags": ["cafe"]}`)
	base := w.post("orders", "one")
	arrives := func(context.Context, hub.Key) (hub.Key, error) {
		return hub.ParseKey(w.post("orders", "more")[len("/channel/orders/"):])
	}
	never := func(ctx context.Context, _ hub.Key) (hub.Key, error) {
		<-ctx.Done()
		return hub.Key{}, ctx.Err()
	}

	// What is there is answered at once.
	wait.then = func(context.Context, hub.Key) (hub.Key, error) { return hub.Key{}, errors.New("nobody waits") }
	for _, target := range []string{"/channel/orders/latest?wait=60", "/channel/orders/latest/5?wait=9.5", "/channel/orders/earliest?wait=1", "/channel/orders/latest?wait=0", "/channel/orders/latest?wait="} {
		if r := w.get(target); r.code >= 400 {
			t.Errorf("%s: %d %s", target, r.code, r.body)
		}
	}
	w.want(w.get(base+"/previous?wait=5"), 404)
	w.want(w.get(base+"/next/0?wait=5"), 200)
	w.want(w.get(base+"/next?wait=0"), 404)

	// What is not is waited for.
	last := base
	for _, c := range []struct{ path, query, asked string }{
		{"/next", "?wait=5", "stable Orders"}, {"/next/3", "?wait=5", "stable Orders"}, {"/next/3", "?wait=5&stable=false", "any Orders"},
		{"/next/3", "?wait=60&bulk=true", "stable Orders"}, {"/next", "?wait=5&tag=cafe", "tag cafe"}, {"/next/3", "?wait=5&tag=cafe", "tag cafe"},
	} {
		wait.then, wait.asked = arrives, nil
		r := w.get(last + c.path + c.query)
		if r.code != 200 && r.code != 303 || len(wait.asked) != 1 || wait.asked[0] != c.asked {
			t.Errorf("%s%s: %d %s, waited for %v", c.path, c.query, r.code, r.body, wait.asked)
		}
		last = strings.TrimPrefix(w.get("/channel/orders/latest").location(), "http://hub.example")
	}
	w.put("empty", `{}`)
	wait.then = func(context.Context, hub.Key) (hub.Key, error) {
		return hub.ParseKey(w.post("empty", "first")[len("/channel/empty/"):])
	}
	w.want(w.get("/channel/empty/latest?wait=5"), 303)

	// A key that is not what is looked for is no answer, and is not looked at again and again.
	keys := 0
	wait.then = func(ctx context.Context, after hub.Key) (hub.Key, error) {
		if keys++; keys > 3 {
			return never(ctx, after)
		}
		return hub.KeyAt(after.Millis()+1, "x"), nil
	}
	w.want(w.get(last+"/next?wait=0.3"), 404)
	if keys != 4 {
		t.Errorf("%d looks", keys)
	}

	// In vain.
	wait.then = never
	began := time.Now()
	w.want(w.get(last+"/next?wait=0.05"), 404)
	w.want(w.get(last+"/next/7?wait=0.05"), 200, `"uris": []`)
	w.want(w.get("/tag/none/latest?wait=0.05"), 404)
	if d := time.Since(began); d < 150*time.Millisecond {
		t.Errorf("waited %v only", d)
	}
	wait.then = func(context.Context, hub.Key) (hub.Key, error) {
		return hub.Key{}, hub.E(hub.NotFound, "channel Orders was deleted")
	}
	w.want(w.get(last+"/next/7?wait=5"), 404, "was deleted")
	w.want(w.get("/channel/nope/latest?wait=5"), 404)

	// Not a time to wait.
	for _, bad := range []string{"61", "-1", "x", "NaN", "Inf", "1e9", "5s"} {
		for _, path := range []string{last + "/next", last + "/next/3", "/channel/orders/latest", "/channel/orders/latest/3", "/tag/cafe/latest"} {
			w.want(w.get(path+"?wait="+bad), 400, "wait is", "0 to 60")
		}
	}

	// The hub goes away.
	wait.then = never
	time.AfterFunc(20*time.Millisecond, leave)
	w.want(w.get(last+"/next?wait=60"), 404)
}
