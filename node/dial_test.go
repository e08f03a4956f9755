package node

import (
	"net"
	"testing"
)

func TestPeerDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for address, want := range map[string]string{
		"127.0.0.5:9000":   "127.0.0.5", // the others know it by this one
		"203.0.113.9:9000": "127.0.0.1", // translated on the way: not of this machine
		"[::1]:9000":       "127.0.0.1", // the other one has only IPv4
		"localhost:9000":   "127.0.0.1",
	} {
		n := &Node{cfg: Defaults()}
		if err := n.cfg.set("cluster.address", address, byDefault); err != nil {
			t.Fatal(err)
		}
		dial := n.peerDial()
		if dial == nil {
			dial = (&net.Dialer{}).DialContext
		}
		conn, err := dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		if from := conn.LocalAddr().(*net.TCPAddr).IP.String(); from != want {
			t.Errorf("%s: speaks from %s, want %s", address, from, want)
		}
		_ = conn.Close()
	}
}
