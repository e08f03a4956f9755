package spoke

import (
	"context"
	"time"

	"timehub/hub"
)

// pace keeps what is copied from others under a number of bytes a second, so that those who serve clients keep their disk and network for them (ENGINE §4: repair is bounded in
// bandwidth).
type pace struct {
	rate  int64 // 0: no limit
	began time.Time
	bytes int64
}

// wait counts n bytes, and waits until they are due. false: ctx is done.
func (p *pace) wait(ctx context.Context, n int) bool {
	now := time.Now()
	if p.began.IsZero() {
		p.began = now
	}
	p.bytes += int64(n)
	if p.rate <= 0 {
		return ctx.Err() == nil
	}
	due := p.began.Add(time.Duration(float64(p.bytes) / float64(p.rate) * float64(time.Second)))
	switch ahead := due.Sub(now); {
	case ahead > time.Millisecond:
		return hub.Sleep(ctx, ahead)
	case ahead < -time.Second: // a pause is not made up for
		p.began, p.bytes = now, 0
	}
	return ctx.Err() == nil
}
