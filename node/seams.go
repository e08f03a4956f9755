package node

import (
	"timehub/channel"
	"timehub/channel/archive"
	"timehub/channel/feed"
	"timehub/spoke"
)

// Seams are where tests break a node on purpose, to see that whoever checks hubs notices. The zero value changes nothing, and no program sets them.
type Seams struct {
	Spoke func(*spoke.Options)                      // how Spoke is opened
	Short func(channel.ShortTerm) channel.ShortTerm // what channels are read from and written to
	Feed  func(feed.Source) feed.Source             // what callbacks follow
	Jobs  func(*archive.Options)                    // how long-term storage is kept
}

func (s Seams) short(n *spoke.Node) channel.ShortTerm {
	if s.Short == nil {
		return n
	}
	return s.Short(n)
}

func (s Seams) feed(service *channel.Service) feed.Source {
	if s.Feed == nil {
		return service
	}
	return s.Feed(service)
}
