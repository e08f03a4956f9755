package spoke

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	spokelog "timehub/spoke/log"
)

// What goes wrong in a simWorld, and what operators do to it.

func (w *simWorld) any() *simNode { return w.nodes[w.rng.IntN(len(w.nodes))] }

// bury notices processes whose disk has killed them in the middle of a call.
func (w *simWorld) bury() {
	for _, n := range w.living() {
		select {
		case <-n.disk.Dead():
			n.end("power")
		default:
		}
	}
}

// startDead starts what does not run, but for nodes that were decommissioned.
func (w *simWorld) startDead(all bool) {
	for _, n := range w.nodes {
		if node, _ := w.current(n); node == nil && !n.out && (all || w.rng.IntN(3) > 0) {
			w.note("%s starts", n.name)
			n.start()
		}
	}
}

// step is one fault, or the end of one, or the work of an operator.
func (w *simWorld) step(members int) {
	n, m := w.any(), w.any()
	kinds := 27
	if w.traits.forced {
		kinds = 33
	}
	if w.traits.damage && w.rng.IntN(6) == 0 {
		w.damage(n)
		return
	}
	switch w.rng.IntN(kinds) {
	case 0:
		n.end("power")
	case 1:
		n.end("kill")
	case 2:
		n.end("stop")
	case 3, 4, 5, 6, 7:
		w.startDead(false)
	case 8:
		w.note("%s does not reach %s", n.name, m.name)
		w.setLink(n, m, false, 0)
	case 9:
		w.note("%s is cut off", n.name)
		for _, m := range w.nodes {
			w.setLink(n, m, false, 0)
			w.setLink(m, n, false, 0)
		}
	case 10, 11, 12:
		w.note("links are mended")
		w.openLinks()
	case 13:
		d := time.Duration(w.rng.IntN(300)) * time.Millisecond
		w.note("%s reaches %s in %v", n.name, m.name, d)
		w.setLink(n, m, true, d)
	case 14:
		if n.gate != nil && !w.traits.forced && w.rng.IntN(3) == 0 {
			w.shut(n)
			return
		}
		if !n.cut {
			w.note("%s loses its session", n.name)
			n.cut = true
			w.store.Cut(n.session)
		}
	case 15, 16:
		w.mend()
	case 17:
		w.lose(n)
	case 18:
		if len(w.nodes) < members {
			w.note("another node joins")
			w.people(w.add())
		}
	case 19:
		w.sink(n)
	case 20:
		w.freezeFor(n)
	case 21:
		w.turnClock(n)
	case 22:
		w.crowdDisk(n)
	case 23:
		if w.traits.damage {
			w.damage(n)
		}
	case 24:
		w.leave(n, m)
	case 25:
		w.recall()
	case 26:
		if w.rng.IntN(4) == 0 {
			w.roll()
		} else {
			w.all()
		}
	case 27, 28:
		w.split()
	case 29, 30, 31, 32:
		w.force(n)
	}
}

// split parts some nodes from the others and from the coordinator; they live on.
func (w *simWorld) split() {
	var off []*simNode
	for _, i := range w.rng.Perm(len(w.nodes))[:len(w.nodes)/2] {
		if node, _ := w.current(w.nodes[i]); node != nil {
			off = append(off, w.nodes[i])
			w.note("%s is cut off with others, if there are any", w.nodes[i].name)
		}
	}
	w.part(off...)
}

// force lets an operator close what others have left open, by fewer than know everything.
func (w *simWorld) force(n *simNode) {
	node, _ := w.current(n)
	if node == nil {
		return
	}
	for _, i := range w.list().Streams {
		if i.Closed == nil && i.Node != n.name {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			err := node.CloseOpen(ctx, i.Stream.String(), true)
			cancel()
			w.note("%s forces a closing of %v: %v", n.name, i.Stream, err)
			if err == nil && w.rng.IntN(2) == 0 {
				return
			}
		}
	}
}

// all is what strikes everybody.
func (w *simWorld) all() {
	if w.rng.IntN(2) == 0 {
		w.note("the coordinator is away")
		for _, n := range w.nodes {
			if node, _ := w.current(n); node != nil && !n.cut {
				n.cut = true
				w.store.Cut(n.session)
			}
		}
		return
	}
	w.note("everybody dies")
	for _, n := range w.nodes {
		n.end("power")
	}
}

