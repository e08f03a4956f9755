package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// cut makes a fault of rules.
func (s *Stage) cut(kind string, part Part, least, most time.Duration, rules func(rng *rand.Rand) (string, []string)) Fault {
	return Fault{kind, part, least, most, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
		target, lines := rules(rng)
		return target, func() error { return s.Net.Mend(kind) }, s.Net.Cut(kind, lines...)
	}}
}

// both stops everything between two places.
func both(a, b *Place) []string { return []string{Between(a, b), Between(b, a)} }

// Partitions are the faults of the network between the hubs, ZooKeeper and S3. Clients reach every hub all the time: that is what makes a hub that is
// cut off dangerous.
func (s *Stage) Partitions() []Fault {
	hubs, zks := len(s.Hubs), len(s.ZK)
	return []Fault{
		s.cut("isolate", Lines, 2*time.Second, 7*time.Second, func(rng *rand.Rand) (string, []string) {
			i := rng.IntN(hubs)
			rules := []string{ToHere(s.Hub(i), s.S3Port), FromHere(s.Hub(i), s.S3Port)}
			for k, p := range s.Net.Places {
				if k != i {
					rules = append(rules, both(s.Hub(i), p)...)
				}
			}
			return fmt.Sprint("hub ", i, " from everybody"), rules
		}),
		s.cut("halves", Lines, 2*time.Second, 7*time.Second, func(rng *rand.Rand) (string, []string) {
			i, k := rng.IntN(hubs), rng.IntN(zks) // one hub and one server here, the others there
			var rules []string
			for a, p := range s.Net.Places {
				for b, q := range s.Net.Places {
					if here, there := a == i || a == hubs+k, b == i || b == hubs+k; here && !there {
						rules = append(rules, both(p, q)...)
					}
				}
			}
			return fmt.Sprint("hub ", i, " and server ", k, " from the others"), rules
		}),
		s.cut("one-way", Lines, 2*time.Second, 6*time.Second, func(rng *rand.Rand) (string, []string) {
			i := rng.IntN(hubs)
			k := (i + 1 + rng.IntN(hubs-1)) % hubs
			return fmt.Sprint("hub ", i, " to hub ", k), []string{Between(s.Hub(i), s.Hub(k))}
		}),
		s.cut("bridge", Lines, 2*time.Second, 6*time.Second, func(rng *rand.Rand) (string, []string) {
			i := rng.IntN(hubs)
			k := (i + 1) % hubs
			return fmt.Sprint("hub ", i, " and hub ", k, ", both reach the third"), both(s.Hub(i), s.Hub(k))
		}),
		s.cut("peers-apart", Lines, 2*time.Second, 5*time.Second, func(*rand.Rand) (string, []string) {
			var rules []string
			for i := range hubs {
				for k := range i {
					rules = append(rules, both(s.Hub(i), s.Hub(k))...)
				}
			}
			return "all hubs from each other", rules
		}),
		s.cut("no-zookeeper", Lines, 3*time.Second, 7*time.Second, func(rng *rand.Rand) (string, []string) {
			i := rng.IntN(hubs)
			var rules []string
			for k := range zks {
				rules = append(rules, both(s.Hub(i), s.ZooKeeper(k))...)
			}
			return fmt.Sprint("hub ", i, " from ZooKeeper"), rules
		}),
		s.cut("loss", Lines, 3*time.Second, 7*time.Second, func(rng *rand.Rand) (string, []string) {
			share := 0.02 + 0.2*rng.Float64()
			return fmt.Sprintf("%.0f %% of all packets between places", share*100), []string{fmt.Sprintf("FORWARD -m statistic --mode random --probability %.3f -j DROP", share)}
		}),
		s.cut("resets", Lines, time.Second, 4*time.Second, func(rng *rand.Rand) (string, []string) {
			share := 0.01 + 0.05*rng.Float64()
			return fmt.Sprintf("%.0f %% of all packets between places", share*100),
				[]string{fmt.Sprintf("FORWARD -p tcp -m statistic --mode random --probability %.3f -j REJECT --reject-with tcp-reset", share)}
		}),
	}
}
