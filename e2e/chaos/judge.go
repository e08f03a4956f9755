package chaos

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
)

// Guard is how far the time of a key may lie from the clock of the test: the greatest distance of clocks that hubs put up with, the half of it by which
// a hub may run ahead for Hub-After, and what telling the time twice costs on a busy machine.
const Guard = 1500 * time.Millisecond

// sent is an item that somebody tried to write.
type sent struct {
	op   *Op
	part int
}

// judge is a verdict in the making.
type judge struct {
	h     *History
	v     *Verdict
	sent  map[string]sent
	final map[string][]Item         // by channel, as the first node has it
	place map[string]map[string]int // by channel and key: the index in final
	acked map[string][]ack          // by channel, in the order of keys
	ids   map[string]bool           // channel and id of all items of final, made when first needed
}

// ack is an item that was acknowledged at an instant.
type ack struct {
	key string
	at  int64
}

// Judge says whether a history keeps what the hub promises (RELIABILITY §2.2). It looks at nothing else.
func Judge(h *History) *Verdict {
	j := &judge{h: h, v: newVerdict(), sent: map[string]sent{}, final: map[string][]Item{}, place: map[string]map[string]int{}, acked: map[string][]ack{}}
	j.collect()
	j.finals()
	j.writes()
	j.bulks()
	for i := range h.Ops {
		switch op := &h.Ops[i]; op.Kind {
		case List:
			j.list(op)
		case Get:
			j.get(op)
		case Stored:
			j.stored(op)
		}
	}
	j.horizons()
	j.risings()
	j.follows()
	j.delivers()
	j.measure()
	return j.v
}

func (j *judge) fail(rule, format string, args ...any) { j.v.fail(rule, fmt.Sprintf(format, args...)) }

// seconds shows an instant of the run as the log does.
func seconds(at int64) string { return fmt.Sprintf("%.3fs", float64(at)/1e9) }

// where says which operation a violation is about.
func (op *Op) where() string {
	return fmt.Sprintf("%s %s of %s at node %d, %s to %s, %s", op.Proc, op.Kind, op.Path, op.Node, seconds(op.Begin), seconds(op.End), op.Result)
}

// collect learns who sent what, and what was acknowledged.
func (j *judge) collect() {
	for i := range j.h.Ops {
		op := &j.h.Ops[i]
		if op.Kind != Post && op.Kind != Bulk {
			continue
		}
		for part, it := range op.Items {
			if _, twice := j.sent[it.ID]; twice {
				j.fail("history", "%s was sent twice", it.ID)
			}
			j.sent[it.ID] = sent{op, part}
			if op.Result == OK {
				j.acked[op.Channel] = append(j.acked[op.Channel], ack{it.Key, op.End})
			}
		}
		if _, ok := j.final[op.Channel]; !ok {
			j.final[op.Channel] = nil
		}
	}
	for _, all := range j.acked {
		slices.SortFunc(all, func(a, b ack) int { return strings.Compare(a.key, b.key) })
	}
}

// finals compares what the nodes have in the end, and takes it as the truth. I1, I2, I3, I5, I7.
func (j *judge) finals() {
	read := map[string]int{}
	for i := range j.h.Ops {
		op := &j.h.Ops[i]
		if op.Kind != Final && op.Kind != Walk || op.Result != OK {
			continue
		}
		read[fmt.Sprint(op.Kind, op.Channel, op.Node)]++
		first, known := j.final[op.Channel]
		if op.Kind == Final && first == nil {
			j.final[op.Channel] = op.Items
			j.truth(op)
			continue
		}
		if !known {
			j.fail("history", "nobody wrote to %s", op.Channel)
		}
		for n := range max(len(first), len(op.Items)) {
			if n >= len(first) || n >= len(op.Items) || first[n].Key != op.Items[n].Key || op.Kind == Final && first[n] != op.Items[n] {
				j.fail("one order", "item %d of %s is %v on the first node, and %v in: %s", n, op.Channel, at(first, n), at(op.Items, n), op.where())
				break
			}
		}
	}
	for channel := range j.final {
		for node := range j.h.Hubs {
			for _, kind := range []Kind{Final, Walk} {
				if read[fmt.Sprint(kind, channel, node)] == 0 {
					j.fail("final read", "%s was not read (%s) from node %d at the end", channel, kind, node)
				}
			}
		}
	}
}

