package zk

import (
	"math/rand/v2"
	"slices"
	"sync"
)

// hosts is the driver's list of servers. It hands out names as they are configured: the driver's own list looks all of them up once and for ever, so that a
// single unknown one prevents the start, a server that comes back under another address is not found again, and TLS sees a number where the certificate
// has a name. Here whoever dials looks up, each time anew.
type hosts struct {
	mu      sync.Mutex // guards what follows
	servers []string
	next    int // index of the one to hand out next
	tried   int // how many were handed out since the last success, that one included
}

// Init takes the servers (host:port), in an order of chance.
func (h *hosts) Init(servers []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.servers = slices.Clone(servers)
	rand.Shuffle(len(h.servers), func(i, j int) { h.servers[i], h.servers[j] = h.servers[j], h.servers[i] })
	return nil
}

// Len is how many there are.
func (h *hosts) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.servers)
}

// Next is the server to try. around says that all were tried in vain: the driver pauses then.
func (h *hosts) Next() (server string, around bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	around = h.tried > 0 && h.tried%len(h.servers) == 0
	server = h.servers[h.next]
	h.next = (h.next + 1) % len(h.servers)
	h.tried++
	return server, around
}

// Connected says that the last one took the session.
func (h *hosts) Connected() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tried = 1
}
