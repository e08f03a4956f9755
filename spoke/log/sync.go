package log

import "context"

// Sync waits until everything that reads show now is durable, whatever Options.Sync says: whoever writes down elsewhere what lies in the log needs that.
func (l *Log) Sync(ctx context.Context) error {
	if l.opt.Sync == Always {
		return nil
	}
	done := make(chan error, 1)
	l.mu.Lock()
	ended := l.ended
	if !ended {
		l.syncs = append(l.syncs, done)
	}
	l.mu.Unlock()
	if ended {
		return ErrClosed
	}
	token(l.wake)
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// syncNow answers those who wait in Sync. What lies in segments before the active one is durable.
func (c *committer) syncNow() {
	l := c.l
	l.mu.Lock()
	waiting := l.syncs
	l.syncs = nil
	l.mu.Unlock()
	if len(waiting) == 0 {
		return
	}
	var err error
	if c.active != nil && !c.dirty.IsZero() {
		if err = c.syncActive(); err != nil {
			c.fault(err)
		}
	}
	for _, done := range waiting {
		done <- err
	}
}
