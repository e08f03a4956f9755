package chaos

import (
	"slices"
	"sort"
	"strings"
	"time"
)

// horizons: what a node shows as stable never goes back, also across its restarts; who brings a horizon sees at least that. I9.
func (j *judge) horizons() {
	byNode := map[int][]*Op{}
	for i := range j.h.Ops {
		op := &j.h.Ops[i]
		if op.Result != OK || op.Horizon == "" || !op.Stable {
			continue
		}
		if op.Seen > op.Horizon {
			j.fail("horizon", "%s was brought, %s was shown: %s", op.Seen, op.Horizon, op.where())
		}
		byNode[op.Node] = append(byNode[op.Node], op)
	}
	for _, ops := range byNode {
		ended := slices.Clone(ops)
		slices.SortFunc(ended, func(a, b *Op) int { return int(a.End - b.End) })
		slices.SortFunc(ops, func(a, b *Op) int { return int(a.Begin - b.Begin) })
		var highest *Op
		n := 0
		for _, op := range ops {
			for ; n < len(ended) && ended[n].End < op.Begin; n++ {
				if highest == nil || ended[n].Horizon > highest.Horizon {
					highest = ended[n]
				}
			}
			if highest != nil && op.Horizon < highest.Horizon {
				j.fail("horizon", "%s was shown at %s, and then %s: %s", highest.Horizon, seconds(highest.End), op.Horizon, op.where())
			}
		}
	}
}

// risings: the keys of one client after the other rise at each node, and over all nodes if it says what it had. I4.
func (j *judge) risings() {
	last := map[string]string{}
	for i := range j.h.Ops {
		op := &j.h.Ops[i]
		if op.Kind != Post && op.Kind != Bulk || op.Result != OK || len(op.Items) == 0 {
			continue
		}
		who := op.Proc + string(rune('0'+op.Node))
		for n, it := range op.Items {
			before := last[who]
			if n > 0 {
				before = op.Items[n-1].Key
			}
			if it.Key <= max(before, op.After) {
				j.fail("key", "%s was given after %s: %s", it.Key, max(before, op.After), op.where())
			}
		}
		last[who] = op.Items[len(op.Items)-1].Key
	}
}

// stored compares what lies in the bucket. I1, I3.
func (j *judge) stored(op *Op) {
	has := make(map[string]bool, len(op.Items))
	for _, it := range op.Items {
		if has[it.Key] {
			j.fail("doubled", "%s is in the bucket twice: %s", it.Key, op.where())
		}
		has[it.Key] = true
		j.known(op, it)
		j.stays(op, it)
	}
	missing := 0
	for _, it := range j.final[op.Channel] {
		if it.Key < op.Hi && !has[it.Key] {
			if missing++; missing <= 3 {
				j.fail("archive", "%s (%s) is not in the bucket: %s", it.Key, it.ID, op.where())
			}
		}
	}
	j.v.Stored += len(op.Items)
}

// follows: what a client that goes on where it was is sent, over all its connections, is the channel from where it began, each item once and in order. I16.
func (j *judge) follows() {
	got, first := map[string][]Item{}, map[string]*Op{}
	for i := range j.h.Ops {
		op := &j.h.Ops[i]
		if op.Kind != Follow {
			continue
		}
		if first[op.Proc] == nil {
			first[op.Proc] = op
		}
		for _, it := range op.Items {
			j.known(op, it)
		}
		got[op.Proc] = append(got[op.Proc], op.Items...)
	}
	for proc, op := range first {
		final := j.final[op.Channel]
		want := final[sort.Search(len(final), func(n int) bool { return final[n].Key >= op.Lo }):]
		j.v.Followed += len(got[proc])
		for n := range max(len(want), len(got[proc])) {
			if w, g := at(want, n), at(got[proc], n); w.Key != g.Key {
				j.fail("follow", "%s: item %d of %d is %q, sent was %q (%d in all)", proc, n, len(want), w.Key, g.Key, len(got[proc]))
				break
			}
		}
	}
}

// unsaved is how much of what its consumer has taken a webhook may call again when another node goes on with it, or the same one anew: what was taken since its
// place was written last. That is done ten times a second; a node that cannot write stops calling when its lease is lost, a good second later. The rest is for
// a machine that is too busy.
const unsaved = 5 * time.Second

// grace is how long after a fault a webhook may still repeat because of it: leases end, another node takes over, it calls what was in flight.
const grace = 20 * time.Second