func at(items []Item, n int) Item {
	if n < len(items) {
		return items[n]
	}
	return Item{}
}

// truth checks the list that all others are compared with.
func (j *judge) truth(op *Op) {
	place, ids := make(map[string]int, len(op.Items)), make(map[string]string, len(op.Items))
	j.place[op.Channel] = place
	for n, it := range op.Items {
		if n > 0 && it.Key <= op.Items[n-1].Key {
			j.fail("order", "%s comes after %s in the final list of %s", it.Key, op.Items[n-1].Key, op.Channel)
		}
		place[it.Key] = n
		if other, twice := ids[it.ID]; twice {
			j.fail("doubled", "%s is there as %s and as %s", it.ID, other, it.Key)
		}
		ids[it.ID] = it.Key
		j.known(op, it)
	}
}

// known checks an item whose body was seen against what was sent.
func (j *judge) known(op *Op, it Item) {
	if it.ID == "" {
		return
	}
	s, ok := j.sent[it.ID]
	switch {
	case !ok:
		j.fail("phantom", "%s is %q, which nobody sent: %s", it.Key, it.ID, op.where())
		return
	case s.op.Channel != op.Channel:
		j.fail("phantom", "%s, sent to %s, is in %s: %s", it.ID, s.op.Channel, op.Channel, op.where())
	case s.op.Items[s.part].Sum != it.Sum:
		j.fail("bytes", "%s has other bytes than were sent: %s", it.ID, op.where())
	case s.op.Result == Fail:
		j.fail("refused", "%s was refused with %d %s and is there: %s", it.ID, s.op.Status, s.op.Error, op.where())
	case s.op.Result == OK && s.op.Items[s.part].Key != it.Key:
		j.fail("doubled", "%s was acknowledged as %s, and is there as %s: %s", it.ID, s.op.Items[s.part].Key, it.Key, op.where())
	}
}

// stays checks an item that was seen at any time: it is there in the end, and the same. I1, I2. Only an unstable answer may have shown one that was given
// up later (ENGINE §4); whether it was acknowledged is looked at elsewhere.
func (j *judge) stays(op *Op, it Item) {
	n, ok := j.place[op.Channel][it.Key]
	if !ok && op.Kind == List && !op.Stable {
		return
	}
	if !ok {
		j.fail("lost", "%s was seen and is not there in the end: %s", it.Key, op.where())
		return
	}
	if want := j.final[op.Channel][n]; it.ID != "" && it != want {
		j.fail("bytes", "%s was seen as %s, and is %s in the end: %s", it.Key, it.ID, want.ID, op.where())
	}
}

// writes checks every write. I1, I4.
func (j *judge) writes() {
	for i := range j.h.Ops {
		op := &j.h.Ops[i]
		if op.Kind != Post && op.Kind != Bulk {
			continue
		}
		switch op.Status {
		case 0, 201, 503, 507:
		case 400:
			if op.After == "" {
				j.fail("status", "%d: %s: %s", op.Status, op.where(), op.Error)
			}
		default:
			j.fail("status", "%d: %s: %s", op.Status, op.where(), op.Error)
		}
		if op.Result != OK {
			continue
		}
		for _, it := range op.Items {
			n, ok := j.place[op.Channel][it.Key]
			if !ok {
				j.fail("lost", "%s (%s) was acknowledged and is not there: %s", it.Key, it.ID, op.where())
			} else if got := j.final[op.Channel][n]; got != it {
				j.fail("bytes", "%s was acknowledged as %s, and is %s in the end: %s", it.Key, it.ID, got.ID, op.where())
			}
			j.keyTime(op, it.Key)
		}
	}
}

