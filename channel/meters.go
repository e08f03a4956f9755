package channel

import (
	"sync"
	"time"

	"timehub/hub/metrics"
)

// insertType is the value of the tag type of an insert's metrics.
type insertType uint8

const (
	singleInsert insertType = iota
	bulkInsert
	historicalInsert
	insertTypes
)

var insertTypeNames = [insertTypes]string{"SINGLE", "BULK", "HISTORICAL"}

// meters counts inserts. The instruments of a channel are looked up by its name, once for each insert and without an allocation; there are as many of
// them as channels were ever written to.
type meters struct {
	latency metrics.Timing
	items   metrics.Counter
	bytes   metrics.Counter

	mu    sync.RWMutex // guards known
	known map[string]*channelMeters
}

type channelMeters [insertTypes]struct {
	latency metrics.Timing
	items   metrics.Counter
	bytes   metrics.Counter
}

func (m *meters) open(r metrics.Registry) {
	m.latency = r.Timing(metrics.Channel, "", "type", "channel")
	m.items = r.Counter(metrics.ChannelItems, "", "type", "channel")
	m.bytes = r.Counter(metrics.ChannelBytes, "", "type", "channel")
	m.known = map[string]*channelMeters{}
}

func (m *meters) inserted(t insertType, channel string, items, bytes int64, took time.Duration) {
	m.mu.RLock()
	c := m.known[channel]
	m.mu.RUnlock()
	if c == nil {
		c = m.add(channel)
	}
	c[t].latency.Observe(took)
	c[t].items.Add(items)
	c[t].bytes.Add(bytes)
}

func (m *meters) add(channel string) *channelMeters {
	c := new(channelMeters)
	for t, name := range insertTypeNames {
		c[t].latency = m.latency.With(name, channel)
		c[t].items = m.items.With(name, channel)
		c[t].bytes = m.bytes.With(name, channel)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.known[channel]; k != nil {
		return k
	}
	m.known[channel] = c
	return c
}
