package metrics

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range Table() {
		if d.Name == "" || !strings.HasSuffix(d.Help, ".") || seen[d.Name] {
			t.Errorf("%q: every metric has one name, declared once, and one sentence", d.Name)
		}
		seen[d.Name] = true
		if got := Lookup(d.Name, d.Type, "", d.Tags); got.Help != d.Help || got.Statsd != d.Statsd {
			t.Errorf("Lookup(%q) = %+v", d.Name, got)
		}
	}
	if got := Lookup("other", GaugeType, "A sentence.", nil); got.Statsd || got.Help != "A sentence." {
		t.Errorf("a name outside the table: %+v", got)
	}
}

// note is a registry that writes down what it is told.
type note struct {
	log  *[]string
	name string
}

func (n note) Counter(name, _ string, _ ...string) Counter { return noteC{note{n.log, n.name + name}} }
func (n note) Gauge(name, _ string, _ ...string) Gauge     { return noteG{note{n.log, n.name + name}} }
func (n note) Timing(name, _ string, _ ...string) Timing   { return noteT{note{n.log, n.name + name}} }
func (n note) put(v any)                                   { *n.log = append(*n.log, fmt.Sprintf("%s=%v", n.name, v)) }
func (n note) with(v []string) note                        { return note{n.log, n.name + fmt.Sprint(v)} }

type (
	noteC struct{ note }
	noteG struct{ note }
	noteT struct{ note }
)

func (n noteC) Add(v int64)              { n.put(v) }
func (n noteC) With(v ...string) Counter { return noteC{n.with(v)} }
func (n noteG) Set(v float64)            { n.put(v) }
func (n noteG) With(v ...string) Gauge   { return noteG{n.with(v)} }
func (n noteT) Observe(d time.Duration)  { n.put(d) }
func (n noteT) With(v ...string) Timing  { return noteT{n.with(v)} }

func TestFanout(t *testing.T) {
	var log []string
	a, b := note{&log, "a."}, note{&log, "b."}
	r := Fanout(nil, a, Discard, b)
	r.Counter("c", "").With("x").Add(2)
	r.Gauge("g", "").With("y").Set(1.5)
	r.Timing("t", "").With("z").Observe(time.Second)
	want := "a.c[x]=2 b.c[x]=2 a.g[y]=1.5 b.g[y]=1.5 a.t[z]=1s b.t[z]=1s"
	if got := strings.Join(log, " "); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if Fanout() != Discard || Fanout(nil, Discard) != Discard || OrDiscard(nil) != Discard {
		t.Error("nothing to fan out to is Discard")
	}
	if Fanout(a) != Registry(a) {
		t.Error("one registry needs no fan-out")
	}
	Discard.Counter("c", "").With("x").Add(1)
	Discard.Gauge("g", "").With("x").Set(1)
	Discard.Timing("t", "").With("x").Observe(1)
}
