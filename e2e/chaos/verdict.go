package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// keep is how many violations of one rule are told.
const keep = 10

// Verdict is what the judge found.
type Verdict struct {
	Broken map[string]int // violations, by rule
	Texts  []string       // the first ones of each rule

	Acked, Unknown, UnknownThere, Failed int            // items: acknowledged; nobody knew, and how many of these are there; refused
	Answers                              int            // of readers, judged
	Followed, Delivered, Again, Stored   int            // items that came by sockets and streams; by webhooks, and once more; that lie in the bucket
	Faults                               map[string]int // by kind
	CalmWrites, CalmErrors               int            // writes outside of faults: acknowledged, and not
	P50, P99                             time.Duration  // of these
	AllP99                               time.Duration  // of all that were acknowledged
}

func newVerdict() *Verdict { return &Verdict{Broken: map[string]int{}, Faults: map[string]int{}} }

func (v *Verdict) fail(rule, text string) {
	v.Broken[rule]++
	if v.Broken[rule] <= keep {
		v.Texts = append(v.Texts, rule+": "+text)
	}
}

// Good reports whether no rule was broken.
func (v *Verdict) Good() bool { return len(v.Broken) == 0 }

// FaultCount is how many faults there were.
func (v *Verdict) FaultCount() int {
	n := 0
	for _, k := range v.Faults {
		n += k
	}
	return n
}

// String is the report.
func (v *Verdict) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "writes: %d items acknowledged, %d unknown (%d of them are there), %d refused\n", v.Acked, v.Unknown, v.UnknownThere, v.Failed)
	fmt.Fprintf(&b, "reads: %d answers judged; %d items by sockets, events and long-polls; %d by webhooks, %d times again; %d in the bucket\n",
		v.Answers, v.Followed, v.Delivered, v.Again, v.Stored)
	fmt.Fprintf(&b, "faults: %d of %d kinds:", v.FaultCount(), len(v.Faults))
	for _, kind := range slices.Sorted(maps.Keys(v.Faults)) {
		fmt.Fprintf(&b, " %s %d", kind, v.Faults[kind])
	}
	fmt.Fprintf(&b, "\nwrite requests outside of faults: %d acknowledged, p50 %v, p99 %v, %d not acknowledged; p99 of all that were acknowledged %v\n",
		v.CalmWrites, v.P50.Round(time.Microsecond), v.P99.Round(time.Microsecond), v.CalmErrors, v.AllP99.Round(time.Microsecond))
	fmt.Fprintf(&b, "lost %d, doubled %d, out of order %d, all violations: %v", v.Broken["lost"], v.Broken["doubled"],
		v.Broken["order"]+v.Broken["one order"]+v.Broken["webhook order"], v.Broken)
	for _, s := range v.Texts {
		b.WriteString("\n  " + s)
	}
	return b.String()
}
