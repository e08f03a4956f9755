package fleet

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/gorilla/websocket"

	hubclient "timehub/hub/client"
)

// socket follows a channel over a websocket for a while.
func (f *follower) socket(c *client, rng *rand.Rand) bool {
	ctx, cancel := context.WithTimeout(f.w.over, time.Second+time.Duration(rng.Int64N(int64(30*time.Second))))
	defer cancel()
	d := websocket.Dialer{NetDialContext: c.host.Dial, HandshakeTimeout: callTime}
	ws, resp, err := d.DialContext(ctx, "ws://"+c.at.name()+"/channel/"+f.channel+"/"+f.last().String()+"/ws", nil)
	if err != nil {
		if resp != nil && resp.StatusCode < 500 {
			f.w.ledger.Wrong("%s: %v: %s", f.name, err, resp.Status)
		}
		return false
	}
	defer ws.Close()
	stop := context.AfterFunc(ctx, func() { ws.Close() })
	defer stop()
	for {
		_, text, err := ws.ReadMessage()
		if err != nil {
			return false
		}
		k, err := hubclient.KeyOf(string(text))
		if err != nil {
			f.w.ledger.Wrong("%s is sent %q: %v", f.name, text, err)
			return false
		}
		f.hear(c, k)
	}
}
