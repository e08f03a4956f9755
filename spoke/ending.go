package spoke

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"timehub/hub"
	"timehub/hub/coord"
	"timehub/spoke/frame"
	"timehub/spoke/roster"
)

const (
	pieceBytes   = 400 << 10 // of a set in one register
	piecesPrefix = "spoke/sets/"
	maxEnding    = 1 << 30
)

// ending is the content of the set of a closed stream: the register spoke/closed/{stream}. A large set lies in registers of its own, written before.
type ending struct {
	Base   hub.Mark `json:"base"`
	Keys   []named  `json:"keys"`
	Pieces int      `json:"pieces,omitempty"` // registers spoke/sets/{stream}/{folder}/{number} with JSON of the keys, compressed as one
	Folder string   `json:"folder,omitempty"` // of the leader who wrote them
	// Floor is the highest of those who told what they hold, if it lies above the base: what they had swept is not in the set.
	Floor *frame.Floor `json:"floor,omitempty"`
	// Holders are disks that have all replicated items of the stream that were acknowledged. Empty: it brought none lately, or a program closed it that does not know them.
	Holders []string `json:"holders,omitempty"`
}

// putEnding makes the value of the register, and writes what does not fit into it to others.
func (c *cluster) putEnding(ctx context.Context, stream roster.Stream, end ending) ([]byte, error) {
	text, err := json.Marshal(end)
	if err != nil || len(text) <= pieceBytes {
		return text, err
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if err := json.NewEncoder(w).Encode(end.Keys); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	end.Keys, end.Folder = nil, rand.Text()
	for rest := b.Bytes(); len(rest) > 0; end.Pieces++ {
		n := min(len(rest), pieceBytes)
		if _, err := c.opt.Coordinator.Set(ctx, pieceName(stream, end, end.Pieces), rest[:n], 0); err != nil {
			return nil, err
		}
		rest = rest[n:]
	}
	return json.Marshal(end)
}

func pieceName(stream roster.Stream, end ending, i int) string {
	return piecesPrefix + stream.String() + "/" + end.Folder + "/" + strconv.Itoa(i)
}

// dropPieces removes the pieces of an ending that did not go on record.
func (c *cluster) dropPieces(ctx context.Context, stream roster.Stream, text []byte) {
	changes := piecesOf(stream, text)
	if len(changes) == 0 {
		return
	}
	if _, err := c.opt.Coordinator.Update(ctx, changes); err != nil {
		c.n.log.Debug("pieces of a set are left with the coordinator", "stream", stream, "err", err)
	}
}

// piecesOf removes what lies beside the register of a closed stream.
func piecesOf(stream roster.Stream, text []byte) []coord.Change {
	var end ending
	if json.Unmarshal(text, &end) != nil || end.Pieces == 0 {
		return nil
	}
	changes := make([]coord.Change, end.Pieces)
	for i := range changes {
		changes[i] = coord.Change{Name: pieceName(stream, end, i), Any: true}
	}
	return changes
}

// getEnding reads the register of a closed stream, and what lies beside it.
func (c *cluster) getEnding(ctx context.Context, i roster.Incarnation) (end ending, err error) {
	if i.Closed.Bare {
		return ending{Base: i.Closed.Base}, nil
	}
	stream := i.Stream
	b, _, err := c.opt.Coordinator.Get(ctx, closedPrefix+stream.String())
	if err != nil {
		return end, err
	}
	if err := json.Unmarshal(b, &end); err != nil {
		return end, fmt.Errorf("read the set of a closed incarnation: %w", err)
	}
	if end.Pieces == 0 {
		return end, nil
	}
	var all []byte
	for i := range end.Pieces {
		b, _, err := c.opt.Coordinator.Get(ctx, pieceName(stream, end, i))
		if err != nil {
			return end, err
		}
		all = append(all, b...)
	}
	r, err := gzip.NewReader(bytes.NewReader(all))
	if err == nil {
		err = json.NewDecoder(io.LimitReader(r, maxEnding)).Decode(&end.Keys)
	}
	if err != nil {
		return end, fmt.Errorf("read the set of a closed incarnation: %w", err)
	}
	return end, nil
}
