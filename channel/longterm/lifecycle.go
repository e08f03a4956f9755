package longterm

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
)

const (
	ruleOwner = "HUB_" // how the names of the hub's rules begin (spec 04 §6.2)
	allRules  = 990    // more than these S3 does not take beside a few of others

	// Of the rules that are allowed this part is planned for, since names do not fall into shards evenly: 0.8.
	shardNumerator, shardDenominator = 4, 5
	shardDays                        = 2 // how long a shard's rules are in force before the next one's
)

// Expires reports whether the bucket removes objects by age on its own.
func (s *Store) Expires() bool {
	_, ok := s.bucket.(bucket.Expirer)
	return ok
}

// SetRules gives the bucket the lifecycle rules of all channels (see Rules), unless their digest is last, and returns the digest of what is in force. Rules of
// others stay. Unsupported: the store has none.
func (s *Store) SetRules(ctx context.Context, all []*hub.Channel, limit int, now time.Time, last string) (digest string, n int, err error) {
	e, ok := s.bucket.(bucket.Expirer)
	if !ok {
		return last, 0, hub.E(hub.Unsupported, "this long-term storage knows no lifecycle rules")
	}
	rules := Rules(all, limit, now)
	sum := fnv.New128a()
	for _, r := range rules {
		fmt.Fprintf(sum, "%s %s %d\n", r.ID, r.Prefix, r.Days)
	}
	digest = fmt.Sprintf("%x", sum.Sum(nil))
	if digest == last {
		return digest, len(rules), nil
	}
	if err := e.SetRules(ctx, ruleOwner, rules); err != nil {
		return last, 0, fmt.Errorf("set the lifecycle rules of long-term storage: %w", err)
	}
	return digest, len(rules), nil
}

// Rules are the lifecycle rules of channels with ttlDays (spec 04 §6.2), at most limit of them, sorted by name. Their prefixes match nothing but a channel's own
// names: its keys begin with the 2 of their year. A body may be a day older than its item, and goes a day later. When there are more than limit, the
// channels are divided by the digests of their names, and each part has its turn for two days; what that leaves behind is removed by the retention, as is
// everything else that rules cannot know (maxItems, items that were written long after their time).
func Rules(all []*hub.Channel, limit int, now time.Time) []bucket.Rule {
	limit = min(limit, allRules)
	if limit <= 0 {
		return nil
	}
	var rules []bucket.Rule
	total := 0
	for _, ch := range all {
		total += len(rulesOf(ch))
	}
	shards := 1
	if total > limit {
		shards = (total*shardDenominator + limit*shardNumerator - 1) / (limit * shardNumerator)
	}
	turn := (now.UTC().YearDay() / shardDays) % shards
	for _, ch := range all {
		sum := fnv.New32a()
		_, _ = sum.Write([]byte(ch.Name))
		if int(sum.Sum32()%uint32(shards)) == turn {
			rules = append(rules, rulesOf(ch)...)
		}
	}
	slices.SortFunc(rules, func(a, b bucket.Rule) int { return cmp.Compare(a.ID, b.ID) })
	return rules[:min(len(rules), limit)]
}

func rulesOf(ch *hub.Channel) (rules []bucket.Rule) {
	if ch.TTLDays <= 0 || ch.KeepForever || ch.Historical() {
		return nil
	}
	days := int(min(ch.TTLDays, 1<<20))
	add := func(prefix, rest string, days int) {
		rules = append(rules, bucket.Rule{ID: ruleOwner + prefix + rest, Prefix: prefix + rest, Days: days})
	}
	if ch.Storage.Singles() || ch.Mixed {
		add(singleRoot(ch), "2", days)
	}
	if ch.Storage.Batches() || ch.Mixed {
		add(zipRoot(ch), "", days)
		add(indexRoot(ch), "", days)
	}
	add(largeRoot(ch), "", days+1)
	return rules
}
