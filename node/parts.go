package node

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"timehub/callbacks/replicate"
	"timehub/callbacks/stream"
	"timehub/channel"
	"timehub/channel/archive"
	"timehub/channel/feed"
	"timehub/channel/longterm"
	"timehub/channel/rest"
	"timehub/hub/bucket"
	"timehub/hub/catalog"
	"timehub/hub/coord"
	"timehub/hub/coord/local"
	"timehub/hub/metrics"
	"timehub/hub/metrics/datadog"
	"timehub/hub/metrics/prom"
	"timehub/hub/seal"
	"timehub/spoke"
)

// parts are the rooms of a node, in the order in which they come to life. Each is set by an actor before it says ready, so those after it see it.
type parts struct {
	prom     *prom.Registry
	datadog  *datadog.Registry // nil unless metrics.enable
	metrics  metrics.Registry
	requests *requestMeters
	life     lifeMeters

	coordinator coord.Coordinator
	bucket      bucket.Bucket
	probe       func(context.Context) error // finds out whether the bucket does what it must; nil: it does
	claimed     chan struct{}               // closed when the bucket is known to do what it must, and to be this hub's
	sealer      *seal.Sealer
	longterm    *longterm.Store
	catalog     *catalog.Catalog[channel.Document]
	spoke       *spoke.Node
	service     *channel.Service
	leaving     context.Context // ends when no more requests are accepted
	feeds       *feed.Shared
	streams     *stream.Server
	rest        *rest.Handlers
	hooks       webhooks
	jobs        atomic.Pointer[archive.Jobs] // read by the sweep of Spoke's log, which runs before there are any
	replication atomic.Pointer[replicate.Replicator]
	backlog     backlog

	members members // of the cluster, for documents
	peers   peers   // who may use the doors of spoke

	closers []io.Closer // what is to be closed when everything has stopped, in reverse
}

// close closes what parts have open.
func (p *parts) close() error {
	var wrong []error
	for i := len(p.closers) - 1; i >= 0; i-- {
		wrong = append(wrong, p.closers[i].Close())
	}
	return errors.Join(wrong...)
}

const stopTime = 10 * time.Second // of parts that have nothing to wait for

// add puts everything long-lived into the group, in the order of a start.
func (n *Node) add(g *group) {
	if err := n.openMetrics(); err != nil {
		g.add("metrics", stopTime, func(context.Context, func()) error { return err })
		return
	}
	server := n.newServer(context.Background())
	if n.parts.datadog != nil {
		g.add("statsd", stopTime, n.parts.datadog.Run)
	}
	listen := n.listen(server)
	g.add("listener", stopTime, func(ctx context.Context, ready func()) error {
		n.parts.life.starting.Add(1) // here and not before: statsd drops what comes while it does not run
		return listen(ctx, ready)
	})
	g.add("coordination", stopTime, n.coordinate)
	g.add("store", stopTime, n.runStore)
	g.add("spoke", time.Minute, n.runSpoke)
	g.add("long-term", stopTime, n.runLongTerm)
	g.add("figures", stopTime, n.sample)
	g.add("public routes", 0, n.serve(server))
	if n.cfg.Cluster() {
		g.add("membership", stopTime, n.runMembership)
	}
	if !n.cfg.Bool("hub.read.only") {
		g.add("archive jobs", time.Minute, n.runJobs)
	}
	g.add("webhooks", hookStopTime, n.runWebhooks)
	g.add("replication", time.Minute, n.runReplication)
}

// openMetrics chooses where figures go: always to /metrics, with metrics.enable to both statsd ports too.
func (n *Node) openMetrics() error {
	p := &n.parts
	p.prom = prom.New()
	if n.cfg.Bool("metrics.enable") {
		ports := []int{int(n.cfg.Int("metrics.grafanastatsd.port")), int(n.cfg.Int("metrics.statsd.port"))}
		if !n.cfg.Bool("metrics.grafana.primary") {
			ports[0], ports[1] = ports[1], ports[0]
		}
		d, err := datadog.New(datadog.Options{Ports: ports, Ignore: strings.Fields(n.cfg.Text("metrics.grafana.request.ignore")), Log: n.log})
		if err != nil {
			return err
		}
		p.datadog = d
		p.metrics = metrics.Fanout(p.prom, d)
	} else {
		p.metrics = p.prom
	}
	p.requests, p.life = newRequestMeters(p.metrics, p.datadog != nil), newLifeMeters(p.metrics)
	return nil
}

// coordinate keeps the session with the other nodes: in process, persisted beside the data.
func (n *Node) coordinate(ctx context.Context, ready func()) error {
	c := n.env.Coordinator
	if c == nil && n.cfg.Cluster() {
		return n.coordinateCluster(ctx, ready)
	}
	if c == nil {
		path := n.disk.Path(coordFile)
		if path == "" {
			return errors.New("a node on a disk that is no folder needs a Coordinator")
		}
		store, err := local.Open(path)
		if err != nil {
			return err
		}
		n.parts.closers = append(n.parts.closers, store)
		c = store.Session(n.name())
	}
	n.parts.coordinator = c
	ready()
	return c.Run(ctx)
}