func (j *judge) keyTime(op *Op, key string) {
	when, err := keyTime(key)
	if err != nil {
		j.fail("key", "%v: %s", err, op.where())
		return
	}
	begin, end := j.h.Start.Add(time.Duration(op.Begin)), j.h.Start.Add(time.Duration(op.End))
	if when.Before(begin.Add(-Guard)) || when.After(end.Add(Guard)) {
		j.fail("key", "%s was given between %v and %v: %s", key, begin.UTC(), end.UTC(), op.where())
	}
}

// bulks: of each request all parts are there, side by side and in order, or none. I11.
func (j *judge) bulks() {
	for channel, items := range j.final {
		for n := 0; n < len(items); n++ {
			s, ok := j.sent[items[n].ID]
			if !ok || s.op.Kind != Bulk || s.op.Channel != channel {
				continue
			}
			parts := s.op.Items
			for k := range parts {
				if got := at(items, n+k); got.ID != parts[k].ID {
					j.fail("bulk", "part %d of %d is %s, followed by %v where part %d has to be: %s", s.part, len(parts), items[n].ID, got, k, s.op.where())
					break
				}
			}
			n += max(0, len(parts)-1-s.part)
		}
	}
}

// list checks an answer that lists items. I2, I5, I6, I8, I10.
func (j *judge) list(op *Op) {
	if op.Status == 500 || op.Status >= 400 && op.Status != 503 && op.Status != 404 {
		j.fail("status", "%d: %s: %s", op.Status, op.where(), op.Error)
	}
	if op.Result != OK {
		return
	}
	j.v.Answers++
	final := j.final[op.Channel]
	has := make(map[string]bool, len(op.Items))
	for n, it := range op.Items {
		if n > 0 && it.Key <= op.Items[n-1].Key {
			j.fail("order", "%s comes after %s: %s", it.Key, op.Items[n-1].Key, op.where())
		}
		if it.Key < op.Lo || op.Hi != "" && it.Key >= op.Hi {
			j.fail("range", "%s is not between %s and %s: %s", it.Key, op.Lo, op.Hi, op.where())
		}
		has[it.Key] = true
		j.known(op, it)
		j.stays(op, it)
	}
	if op.Hi == "" {
		return
	}
	if op.Stable {
		for n := sort.Search(len(final), func(n int) bool { return final[n].Key >= op.Lo }); n < len(final) && final[n].Key < op.Hi; n++ {
			if !has[final[n].Key] {
				j.fail("stable", "%s (%s) is missing in a stable answer that reaches to %s: %s", final[n].Key, final[n].ID, op.Hi, op.where())
			}
		}
		return
	}
	acked := j.acked[op.Channel]
	for n := sort.Search(len(acked), func(n int) bool { return acked[n].key >= op.Lo }); n < len(acked) && acked[n].key < op.Hi && !op.Silent; n++ {
		if acked[n].at < op.Begin && !has[acked[n].key] {
			j.fail("incomplete", "%s was acknowledged at %s and is missing in an answer that claims to be whole: %s", acked[n].key, seconds(acked[n].at), op.where())
		}
	}
}

// get checks the answer to a read of an item that had been acknowledged. I8.
func (j *judge) get(op *Op) {
	switch {
	case op.Result == OK:
		j.v.Answers++
		j.known(op, op.Items[0])
		j.stays(op, op.Items[0])
	case op.Status == 404:
		j.fail("read your write", "%s was acknowledged before, and is 404: %s", op.Items[0].Key, op.where())
	case op.Status != 0 && op.Status != 503:
		j.fail("status", "%d: %s: %s", op.Status, op.where(), op.Error)
	}
}