// shut lets some calls of a node to the coordinator fail, or hang, although its session lives on.
func (w *simWorld) shut(n *simNode) {
	calls := []string{"get", "set", "update", "end", "acquire"}
	w.rng.Shuffle(len(calls), func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
	calls = calls[:1+w.rng.IntN(3)]
	hangs := w.rng.IntN(2) == 0
	w.note("%s: calls of the coordinator do not get through (they hang: %v): %v", n.name, hangs, calls)
	n.gate.shut(hangs, calls...)
}

func (w *simWorld) mend() {
	w.note("sessions are mended")
	for _, n := range w.nodes {
		if n.gate != nil {
			n.gate.shut(false)
		}
		if node, _ := w.current(n); node != nil && n.cut {
			n.cut = false
			w.store.Mend(n.session)
		}
	}
}

func (w *simWorld) openLinks() {
	for _, n := range w.nodes {
		for _, m := range w.nodes {
			w.setLink(n, m, true, 0)
		}
	}
}

// spare reports whether a node's disk may be lost, or a part of it, without any acknowledged item.
func (w *simWorld) spare(n *simNode) (id string, ok bool) {
	r := w.list()
	d, ok := r.Member(n.name)
	if !ok || r.Next != nil || len(r.Leaving) > 0 { // those who stay may be fewer
		return "", false
	}
	if n.diskID() != d.ID {
		return "", false
	}
	gone := 1
	for _, x := range r.Disks {
		if w.judge.lostDisks[x.ID] && x.ID != d.ID {
			gone++
		}
	}
	return d.ID, gone < r.Rule.Write(len(r.Disks))
}

// diskID is that of the disk of a node, whether it runs or not.
func (n *simNode) diskID() string {
	if node, _ := n.w.current(n); node != nil {
		return node.Identity().ID
	}
	var id Identity
	if text, err := readFile(n.disk, identityFile); err != nil || json.Unmarshal(text, &id) != nil {
		return ""
	}
	return id.ID
}

// lose replaces the disk of a node by an empty one.
func (w *simWorld) lose(n *simNode) {
	id, ok := w.spare(n)
	if !ok || w.traits.forced { // what is outside of the set is on those disks alone that were cut off
		return
	}
	w.judge.lostDisks[id] = true
	w.lost(n)
	w.judge.mu.Lock()
	delete(w.judge.shown, n.name+replica) // a marker that all logs have swept is not copied: that of the next moment is
	w.judge.mu.Unlock()
	w.note("%s lost its disk", n.name)
}

// sink lets calls of a disk fail, or the process die in one.
func (w *simWorld) sink(n *simNode) {
	if node, _ := w.current(n); node == nil {
		return
	}
	what := []string{"spoke/*", "cluster*", "clock", "identity*", "*"}[w.rng.IntN(5)]
	effect := memdisk.Effect(w.rng.IntN(3))
	switch w.rng.IntN(5) {
	case 4:
		ops := []memdisk.Op{memdisk.OpRead, memdisk.OpOpen | memdisk.OpSize | memdisk.OpStat | memdisk.OpList, memdisk.OpCreate, memdisk.OpRename, memdisk.OpRemove, memdisk.OpSyncDir, memdisk.OpTruncate | memdisk.OpClose}
		op := ops[max(0, w.rng.IntN(2*len(ops))-len(ops))]
		k := 1 + w.rng.IntN(8)
		w.note("%s: the next %d calls %v of %s fail", n.name, k, op, what)
		n.disk.Inject(memdisk.Rule{Ops: op, Name: what, Times: k, Fault: memdisk.Fault{Err: errFault}})
	case 3:
		op := []memdisk.Op{memdisk.OpSync, memdisk.OpWrite}[w.rng.IntN(2)]
		d := time.Duration(w.rng.IntN(8000)) * time.Millisecond
		if w.rng.IntN(4) == 0 { // longer than one waits for a disk
			d *= 6
		}
		w.note("%s: the next %v of %s takes %v", n.name, op, what, d)
		n.disk.Inject(memdisk.Rule{Ops: op, Name: what, Times: 1 + w.rng.IntN(2), Fault: memdisk.Fault{Delay: d}})
	case 0:
		w.note("%s: the next syncs of %s fail", n.name, what)
		n.disk.Inject(memdisk.Rule{Ops: memdisk.OpSync, Name: what, Times: 1 + w.rng.IntN(2), Fault: memdisk.Fault{Err: errFault, Effect: effect}})
	case 1:
		w.note("%s: the next writes of %s fail", n.name, what)
		n.disk.Inject(memdisk.Rule{Ops: memdisk.OpWrite, Name: what, Times: 1 + w.rng.IntN(2), Fault: memdisk.Fault{Err: errFault, Effect: effect}})
	case 2:
		k := 1 + w.rng.IntN(40)
		w.note("%s: dies in the call %d", n.name, k)
		n.disk.CrashAt(memdisk.Changes, k, effect)
	}
}

// freezeFor stops a process for a while; if that is long, its session ends.
func (w *simWorld) freezeFor(n *simNode) {
	if node, _ := w.current(n); node == nil {
		return
	}
	d := time.Duration(w.rng.IntN(8000)) * time.Millisecond
	w.note("%s is frozen for %v", n.name, d)
	n.freeze(true)
	time.Sleep(min(d, simSession))
	if d > simSession {
		w.store.Cut(n.session)
		time.Sleep(d - simSession)
		if !n.cut {
			w.store.Mend(n.session)
		}
	}
	n.freeze(false)
	w.note("%s goes on", n.name)
}

// turnClock sets one clock wrong, or right again: never so many that the median is.
func (w *simWorld) turnClock(n *simNode) {
	r := w.list()
	wrong := 0
	for _, m := range w.nodes {
		if abs(time.Duration(m.skew.Load())) > 150*time.Millisecond {
			wrong++
			if m == n {
				wrong = 99
			}
		}
	}
	if wrong >= 99 {
		w.note("the clock of %s is right again", n.name)
		n.setSkew(w.smallSkew())
		return
	}
	// Of the half that closes the rest by force, one wrong clock may be one of two.
	if _, ok := r.Member(n.name); !ok || r.Next != nil || wrong > 0 || len(r.Disks) < 3 || w.misled() || w.traits.forced {
		n.setSkew(w.smallSkew())
		return
	}
	d := []time.Duration{400 * time.Millisecond, 2 * time.Second, 10 * time.Minute, -700 * time.Millisecond, -time.Hour}[w.rng.IntN(5)]
	w.note("the clock of %s is off by %v", n.name, d)
	n.setSkew(d)
}

// misled reports whether a node remembers a wrong clock of one that it does not reach: with its own wrong, too, the median would be.
func (w *simWorld) misled() bool {
	for _, n := range w.living() {
		node, _ := w.current(n)
		node.mu.Lock()
		for _, r := range node.cluster.clocks {
			if off := time.Duration(r.now()-time.Now().UnixMilli()) * time.Millisecond; abs(off) > 300*time.Millisecond {
				node.mu.Unlock()
				return true
			}
		}
		node.mu.Unlock()
	}
	return false
}

func abs(d time.Duration) time.Duration { return max(d, -d) }

// crowdDisk fills a disk, or makes room on it.
func (w *simWorld) crowdDisk(n *simNode) {
	if n.small {
		w.note("there is room again on the disk of %s", n.name)
		n.small = false
		n.disk.SetCapacity(0)
		return
	}
	free, err := n.disk.Free()
	if err != nil {
		return
	}
	n.small = true
	left := []int64{0, 8 << 10, 60 << 10, 120 << 10}[w.rng.IntN(4)]
	w.note("%d bytes are left on the disk of %s", left, n.name)
	n.disk.SetCapacity(1<<40 - free + left)
}

// damage flips bytes of a segment: anywhere in the log of a node that runs, and where one that is down had written down that its log was durable.
func (w *simWorld) damage(n *simNode) {
	id, ok := w.spare(n)
	if !ok {
		return
	}
	entries, err := n.disk.List(spokelog.DefaultDir)
	if err != nil || len(entries) == 0 {
		return
	}
	e := entries[w.rng.IntN(len(entries))]
	name := spokelog.DefaultDir + "/" + e.Name
	info, err := n.disk.Stat(name)
	if err != nil {
		return
	}
	size, end := info.Size, false
	if node, _ := w.current(n); node == nil {
		var b *bound
		if b, _, _, err = openBound(n.disk); err != nil {
			return
		}
		_ = b.file.Close()
		last := fmt.Sprintf("%s/%016x", spokelog.DefaultDir, b.reached.Segment)
		if end = w.rng.IntN(2) == 0; end {
			for _, e := range entries {
				if other := spokelog.DefaultDir + "/" + e.Name; strings.HasPrefix(other, last) {
					name = other
				}
			}
		}
		switch {
		case strings.HasPrefix(name, last):
			size = b.reached.Length
		case end || name > last:
			return
		}
	}
	if size < 200 {
		return
	}
	at := 100 + w.rng.Int64N(size-150)
	if end {
		at = size - 1 - w.rng.Int64N(min(300, size-150))
	}
	f, err := n.disk.Open(name, false)
	if err != nil {
		return
	}
	defer f.Close()
	b := make([]byte, 1+w.rng.IntN(20))
	if w.rng.IntN(4) == 0 { // records, and their index
		b = make([]byte, 1+w.rng.IntN(32<<10))
	}
	k, _ := f.ReadAt(b[:min(int64(len(b)), size-at)], at)
	if k == 0 {
		return
	}
	b = b[:k]
	for i := range b {
		b[i] ^= byte(1 + w.rng.IntN(255))
	}
	if err := n.disk.Damage(name, at, b); err == nil {
		w.judge.lostDisks[id] = true
		w.note("%s: %d bytes at %d of %s are damaged", n.name, len(b), at, name)
	}
}

// leave decommissions a node.
func (w *simWorld) leave(n, by *simNode) {
	node, _ := w.current(by)
	if node == nil || len(w.list().Disks) < 2 || w.traits.forced { // as with a lost disk
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := node.Leave(ctx, n.name)
	if err == nil && len(w.list().Disks) <= 3 { // one of the two that stay, started again while the other one is out of reach, has nothing but its own clock to go by
		for _, m := range w.nodes {
			w.judge.mu.Lock()
			w.judge.wildClock = w.judge.wildClock || abs(time.Duration(m.skew.Load())) > 150*time.Millisecond
			w.judge.mu.Unlock()
		}
	}
	w.note("%s is told by %s to leave: %v", n.name, by.name, err)
}

// recall lets nodes return that have left, some of them with a new disk; others are stopped.
func (w *simWorld) recall() {
	r := w.list()
	for _, n := range w.nodes {
		if !r.Left(n.name) {
			continue
		}
		node, _ := w.current(n)
		if node != nil && w.rng.IntN(2) == 0 {
			n.end("stop")
			node = nil
		}
		if node == nil && w.rng.IntN(2) == 0 {
			w.note("%s gets a new disk", n.name)
			n.disk = w.newDisk(n)
		}
		w.callBack(n)
	}
}

func (w *simWorld) callBack(n *simNode) {
	for _, m := range w.living() {
		node, _ := w.current(m)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := node.Return(ctx, n.name)
		cancel()
		if err == nil {
			w.note("%s is called back", n.name)
			return
		}
	}
}

// roll restarts one node after the other, each when the one before has joined.
func (w *simWorld) roll() {
	w.note("a rolling restart")
	for _, n := range slices.Clone(w.nodes) {
		node, _ := w.current(n)
		if node == nil || w.judge.failed() {
			continue
		}
		n.end("stop")
		w.note("%s starts", n.name)
		n.start()
		if node, _ = w.current(n); node != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			_ = node.Join(ctx)
			cancel()
		}
	}
}

// endFaults takes back all that does not end by itself.
func (w *simWorld) endFaults() {
	w.openLinks()
	for _, n := range w.nodes {
		n.freeze(false)
		n.small = false
		n.disk.SetCapacity(0)
		n.setSkew(time.Duration(n.skew.Load()) % (100 * time.Millisecond))
	}
	w.mend()
}

// heal ends all faults and demands progress and equality; some stay dead, as many as may be.
func (w *simWorld) heal() {
	if w.judge.failed() {
		return
	}
	w.note("faults end")
	w.endFaults()
	r := w.list()
	dead := map[*simNode]bool{}
	if spare := len(r.Disks) - max(r.Rule.Write(len(r.Disks)), r.Rule.Read(len(r.Disks))); r.Next == nil && len(r.Leaving) == 0 && spare > 0 && w.rng.IntN(3) == 0 {
		for _, d := range r.Disks {
			if w.judge.lostDisks[d.ID] {
				spare = 0
			}
		}
		for range spare {
			n := w.any()
			n.end("power")
			dead[n] = true
		}
	}
	began := time.Now()
	moment := hub.KeyAt(began.UnixMilli(), "")
	why := ""
	for i := 0; time.Since(began) < 4*time.Minute; i++ {
		w.bury()
		for _, n := range w.nodes {
			if node, _ := w.current(n); node == nil && !dead[n] {
				w.note("%s starts", n.name)
				n.start()
			}
		}
		if i%10 == 0 {
			r := w.list()
			for _, n := range w.nodes {
				if r.Left(n.name) {
					w.callBack(n)
				}
			}
		}
		time.Sleep(500 * time.Millisecond)
		if w.judge.failed() {
			return
		}
		if why = w.behind(moment); why == "" {
			break
		}
	}
	if why != "" {
		w.judge.fail("%v after the faults: %s\n%s", time.Since(began), why, w.dump())
		return
	}
	w.note("everybody has caught up")
	if w.traits.forced {
		time.Sleep(5 * time.Second) // answers that were on their way have come
		w.named()
	}
	w.alike()
}

// behind says what is not yet as it has to be when all is well.
func (w *simWorld) behind(moment hub.Key) string {
	for _, n := range w.living() {
		node, life := w.current(n)
		for _, ch := range liveChannels {
			page, err := w.stableKeys(node, ch, hub.MinKey)
			if err != nil {
				return fmt.Sprintf("%s answers %v", n.name, err)
			}
			if page.Horizon.Less(moment) {
				return fmt.Sprintf("the horizon of %s stays at %v", n.name, page.Horizon)
			}
			if _, now := w.current(n); now == life {
				w.judge.answer(n.name, ch, page, false)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err := node.Join(ctx)
		cancel()
		if err != nil {
			return fmt.Sprintf("%s takes no writes: %v", n.name, err)
		}
		if _, err := w.stableKeys(node, replica, hub.MinKey); err != nil {
			return fmt.Sprintf("%s answers %v of the replica", n.name, err)
		}
		if at, ok := node.Complete(replica); w.judge.acks(replica) > 0 && (!ok || at.Less(w.judge.highest(replica))) {
			return fmt.Sprintf("the replica on %s is complete up to %v %v only, and was shown up to %v", n.name, at, ok, w.judge.highest(replica))
		}
	}
	if w.traits.forced {
		return w.unnamed()
	}
	return ""
}

// namedLate is what each living node names as late.
func (w *simWorld) namedLate() (lists []map[named]LateItem) {
	for _, n := range w.living() {
		node, _ := w.current(n)
		list := map[named]LateItem{}
		for from := int64(0); ; {
			items, count, next, err := node.Late(from, 7)
			if errors.Is(err, errFault) { // that a disk was to have, and had not yet
				continue
			}
			if err != nil {
				w.judge.fail("%s does not say what is late: %v", n.name, err)
				return nil
			}
			for _, i := range items {
				list[named{i.Channel, i.Key}] = i
			}
			if from = next; next == 0 {
				if count != len(list) {
					w.judge.fail("%s names %d late items and counts %d", n.name, len(list), count)
				}
				break
			}
		}
		lists = append(lists, list)
	}
	return lists
}

// unnamed says what is not yet named everywhere, and there.
func (w *simWorld) unnamed() string {
	living, lists := w.living(), w.namedLate()
	for i, list := range lists {
		for j, other := range lists {
			for k := range other {
				if _, ok := list[k]; !ok {
					return fmt.Sprintf("%s does not name %v as late, which %s does", living[i].name, k, living[j].name)
				}
			}
		}
		if why := w.lacks(living[i], list); why != "" {
			return why
		}
	}
	return ""
}

// lacks says which late item a node does not show.
func (w *simWorld) lacks(n *simNode, late map[named]LateItem) string {
	if len(late) == 0 {
		return ""
	}
	node, _ := w.current(n)
	for _, ch := range liveChannels {
		page, err := w.stableKeys(node, ch, hub.MinKey)
		if err != nil {
			return fmt.Sprintf("%s answers %v", n.name, err)
		}
		for k := range late {
			if key, err := hub.ParseKey(k.Key); k.Channel == ch && (err != nil || !page.Horizon.Less(key) && !has(page.Keys, key)) {
				return fmt.Sprintf("%s does not show the late item %v: %v", n.name, k, err)
			}
		}
	}
	return ""
}

// named demands that all in which answers differed is named, by everybody, and nothing else; from now on they may not differ.
func (w *simWorld) named() {
	if why := w.unnamed(); why != "" {
		w.judge.fail("%s, long after the faults", why)
		return
	}
	for _, list := range w.namedLate() {
		w.judge.named(list)
	}
}

// alike demands that all nodes hold the same, byte by byte.
func (w *simWorld) alike() {
	for _, ch := range append([]string{replica}, liveChannels...) {
		sums := map[time.Time]spokelog.Digest{}
		for _, n := range w.living() {
			node, life := w.current(n)
			page, err := w.stableKeys(node, ch, hub.MinKey)
			if err == nil {
				w.judge.answer(n.name, ch, page, false)
				w.judge.complete(n.name, ch, page)
			}
			w.judge.bytes(node, ch)
			for range 30 {
				if k, ok := w.judge.someAcked(ch, w.rng); ok {
					w.readItem(n, node, life, ch, k, nil)
				}
			}
			// Minutes that nothing is written to any more, and of which nothing was swept anywhere.
			for at := w.judge.began.Truncate(time.Minute); at.Add(time.Minute).Before(time.Now().Add(-5 * time.Second)); at = at.Add(time.Minute) {
				count, sum, err := node.Minute(context.Background(), ch, at)
				if floor := node.Floor(ch); err != nil || hub.First(at).Less(floor) {
					continue
				}
				d := spokelog.Digest{Count: count, Sum: sum}
				if other, ok := sums[at]; ok && other != d {
					w.judge.fail("the minute %v of %s is %v on %s and %v elsewhere", at, ch, d, n.name, other)
				}
				sums[at] = d
			}
		}
	}
}

// dump is what the nodes know.
func (w *simWorld) dump() string {
	s := ""
	rec, _ := w.list().Encode()
	s += "list " + string(rec) + "\n"
	for _, n := range w.nodes {
		node, _ := w.current(n)
		if node == nil {
			s += n.name + " is dead\n"
			continue
		}
		s += n.name + " " + node.cluster.dump()
	}
	return s
}

func (c *cluster) dump() string {
	n := c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	h, ok := c.horizon()
	s := fmt.Sprintf("disk %s %d.%d: open %v own %v fresh %v floor %v horizon %v %v pos %d own %d quorum %d epoch %d flight %d refusing %v\n", n.identity.ID[:6], n.stream.Ordinal,
		n.identity.Incarnation, c.open, recordOf(n.stream), c.fresh, c.floor.Key(), h.Key(), ok, c.pos, c.ownPos, c.quorum, c.rec.Epoch, len(n.flight.queue)-n.flight.head, n.store.Status().Refusing)
	var ids []spokelog.Stream
	for id := range c.streams {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b spokelog.Stream) int {
		return int(a.Ordinal)*1000 + int(a.Incarnation) - int(b.Ordinal)*1000 - int(b.Incarnation)
	})
	for _, id := range ids {
		if st := c.streams[id]; !st.complete {
			s += fmt.Sprintf("   %v low %v refused %v outstanding %d in %v\n", recordOf(id), st.low.Key(), st.refused, st.outstanding, st.in != nil)
		}
	}
	for t := range c.tails {
		s += fmt.Sprintf("   tail %s pos %d queue %d broken %v acked %d\n", t.disk[:6], t.pos, len(t.queue), t.broken, c.acked[t.disk])
	}
	return s
}
