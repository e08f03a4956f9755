package node

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"timehub/channel"
	"timehub/channel/longterm"
	"timehub/channel/rest"
	"timehub/hub"
	"timehub/hub/catalog"
	"timehub/hub/seal"
	"timehub/internalapi"
	"timehub/spoke"
	spokelog "timehub/spoke/log"
)

// What the rooms promise each other.
var (
	_ channel.ShortTerm    = (*spoke.Node)(nil)
	_ channel.LongTerm     = (*longterm.Store)(nil)
	_ channel.Catalog      = (*catalog.Catalog[channel.Document])(nil)
	_ internalapi.Channels = backDoor{}
)

const (
	catalogPrefix = ".hub/channels/"
	maxSmall      = 100 << 20 // bytes of an item that passes through memory: the most that app.large.payload.MB can mean
	inFlight      = 256 << 20 // bytes of bodies in memory (ENGINE §3), unless one bulk may have more
)

// runLongTerm waits for the bucket, opens what lies in it, and reads the configurations of channels; then it follows what other nodes change of these.
func (n *Node) runLongTerm(ctx context.Context, ready func()) error {
	p := &n.parts
	select {
	case <-p.claimed:
	case <-ctx.Done():
		return nil
	}
	var err error
	p.sealer = seal.New(seal.Options{})
	p.longterm, err = longterm.New(longterm.Options{Bucket: p.bucket, Sealer: p.sealer, Temp: n.disk, Folder: tempDir, MaxItem: n.cfg.Bytes("app.maxItemSizeMB") + 1<<20})
	if err != nil {
		return fmt.Errorf("open long-term storage: %w", err)
	}
	err = n.untilStore(ctx, func(ctx context.Context) (err error) {
		p.catalog, err = catalog.Open[channel.Document](ctx, catalog.Options{
			Bucket: p.bucket, Prefix: catalogPrefix, Registers: p.coordinator, Register: "catalog/channels", Deaf: n.deaf(),
			Clock: n.env.Clock, Log: n.log.With("component", "catalog"),
		})
		return err
	})
	if err != nil {
		return err
	}
	for id, err := range p.catalog.Broken() {
		n.log.Error("the configuration of a channel cannot be read; the channel is not served", "channel", id, "err", err)
	}
	ready()
	return p.catalog.Run(ctx)
}

// runSpoke recovers the log and takes writes.
func (n *Node) runSpoke(ctx context.Context, ready func()) error {
	opt := spoke.Options{
		Disk: n.disk, Clock: n.env.Clock, Random: n.env.random32, Log: n.log.With("component", "spoke"),
		WriteTimeout: n.cfg.Duration("spoke.write.timeout"), ClockGuard: n.cfg.Duration("app.clock_guard"),
		Archived: n.archived,
		Segments: spokelog.Options{
			Sync: syncMode(n.cfg.Text("spoke.sync")), TTL: n.cfg.Duration("spoke.write.ttlMinutes"), Metrics: n.parts.metrics,
			LateConfirmed: n.confirmed,
		},
	}
	if n.joins() {
		opt.Cluster = n.clusterOptions()
	}
	if n.onOwnDisk() { // it lies on the same file system
		opt.Segments.Unconfirmed = n.unconfirmed
	}
	if !n.cfg.Bool("spoke.enforceTTL") {
		opt.Segments.TTL = forEver
	}
	if change := n.env.Seams.Spoke; change != nil {
		change(&opt)
	}
	s, found, err := spoke.Open(ctx, opt)
	if err != nil {
		return fmt.Errorf("open Spoke's log: %w", err)
	}
	for _, h := range found.Holes {
		n.log.Error("acknowledged data is damaged", "segment", h.Segment, "offset", h.Offset, "length", h.Length, "from", h.From, "to", h.To)
	}
	n.parts.spoke = s
	n.parts.closers = append(n.parts.closers, s)
	if n.joins() && s.Fresh() { // it might join the wrong hub, or one whose bucket is another's
		if err := n.claimStore(ctx, s.Identity().ID); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.claimStore(ctx, s.Identity().ID) })
	g.Go(func() error {
		if n.joins() {
			return n.joinCluster(ctx, ready)
		}
		ready()
		return s.Run(ctx)
	})
	return g.Wait()
}

