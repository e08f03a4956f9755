package longterm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/bucket/mem"
	"timehub/hub/disk"
	"timehub/hub/seal"
)

// TestRules: a rule matches the names of its channel and nothing else, whatever the others are called.
func TestRules(t *testing.T) {
	key, err := hub.ParseKey("2026/11/21/10/11/12/131/abcdef")
	if err != nil {
		t.Fatal(err)
	}
	all := []*hub.Channel{
		{Name: "orders", Storage: hub.Both, TTLDays: 3},
		{Name: "ordersBatch", Storage: hub.Both, TTLDays: 4},
		{Name: "zips", Storage: hub.Batch, TTLDays: 5},
		{Name: "singles", Storage: hub.Single, TTLDays: 6},
		{Name: "kept", Storage: hub.Both, TTLDays: 9, KeepForever: true},
		{Name: "counted", Storage: hub.Both, MaxItems: 9},
		{Name: "old", Storage: hub.Both, TTLDays: 9, MutableTime: key.Time()},
		{Name: "mixed", Storage: hub.Single, Mixed: true, TTLDays: 7},
	}
	rules := Rules(all, 990, key.Time())
	days := func(name string) (d []int) {
		for _, r := range rules {
			if strings.HasPrefix(name, r.Prefix) {
				d = append(d, r.Days)
			}
		}
		return d
	}
	minute := key.Time().Truncate(time.Minute)
	for _, ch := range all {
		ttl := int(ch.TTLDays)
		if ch.KeepForever || ch.Historical() {
			ttl = 0
		}
		for name, want := range map[string]int{
			largeName(ch, key): ttl + 1, singleName(ch, key): ttl, zipName(ch, minute): ttl, indexName(ch, minute): ttl,
		} {
			expires := ttl > 0 && (name == largeName(ch, key) || ch.Mixed || strings.Contains(name, "Batch/i") && ch.Storage.Batches() || strings.Contains(name, "/2026/11/21/10/11/12") && ch.Storage.Singles())
			if have := days(name); expires != (len(have) == 1) || expires && have[0] != want {
				t.Errorf("%s expires after %v days, want %d (%v)", name, have, want, expires)
			}
		}
	}
	if have := days(".hub/channels/orders"); have != nil {
		t.Errorf("a document of the hub's expires after %v days", have)
	}
	if !slices.IsSortedFunc(rules, func(a, b bucket.Rule) int { return strings.Compare(a.ID, b.ID) }) {
		t.Error("the rules are in no order")
	}
	ids := map[string]bool{}
	for _, r := range rules {
		if ids[r.ID] || !strings.HasPrefix(r.ID, "HUB_") || len(r.ID) > 255 {
			t.Errorf("the name %q", r.ID)
		}
		ids[r.ID] = true
	}
	for _, limit := range []int{0, -1} {
		if n := len(Rules(all, limit, key.Time())); n != 0 {
			t.Errorf("%d rules where none are allowed", n)
		}
	}
}

// TestRuleShards: with more rules than allowed every channel has its turn, and there are never more.
func TestRuleShards(t *testing.T) {
	var all []*hub.Channel
	for i := range 300 {
		all = append(all, &hub.Channel{Name: fmt.Sprint("c", i), Storage: hub.Batch, TTLDays: 3})
	}
	had := map[string]bool{}
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for day := range 60 {
		rules := Rules(all, 100, begin.AddDate(0, 0, day))
		if len(rules) > 100 || len(rules) < 20 {
			t.Fatalf("day %d: %d rules", day, len(rules))
		}
		for _, r := range rules {
			had[r.ID] = true
		}
	}
	if len(had) != 900 {
		t.Errorf("%d of 900 rules have had their turn", len(had))
	}
	if n := len(Rules(all, 990, begin)); n != 900 {
		t.Errorf("%d rules where 900 are not too many", n)
	}
}

// expirer is a bucket that notes what it is told.
type expirer struct {
	bucket.Bucket
	calls int
	rules []bucket.Rule
	err   error
}

func (e *expirer) SetRules(_ context.Context, owner string, rules []bucket.Rule) error {
	e.calls++
	if e.err == nil {
		e.rules = rules
	}
	return e.err
}

// TestSetRules: the same rules are not set twice, and what could not be set counts as not set.
func TestSetRules(t *testing.T) {
	d, err := disk.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	open := func(b bucket.Bucket) *Store {
		s, err := New(Options{Bucket: b, Sealer: seal.New(seal.Options{}), Temp: d})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	plain := open(mem.New(mem.Options{}))
	if plain.Expires() {
		t.Error("a bucket without rules has some")
	}
	if _, _, err := plain.SetRules(t.Context(), nil, 9, time.Now(), ""); !hub.Is(err, hub.Unsupported) {
		t.Error(err)
	}
	e := &expirer{Bucket: mem.New(mem.Options{})}
	s := open(e)
	if !s.Expires() {
		t.Error("a bucket with rules has none")
	}
	all := []*hub.Channel{{Name: "c", Storage: hub.Single, TTLDays: 3}}
	last := ""
	set := func(want int) {
		t.Helper()
		var err error
		if last, _, err = s.SetRules(t.Context(), all, 990, time.Now(), last); err != e.err && !hub.Is(err, hub.Unavailable) || e.calls != want {
			t.Errorf("%d calls, want %d: %v", e.calls, want, err)
		}
	}
	set(1)
	set(1)
	all[0] = &hub.Channel{Name: "c", Storage: hub.Single, TTLDays: 4}
	e.err = hub.E(hub.Unavailable, "away")
	set(2)
	e.err = nil
	set(3)
	set(3)
	if len(e.rules) != 2 || e.rules[0].Days != 4 && e.rules[1].Days != 4 {
		t.Errorf("%v", e.rules)
	}
}
