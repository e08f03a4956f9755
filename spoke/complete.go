package spoke

import (
	"context"

	"timehub/hub"
	spokelog "timehub/spoke/log"
)

// WriteComplete records that a replicated channel is complete up to a key (ENGINE §7): every item at or below it that the channel will ever have was
// written by WriteKeyed calls that have returned nil before. When it returns nil, the record is on a quorum of disks and Marker tells it here; Complete does at once on one node
// alone, and on each node of several as soon as everything is there that it relies on. Then who watches the channel is woken. It only advances: an older key than the present one
// changes nothing, but that a node among others says in its own stream, once, what it has heard. Its errors are those of WriteKeyed; then the record may have been written or not,
// and may be sent again.
func (n *Node) WriteComplete(ctx context.Context, channel string, upTo hub.Key) error {
	at, known := n.store.Complete(channel)
	flags := goesOn
	if n.cluster != nil {
		flags = n.cluster.markerFlags(channel, at, known)
	}
	if known && !at.Less(upTo) {
		if flags == goesOn {
			return nil
		}
		upTo = at
	}
	if err := n.put(ctx, []spokelog.Record{{Channel: channel, Key: upTo, Flags: flags}}); err != nil {
		return err
	}
	if n.cluster != nil {
		n.cluster.wroteMarker(channel, upTo)
	}
	n.board.notify(channel)
	return nil
}

// Marker is the highest marker of a channel that has come to this disk, false if there is none: whoever goes on with its replication goes on from there. It never moves back: not by a
// restart, nor when what it was written with is swept; only while a part of the log cannot be read after a start, it may be lower, hub.MinKey in the end. When a channel has been
// deleted, its record is forgotten sooner or later; until then, and if the name is used again before, it is still told.
func (n *Node) Marker(channel string) (hub.Key, bool) { return n.store.Complete(channel) }

// Complete is the key up to which a replicated channel is complete on this node; false if it has no marker. It is the horizon of such a channel, and never moves back. It is the Marker on one
// node alone. Among others it follows it when everything is here that other streams have brought before.
func (n *Node) Complete(channel string) (hub.Key, bool) {
	upTo, ok := n.store.Complete(channel)
	if ok && n.cluster != nil {
		upTo, _ = n.cluster.completeTo(channel, upTo)
	}
	return upTo, ok
}
