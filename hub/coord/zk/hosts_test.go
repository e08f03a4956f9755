package zk

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"timehub/e2e/zkproc"
)

// TestHosts: every server is tried before the driver is told to pause, and after a success it is told so when the others were tried.
func TestHosts(t *testing.T) {
	h := &hosts{}
	given := []string{"a:1", "b:1", "c:1"}
	if err := h.Init(given); err != nil || h.Len() != 3 {
		t.Fatal(err, h.Len())
	}
	round := func(n int, pause bool) []string {
		t.Helper()
		var all []string
		for i := range n {
			server, around := h.Next()
			if around != (pause && i == 0) {
				t.Fatalf("%d of %d: pause is %v", i, n, around)
			}
			all = append(all, server)
		}
		slices.Sort(all)
		return all
	}
	for _, pause := range []bool{false, true, true} {
		if got := round(3, pause); !slices.Equal(got, given) {
			t.Error(got)
		}
	}
	h.Connected()
	if got := round(2, false); got[0] == got[1] {
		t.Error(got)
	}
	round(3, true)
}

// TestNames: one name that nobody knows is no reason not to start; a name is looked up each time it is dialed, so that a server may come back under another
// address; and TLS is asked for the name, not for a number.
func TestNames(t *testing.T) {
	t.Parallel()
	server := zkproc.Start(t, zkproc.Options{})[0]
	where := make(chan string, 1) // the address of zk.example
	where <- "127.0.0.1:1"
	n := launch(t, []string{"gone.example:2181", "zk.example:2181"}, newRoot(), func(o *Options) {
		dial := o.Dial
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address != "zk.example:2181" {
				return nil, &net.DNSError{Err: "no such host", Name: address, IsNotFound: true}
			}
			at := <-where
			where <- server.Address // it has moved
			return dial(ctx, network, at)
		}
	})
	for deadline := time.Now().Add(60 * time.Second); ; {
		_, err := n.connection(t.Context())
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}

	names := make(chan string, 1)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		select {
		case names <- hello.ServerName:
		default:
		}
		return nil, errors.New("no certificate")
	}})
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-accepted
	})
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	launch(t, []string{"localhost:" + port}, newRoot(), func(o *Options) { o.TLS = &tls.Config{MinVersion: tls.VersionTLS12} })
	if name := <-names; name != "localhost" {
		t.Errorf("the server was asked for the certificate of %q", name)
	}
}
