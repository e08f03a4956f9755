package zk

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/go-zookeeper/zk"

	"timehub/hub"
)

// callTimeout bounds one call; the driver itself waits for ever. Of a call that is given up nothing is known, and it may still happen.
const callTimeout = 10 * time.Second

// driver is the connection, with the few calls that need more than one line.
type driver struct{ *zk.Conn }

func (d driver) exists(p string) (bool, error) {
	ok, _, err := d.Exists(p)
	return ok, err
}

// connection waits for a session, for as long as one lasts.
func (c *Coordinator) connection(ctx context.Context) (driver, error) {
	t := time.NewTimer(c.opt.Session)
	defer t.Stop()
	for {
		c.mu.Lock()
		conn, up, isUp := c.conn, c.up, c.isUp
		c.mu.Unlock()
		if isUp && conn != nil {
			return driver{conn}, nil
		}
		select {
		case <-up:
		case <-ctx.Done():
			return driver{}, context.Cause(ctx)
		case <-t.C:
			c.mu.Lock()
			why := c.wrong
			c.mu.Unlock()
			return driver{}, hub.E(hub.Unavailable, "there is no session with ZooKeeper at the moment").Because(why)
		}
	}
}

// call makes a call of the driver, which knows neither contexts nor time-outs: it is left behind when ctx ends, and ends with the connection at the latest.
func call[T any](ctx context.Context, c *Coordinator, verb, name string, f func(driver) (T, error)) (T, error) {
	return callOr(ctx, c, verb, name, f, nil)
}

// callOr is call; late, if not nil, gets the outcome of a call that was left behind.
func callOr[T any](ctx context.Context, c *Coordinator, verb, name string, f func(driver) (T, error), late func(T, error)) (T, error) {
	var none T
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	c.mu.Lock()
	in, began := c.session, time.Now()
	c.mu.Unlock()
	conn, err := c.connection(ctx)
	if err != nil {
		return none, err
	}
	type outcome struct {
		v   T
		err error
	}
	done, left := make(chan outcome), make(chan struct{})
	go func() {
		v, err := f(conn)
		select {
		case done <- outcome{v, err}:
		case <-left:
			if late != nil {
				late(v, err)
			}
		}
	}()
	t := time.NewTimer(callTimeout)
	defer t.Stop()
	select {
	case o := <-done:
		if o.err == nil {
			c.alive(in, began)
		}
		return o.v, failure(verb, name, o.err)
	case <-ctx.Done():
		close(left)
		return none, context.Cause(ctx)
	case <-t.C:
		close(left)
		return none, hub.E(hub.Unavailable, "%s %s: ZooKeeper does not answer", verb, name)
	}
}

// failure gives an error of the driver its kind.
func failure(verb, name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, zk.ErrNoNode):
		return hub.E(hub.NotFound, "%s %s: it is not in ZooKeeper", verb, name).Because(err)
	case errors.Is(err, zk.ErrBadVersion), errors.Is(err, zk.ErrNodeExists):
		return hub.E(hub.Conflict, "%s %s: somebody else was first", verb, name).Because(err)
	}
	var known *hub.Error
	if errors.As(err, &known) {
		return err
	}
	return hub.E(hub.Unavailable, "%s %s: ZooKeeper: %v", verb, name, err).Because(err)
}

// ensure makes a node and all above it, empty; one that is there is left alone.
func ensure(conn driver, p string) error {
	_, err := conn.Create(p, nil, zk.FlagPersistent, zk.WorldACL(zk.PermAll))
	switch {
	case err == nil, errors.Is(err, zk.ErrNodeExists):
		return nil
	case !errors.Is(err, zk.ErrNoNode) || p == "/":
		return fmt.Errorf("make %s: %w", p, err)
	}
	if err := ensure(conn, path.Dir(p)); err != nil {
		return err
	}
	_, err = conn.Create(p, nil, zk.FlagPersistent, zk.WorldACL(zk.PermAll))
	if err == nil || errors.Is(err, zk.ErrNodeExists) {
		return nil
	}
	return fmt.Errorf("make %s: %w", p, err)
}
