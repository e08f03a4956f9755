package spoke

import (
	"context"

	"timehub/hub"
	spokelog "timehub/spoke/log"
)

// WriteComplete records that a replicated channel is complete up to a key (ENGINE §7): every item at or below it that the channel will ever have was
// written by WriteKeyed calls that have returned nil before. When it returns nil, the record is on a quorum of disks, Complete tells it here, and who
// watches the channel is woken. It only advances: an older key than the present one changes nothing. Its errors are those of WriteKeyed; then the
// record may have been written or not, and may be sent again.
func (n *Node) WriteComplete(ctx context.Context, channel string, upTo hub.Key) error {
	if at, ok := n.store.Complete(channel); ok && !at.Less(upTo) {
		return nil
	}
	err := n.put(ctx, []spokelog.Record{{Channel: channel, Key: upTo, Flags: spokelog.Complete | spokelog.Replicated}})
	if err != nil {
		return err
	}
	n.board.notify(channel)
	return nil
}

// Complete is the key up to which a replicated channel is complete; false if WriteComplete was never called for it. It is the horizon of such a channel,
// and never moves back: not by a restart, nor when what it was written with is swept; only while a part of the log cannot be read after a start, it may
// be lower, hub.MinKey in the end. When a channel has been deleted, its record is forgotten sooner or later; until then, and if the name is used again
// before, it is still told.
func (n *Node) Complete(channel string) (hub.Key, bool) { return n.store.Complete(channel) }
