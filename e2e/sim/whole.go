package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"timehub/e2e/memnet"
	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/bucket/mem"
	"timehub/hub/client"
	"timehub/hub/coord"
	"timehub/hub/coord/local"
	"timehub/hub/disk"
	"timehub/node"
)

// Whole is the flavor of a whole hub: node.Node, served over HTTP on a network in memory, with its own archiver, verifier and long-term storage, which is
// a bucket in memory that can be troubled, or a directory on the same disk.
type Whole struct {
	// What breaks the hub on purpose, to see whether the judge notices. nil: nothing.
	Disk   func(disk.Disk) disk.Disk
	Bucket func(bucket.Bucket) bucket.Bucket
}

// wholeStage is what a hub's process does not take with it when it dies.
type wholeStage struct {
	flavor   Whole
	set      []string
	storages map[string]string // of the channels
	bucket   *mem.Bucket       // nil: a directory on the disk
	store    *local.Store
	trouble  atomic.Pointer[StoreTrouble]
	seed     uint64

	mu  sync.Mutex // held for computing only
	rng *rand.Rand // of troubles
}

// Stage implements Flavor.
func (f Whole) Stage(r *rand.Rand, c *Config, l *Ledger) Stage {
	c.Keyed, c.Forgotten = "", ""
	c.Stretch, c.Windows, c.Gentle, c.Archives, c.MaxRoom = time.Duration(1+r.IntN(40)), true, true, true, 300<<20
	c.MaxLives, c.MaxRation = 6, 120
	c.Think *= c.Stretch
	c.WriteTimeout = max(time.Second, c.WriteTimeout.Round(time.Second))
	ttl := 1 + r.IntN(5)
	s := &wholeStage{
		flavor:   f,
		storages: map[string]string{}, store: local.NewMemory(), seed: r.Uint64(), rng: rand.New(rand.NewPCG(r.Uint64(), 5)),
		set: []string{
			fmt.Sprintf("spoke.write.timeout=%d", c.WriteTimeout/time.Second), fmt.Sprintf("spoke.write.ttlMinutes=%d", ttl),
			"app.birthDay=1999/01/01", "app.large.payload.MB=1", fmt.Sprintf("s3Verifier.offsetMinutes=%d", 1+r.IntN(5)),
			"app.shutdown_wait_seconds=5",
		},
	}
	if c.Behind = r.IntN(4) == 0; c.Behind {
		s.set = append(s.set, "app.stable_seconds=2")
	} else {
		s.set = append(s.set, "app.stable_seconds=auto")
	}
	for _, ch := range c.Channels {
		s.storages[ch] = []string{"SINGLE", "BATCH", "BOTH"}[r.IntN(3)]
	}
	if c.Store = r.IntN(3) > 0; c.Store {
		s.bucket = mem.New(mem.Options{Fault: s.fault, Complain: func(text string) { l.Wrong("%s", text) }})
	}
	l.Note("a whole hub: %v %v, bucket %v", s.set, s.storages, c.Store)
	return s
}

// fault is asked of each call of the bucket.
func (s *wholeStage) fault(c mem.Call) mem.Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble.Load().Fault(c, s.rng.Float64)
}

// Strike implements Striker.
func (s *wholeStage) Strike(t StoreTrouble) (end func()) {
	s.trouble.Store(&t)
	return func() { s.trouble.CompareAndSwap(&t, nil) }
}

// wholeHub is one life of a node.
type wholeHub struct {
	*node.Node
	stage   *wholeStage
	site    *Site
	net     *memnet.Net
	session *local.Coordinator

	// Set when it serves.
	Talk
	transport *http.Transport
}

// Open implements Stage.
func (s *wholeStage) Open(_ context.Context, site *Site) (Hub, error) {
	cfg, _, err := node.Load(node.Sources{Listen: "127.0.0.1:0", Set: s.set})
	if err != nil {
		return nil, err
	}
	h := &wholeHub{stage: s, site: site, net: memnet.New(), session: s.store.Session("the node")}
	env := node.Env{
		Clock: site.Clock, Disk: site.Disk, Listen: h.net.Listen, Coordinator: coord.Coordinator(h.session), Log: site.Log, Host: "sim",
		Rand: func() uint64 { return uint64(site.Random32())<<32 | uint64(site.Random32()) },
	}
	if s.bucket != nil {
		env.Bucket = Mortal{s.bucket, site.Dead}
	}
	if s.flavor.Disk != nil {
		env.Disk = s.flavor.Disk(env.Disk)
	}
	if s.flavor.Bucket != nil && env.Bucket != nil {
		env.Bucket = s.flavor.Bucket(env.Bucket)
	}
	if env.Log == nil {
		env.Log = slog.New(slog.DiscardHandler)
	}
	h.Node, err = node.New(cfg, env)
	return h, err
}

// Run implements Hub. When the process dies, so do its connections and its session.
func (h *wholeHub) Run(ctx context.Context, ready func()) error {
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-h.site.Dead:
			h.net.Cut()
			h.stage.store.Cut(h.session)
		case <-ended:
		}
	})
	wg.Go(func() {
		select {
		case <-h.Node.Ready():
		case <-ended:
			return
		}
		address, err := h.Node.Address(ctx)
		if err != nil {
			return
		}
		h.transport = &http.Transport{DialContext: h.net.Dial, DisableCompression: true, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute}
		h.Probe = h.site.Config.Channels[0]
		h.Client, err = client.New(client.Options{URL: "http://" + address, Tries: 1, Transport: h.transport})
		if err == nil {
			ready()
		}
	})
	err := h.Node.Run(ctx)
	close(ended)
	wg.Wait()
	return err
}

// Prepare implements Preparer: it makes the channels.
func (h *wholeHub) Prepare(ctx context.Context) error {
	for name, storage := range h.stage.storages {
		if _, err := h.Client.PutChannel(ctx, name, map[string]any{"storage": storage, "keepForever": true}); err != nil {
			return fmt.Errorf("make a channel: %w", err)
		}
	}
	return nil
}

// Look implements Hub.
func (h *wholeHub) Look() error {
	ok, text, err := h.Client.Health(context.Background())
	if err == nil && !ok {
		err = fmt.Errorf("the hub is not healthy: %s", text)
	}
	return errors.Join(err, h.damage())
}

// Close implements Hub.
func (h *wholeHub) Close() error {
	if h.transport != nil {
		h.transport.CloseIdleConnections()
	}
	h.net.Cut()
	return nil // Run has closed the node
}

// Last implements Closer: when nothing happens any more, long-term storage becomes whole, with each item in the layout of its channel.
func (h *wholeHub) Last(ctx context.Context, ask func(Ask) (Answer, bool)) error {
	at, err := h.Horizon(ctx)
	if err != nil {
		return err
	}
	// Longer than the longest pause between two attempts, and than a round of the verifier; a clock that was set back has to catch up first.
	hub.Sleep(ctx, 30*time.Minute+max(0, at.Time().Sub(h.site.Clock())))
	for name, storage := range h.stage.storages {
		for _, a := range InLongTerm(name, storage) {
			if _, ok := ask(a); !ok {
				return fmt.Errorf("%v of %s cannot be read", a.Tier, name)
			}
		}
	}
	return nil
}
