package node

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"

	"timehub/hub/web"
	"timehub/internalapi"
)

const (
	// maxHeader bounds a request's header. Names of 10 kB get an answer that names the rule.
	maxHeader = 64 << 10
	// lastMoment is what connections get to end after their time is up.
	lastMoment = time.Second
)

// newServer makes the HTTP server; which handler answers is decided per request, as the node starts up.
func (n *Node) newServer(ctx context.Context) *http.Server {
	s := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*n.handler.Load()).ServeHTTP(w, r) }),
		ReadHeaderTimeout: n.cfg.Duration("http.header.timeout.seconds"),
		IdleTimeout:       n.cfg.Duration("http.idle_timeout"),
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(serverLog{n.log}, "", 0),
		ConnContext:       web.ConnContext,
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	s.RegisterOnShutdown(func() { close(n.drained) }) // called when no more connections are accepted
	return s
}

// serverLog takes what net/http has to say about connections: mostly strangers that speak something else.
type serverLog struct{ log *slog.Logger }

func (s serverLog) Write(p []byte) (int, error) {
	s.log.Debug("connection", "text", string(p[:max(0, len(p)-1)]))
	return len(p), nil
}

// listen answers /health from the first moment on. It goes on until everything else has stopped.
func (n *Node) listen(server *http.Server) func(ctx context.Context, ready func()) error {
	return func(ctx context.Context, ready func()) error {
		l, err := n.env.Listen("tcp", n.cfg.Address())
		if err != nil {
			return fmt.Errorf("listen at %s: %w; another address can be named with --listen", n.cfg.Address(), err)
		}
		n.address = l.Addr().String()
		close(n.listening)
		early, err := n.earlyRoutes()
		if err != nil {
			return errors.Join(err, l.Close())
		}
		n.use(early)
		served := make(chan error, 1)
		go func() { served <- server.Serve(&stallListener{Listener: l, limit: stallTime}) }()
		ready()
		select {
		case err = <-served:
			if errors.Is(err, http.ErrServerClosed) { // drained: the last requests are being answered
				<-ctx.Done()
				return nil
			}
			return fmt.Errorf("serve: %w", err)
		case <-ctx.Done():
			err = server.Close()
			<-served
			return err
		}
	}
}

func (n *Node) use(h http.Handler) { n.handler.Store(&h) }

// serve opens the public routes, and when it is stopped lets those who use them go (spec 06 §4).
func (n *Node) serve(server *http.Server) func(ctx context.Context, ready func()) error {
	return func(ctx context.Context, ready func()) error {
		if err := n.openChannels(server); err != nil {
			return err
		}
		if err := n.openWebhooks(ctx); err != nil {
			return err
		}
		if err := n.openHookService(); err != nil {
			return err
		}
		rt, err := n.routes()
		if err != nil {
			return err
		}
		if n.cfg.Cluster() {
			n.use(n.forwardHooks(rt))
		} else {
			n.use(rt)
		}
		n.state.Store(uint32(internalapi.Healthy))
		ready()
		return n.withStreams(ctx, func() error {
			<-ctx.Done()
			return n.drain(context.WithoutCancel(ctx), server)
		})
	}
}