const forEver = 200 * 365 * 24 * time.Hour

func syncMode(s string) spokelog.SyncMode {
	switch s {
	case "interval":
		return spokelog.Interval
	case "never":
		return spokelog.Never
	}
	return spokelog.Always
}

// stability is how stable answers are cut.
func stability(c Config) hub.Horizon {
	if c.Text("app.stable_seconds") == "auto" {
		return hub.Horizon{Auto: true}
	}
	return hub.Horizon{Seconds: c.Int("app.stable_seconds")}
}

// openChannels makes the service and its public face over both stores.
func (n *Node) openChannels(server *http.Server) error {
	p, c := &n.parts, n.cfg
	service, err := channel.New(channel.Options{
		Short: n.env.Seams.short(p.spoke), Replicas: p.spoke, Long: p.longterm, Catalog: p.catalog, Sealer: p.sealer,
		Changed: n.channelChanged,
		Clock:   n.env.Clock, Horizon: stability(c), Birthday: c.Time("app.birthDay"),
		ProtectChannels: c.Bool("hub.protect.channels"), LargeBytes: min(c.Bytes("app.large.payload.MB"), maxSmall), MaxItemBytes: c.Bytes("app.maxItemSizeMB"),
		MaxCount: int(c.Int("app.directionCountLimit")), MaxParts: int(c.Int("app.bulk.maxParts")),
		Random: n.env.random64, Log: n.log.With("component", "channel"), Metrics: p.metrics,
	})
	if err != nil {
		return fmt.Errorf("make the channel service: %w", err)
	}
	p.service = service
	if err := n.openStreams(server); err != nil {
		return err
	}
	bulk := 3 * c.Bytes("app.maxPayloadSizeMB")
	p.rest, err = rest.New(rest.Options{
		Service: service, Verbs: p.streams.Verbs(), Waiter: p.feeds, Stopping: p.leaving, Temp: n.disk, TempDir: tempDir, MaxBulkBytes: bulk, InFlight: max(inFlight, bulk), Clock: n.env.Clock, Log: n.log.With("component", "rest"),
		Replication: n.replicationStatus,
		Source:      &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: n.env.Dial, DisableKeepAlives: true}},
	})
	if err != nil {
		return fmt.Errorf("make the public interface: %w", err)
	}
	return nil
}

// backDoor is what internalapi may do with channels.
type backDoor struct{ service *channel.Service }

// RefreshChannels implements internalapi.Channels.
func (d backDoor) RefreshChannels(ctx context.Context) error { return d.service.RefreshChannels(ctx) }

// RemoveChannel implements internalapi.Channels. Who may call it has been asked before.
func (d backDoor) RemoveChannel(ctx context.Context, name string) error {
	return d.service.DeleteChannel(ctx, name, channel.Caller{Local: true, Internal: true})
}

// LastItems implements internalapi.Channels.
func (d backDoor) LastItems(ctx context.Context) ([]internalapi.LastItem, error) {
	channels, err := d.service.Channels(ctx)
	if err != nil {
		return nil, err
	}
	var last []internalapi.LastItem
	for _, ch := range channels {
		a, err := d.service.Find(ctx, ch, channel.Search{Kind: channel.Latest, N: 1, Epoch: hub.AllEpochs})
		if err != nil {
			return nil, fmt.Errorf("find the last item of %s: %w", ch.Name, err)
		}
		if len(a.Keys) > 0 {
			last = append(last, internalapi.LastItem{Channel: ch.Name, Owner: ch.Owner, Key: a.Keys[len(a.Keys)-1]})
		}
	}
	return last, nil
}