// delivers: a webhook is sent every item, the next one when the one before was taken, and again only what was taken last before it broke off. I12, I13, I14, I15.
func (j *judge) delivers() {
	calls := map[string][]*Op{}
	for i := range j.h.Ops {
		if op := &j.h.Ops[i]; op.Kind == Deliver {
			calls[op.Proc] = append(calls[op.Proc], op)
		}
	}
	for proc, ops := range calls {
		channel := ops[0].Channel
		final, place := j.final[channel], j.place[channel]
		slices.SortFunc(ops, func(a, b *Op) int { return int(a.Begin - b.Begin) })
		taken, told := make([]int64, len(final)), make([][]int64, len(final)) // when each was taken first, and when the hub was told so; 0: never
		for _, op := range ops {
			for _, it := range op.Items {
				n, ok := place[it.Key]
				if ok && op.Result == OK && (taken[n] == 0 || op.End < taken[n]) {
					taken[n] = op.End
				}
				if ok && op.Result == OK && !op.Silent {
					told[n] = append(told[n], op.End)
				}
			}
		}
		farthest := newReach(ops, place)
		for _, op := range ops {
			for _, it := range op.Items {
				n, ok := place[it.Key]
				switch {
				case !ok:
					j.fail("phantom", "%s was sent %s, which is not there: %s", proc, it.Key, op.where())
				case n > 0 && (taken[n-1] == 0 || taken[n-1] > op.Begin):
					j.fail("webhook order", "%s was sent %s before it had taken %s: %s", proc, it.Key, final[n-1].Key, op.where())
				case taken[n] != 0 && taken[n] < op.Begin:
					j.v.Again++
					if t := latest(told[n], op.Begin); t != 0 { // what was repeated once, and could not be written down before the next fault, is repeated again
						j.again(proc, it.Key, t, farthest.beyond(n, op.Begin), op)
					}
				}
			}
		}
		for n, t := range taken {
			if t == 0 {
				j.fail("webhook", "%s was never sent %s, item %d of %d", proc, final[n].Key, n, len(final))
				break
			}
			j.v.Delivered++
		}
	}
}

// latest is the last of some instants before one, 0 if there is none.
func latest(all []int64, before int64) (last int64) {
	for _, t := range all {
		if t < before {
			last = max(last, t)
		}
	}
	return last
}

// reach is when which items were called.
type reach struct {
	at     []int64 // when calls began, rising
	places []int   // of their items
}

// newReach reads calls, which are in order.
func newReach(ops []*Op, place map[string]int) (r reach) {
	for _, op := range ops {
		for _, it := range op.Items {
			if n, ok := place[it.Key]; ok {
				r.at, r.places = append(r.at, op.Begin), append(r.places, n)
			}
		}
	}
	return r
}

// beyond is when something that follows an item was called last before an instant: then the calls broke off which are repeated. 0: nothing was.
func (r reach) beyond(n int, before int64) int64 {
	for i := sort.Search(len(r.at), func(i int) bool { return r.at[i] >= before }) - 1; i >= 0; i-- {
		if r.places[i] > n {
			return r.at[i]
		}
	}
	return 0
}

// again: what was taken is sent again only if it was among the last things before the calls broke off at an instant; while a process stands still, nothing is
// written, and nothing is called. And only while something is broken, or shortly after; or if it was taken a moment ago, for on a machine that is too busy
// sessions end without a fault, and another node goes on.
func (j *judge) again(proc, key string, taken, off int64, op *Op) {
	since, reason := off-taken, op.Begin-taken < int64(time.Minute)
	for i := range j.h.Ops {
		f := &j.h.Ops[i]
		if f.Kind != Hurt {
			continue
		}
		reason = reason || f.Begin <= op.Begin && f.End+int64(grace) >= op.Begin
		if strings.HasPrefix(f.Path, "pause ") {
			since -= max(0, min(f.End, off)-max(f.Begin, taken))
		}
	}
	switch {
	case !reason:
		j.fail("webhook again", "%s took %s at %s, and was sent it again without need: %s", proc, key, seconds(taken), op.where())
	case since > int64(unsaved):
		j.fail("webhook again", "%s took %s at %s, went on until %s, and was sent it again: %s", proc, key, seconds(taken), seconds(off), op.where())
	}
}

// measure counts, and looks how long writes took outside of faults. I20 is reported, not judged: this machine does other things too.
func (j *judge) measure() {
	type window struct{ from, to int64 }
	var hurt []window
	for i := range j.h.Ops {
		op := &j.h.Ops[i]
		if op.Kind == Hurt {
			j.v.Faults[strings.Fields(op.Path)[0]]++
			hurt = append(hurt, window{op.Begin, op.End + int64(5*time.Second)})
		}
	}
	calm := func(op *Op) bool {
		return !slices.ContainsFunc(hurt, func(w window) bool { return op.Begin < w.to && w.from < op.End })
	}
	var took, all []int64
	for i := range j.h.Ops {
		op := &j.h.Ops[i]
		if op.Kind != Post && op.Kind != Bulk {
			continue
		}
		n := len(op.Items)
		switch op.Result {
		case OK:
			j.v.Acked += n
			all = append(all, op.End-op.Begin)
			if calm(op) {
				took = append(took, op.End-op.Begin)
			}
		case Unknown:
			j.v.Unknown += n
			for _, it := range op.Items {
				if j.there(op.Channel, it.ID) {
					j.v.UnknownThere++
				}
			}
			fallthrough
		default:
			if op.Result == Fail {
				j.v.Failed += n
			}
			if calm(op) {
				j.v.CalmErrors++
			}
		}
	}
	j.v.CalmWrites = len(took)
	j.v.P50, j.v.P99 = percentile(took, 50), percentile(took, 99)
	j.v.AllP99 = percentile(all, 99)
}

func (j *judge) there(channel, id string) bool {
	if j.ids == nil {
		j.ids = map[string]bool{}
		for name, items := range j.final {
			for _, it := range items {
				j.ids[name+" "+it.ID] = true
			}
		}
	}
	return j.ids[channel+" "+id]
}

func percentile(all []int64, p int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return time.Duration(all[min(len(all)-1, len(all)*p/100)])
}
