package spoke

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"timehub/hub"
	"timehub/spoke/roster"
)

const stateFile = "cluster"

// diskState is the file "cluster": what a disk has promised and seen. It is replaced as a whole, and durable before anybody is told.
type diskState struct {
	Version  int             `json:"version"`
	List     roster.Roster   `json:"list"`             // as last read here
	Refused  []roster.Stream `json:"refused"`          // streams of which nothing is taken any more
	Complete []roster.Stream `json:"complete"`         // closed streams of which all is here
	Fresh    bool            `json:"fresh"`            // the disk has never written
	Lows     []streamLow     `json:"lows,omitempty"`   // of refused streams: whoever closes one relies on what a disk said
	Mended   []holeMark      `json:"mended,omitempty"` // holes of the log whose records were copied anew
	// How far the lists of late items of other disks were copied, by disk.
	LateSeen map[string]int64 `json:"lateSeen,omitempty"`
}

// streamLow is how far a disk has a stream.
type streamLow struct {
	Stream roster.Stream `json:"stream"`
	Low    hub.Mark      `json:"low"`
}

// load reads what the disk knew before.
func (c *cluster) load() error {
	text, err := readFile(c.n.opt.Disk, stateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read what the disk knows of the others: %w", err)
	}
	var s diskState
	if err := json.Unmarshal(text, &s); err != nil || s.Version != 1 {
		return hub.E(hub.Invalid, "%s does not hold what this hub knows of the others (version %d): restore it, or start with an empty data directory",
			c.n.opt.Disk.Path(stateFile), s.Version)
	}
	c.rec, c.known, c.fresh, c.floor, c.lateSeen = s.List, true, s.Fresh, c.n.minter.Last(), s.LateSeen
	for _, i := range s.List.Streams {
		refused := slices.Contains(s.Refused, i.Stream)
		c.streams[streamOf(i.Stream)] = &peerStream{refused: refused, promised: refused}
		if slices.Contains(s.Complete, i.Stream) {
			st := c.streams[streamOf(i.Stream)]
			st.complete, st.settled = true, true
		}
	}
	for _, l := range s.Lows {
		if st := c.streams[streamOf(l.Stream)]; st != nil {
			st.low, st.kept = l.Low, l.Low
		}
	}
	c.mended = s.Mended
	for _, low := range c.n.store.Lows() {
		if s := c.streams[low.Stream]; s != nil {
			s.low = max(s.low, low.Mark)
		}
	}
	return nil
}

// save makes the state durable, with a list that is not in force here yet, or nil for the one that is. done is called under Node.mu when it is durable,
// before anybody else can save.
func (c *cluster) save(ctx context.Context, list *roster.Roster, done func()) error {
	select {
	case <-c.saving:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { c.saving <- struct{}{} }()
	c.n.mu.Lock()
	c.ill.unsaved = true
	s := diskState{Version: 1, List: c.rec, Fresh: c.fresh, Mended: slices.Clone(c.mended), LateSeen: maps.Clone(c.lateSeen)}
	if list != nil {
		s.List = *list
	}
	var promised []*peerStream
	var lows []hub.Mark // of these
	var complete []*peerStream
	for id, st := range c.streams {
		if st.refused {
			s.Refused = append(s.Refused, recordOf(id))
			promised = append(promised, st)
			lows = append(lows, st.low)
			if !st.complete {
				s.Lows = append(s.Lows, streamLow{recordOf(id), st.low})
			}
		}
		if st.complete {
			s.Complete = append(s.Complete, recordOf(id))
			complete = append(complete, st)
		}
	}
	c.n.mu.Unlock()
	order := func(a, b roster.Stream) int {
		if a.Ordinal != b.Ordinal {
			return int(a.Ordinal) - int(b.Ordinal)
		}
		return int(a.Incarnation) - int(b.Incarnation)
	}
	slices.SortFunc(s.Refused, order)
	slices.SortFunc(s.Lows, func(a, b streamLow) int { return order(a.Stream, b.Stream) })
	slices.SortFunc(s.Complete, order)
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := c.logSynced(ctx); err != nil {
		return err
	}
	if err := replaceFile(c.n.opt.Disk, stateFile, text); err != nil {
		return err
	}
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.ill.unsaved = false
	c.ill.saves++
	for i, st := range promised {
		st.promised, st.kept = true, lows[i]
	}
	for _, st := range complete {
		st.settled = true
	}
	if done != nil {
		done()
	}
	return nil
}

// logSynced makes durable what the state relies on: what lies below the lows of refused streams, and in complete ones.
func (c *cluster) logSynced(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return c.n.store.Sync(ctx)
}
