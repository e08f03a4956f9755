package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"timehub/internalapi"
)

// drain takes the node out of service: /health says so, a load balancer gets the time to notice, no more requests are accepted, those in flight are
// finished. What is still not finished after app.shutdown_wait_seconds is cut off.
func (n *Node) drain(ctx context.Context, server *http.Server) error {
	n.state.Store(uint32(internalapi.ShuttingDown))
	n.parts.life.stopping.Add(1)
	delay, wait := n.cfg.Duration("app.shutdown_delay_seconds"), n.cfg.Duration("app.shutdown_wait_seconds")
	n.log.Info("the hub is stopping", "delay", delay, "wait", wait)
	if delay > 0 {
		time.Sleep(delay)
	}
	ctx, cancel := context.WithTimeout(ctx, wait+lastMoment)
	defer cancel()
	err := server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		n.log.Warn("requests were still in flight and are cut off", "after", wait)
		return errors.Join(server.Close())
	}
	if err != nil {
		return fmt.Errorf("finish requests: %w", err)
	}
	n.parts.life.stopped.Add(1)
	return nil
}
