package rest

import (
	"sync/atomic"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/seal"
)

// hot keeps the opened bodies of small items that are read again and again, as new ones are by everybody who follows a channel: unpacking is the dearest
// part of such a read. A body is kept when it is read the second time in a row in its place, so that reading through a channel costs nothing. It holds
// at most hotPlaces × hotBytes and needs no lock.
type hot struct{ places [hotPlaces]hotPlace }

const (
	hotPlaces = 256
	hotBytes  = 16 << 10
)

type hotPlace struct {
	seen atomic.Uint64 // the item read last
	kept atomic.Pointer[hotItem]
}

type hotItem struct {
	channel string
	key     hub.Key
	digest  uint32
	body    []byte // never changed
	lines   atomic.Pointer[itemLines]
}

// itemLines are the header values of an item that is sent as it is. They are never changed.
type itemLines struct {
	base, path, query, contentType string // what they were made for, beside the item
	age                            int64
	values                         [lineCount]string
}

const (
	linkLines = iota // two
	dateLine  = iota + 1
	cacheLine
	lengthLine
	tagLine
	typeLine
	lineCount
)

func (l *itemLines) fit(base, path, query, contentType string, age int64) bool {
	return l != nil && l.age == age && l.path == path && l.base == base && l.query == query && l.contentType == contentType
}

func (i *hotItem) is(f *channel.Found) bool {
	return i.digest == f.Meta.Digest && int64(len(i.body)) == f.Meta.Size && i.key == f.Key && i.channel == f.Channel.Name
}

// find returns what is kept of an item, nil if nothing is.
func (h *hot) find(f *channel.Found) *hotItem {
	if kept := h.places[f.Meta.Digest%hotPlaces].kept.Load(); kept != nil && kept.is(f) {
		return kept
	}
	return nil
}

// body returns the body of an item, which must not be changed: a kept one, or one that is opened into buf.
func (h *hot) body(svc *channel.Service, buf *[]byte, f *channel.Found) ([]byte, error) {
	cache := f.Envelope.Codec == seal.Zstd && f.Meta.Size <= hotBytes
	place := &h.places[f.Meta.Digest%hotPlaces]
	if kept := h.find(f); cache && kept != nil {
		return kept.body, nil
	}
	b, err := svc.Body(*buf, *f)
	if err != nil {
		return nil, err
	}
	*buf = b
	if id := uint64(f.Key.Millis())<<20 ^ uint64(f.Meta.Digest); cache && place.seen.Swap(id) == id {
		place.kept.Store(&hotItem{channel: f.Channel.Name, key: f.Key, digest: f.Meta.Digest, body: append(make([]byte, 0, len(b)), b...)})
	}
	return b, nil
}
