package node

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

const dialTime = 5 * time.Second

// peerDial connects to other nodes from the address by which they know this one, because that is the one whose streams they take: a machine with several
// addresses would choose any of them. What is no address of this machine (a name, or one that is translated on the way) binds nothing.
func (n *Node) peerDial() func(ctx context.Context, network, address string) (net.Conn, error) {
	if n.env.Dial != nil {
		return n.env.Dial
	}
	host, _, _ := net.SplitHostPort(n.clusterAddress())
	from, err := netip.ParseAddr(host)
	if err != nil || from.IsUnspecified() {
		return nil
	}
	plain := &net.Dialer{Timeout: dialTime}
	bound := &net.Dialer{Timeout: dialTime, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := bound.DialContext(ctx, network, address)
		if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EINVAL) { // EINVAL: from a loopback address to another machine
			return plain.DialContext(ctx, network, address)
		}
		var mixed *net.AddrError
		if errors.As(err, &mixed) { // the peer has an address of the other family
			return plain.DialContext(ctx, network, address)
		}
		return conn, err
	}
}
