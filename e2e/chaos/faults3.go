package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"timehub/e2e/faultproxy"
)

// spoil makes a fault of what the proxy before the S3 server does.
func (s *Stage) spoil(kind string, least, most time.Duration, faults func(rng *rand.Rand) faultproxy.Fault) Fault {
	return Fault{kind, Bucket, least, most, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
		f := faults(rng)
		s.Proxy.Set(f)
		return fmt.Sprintf("%.0f %% of the requests to S3", f.Chance*100), func() error { s.Proxy.Set(); return nil }, nil
	}}
}

// Store are the faults of S3: it is cut off, gone, wrong, slow, and silent about what it did.
func (s *Stage) Store() []Fault {
	share := func(rng *rand.Rand) float64 { return 0.2 + 0.6*rng.Float64() }
	return []Fault{
		s.cut("s3-cut", Bucket, 2*time.Second, 8*time.Second, func(*rand.Rand) (string, []string) {
			var rules []string
			for i := range s.Hubs {
				rules = append(rules, ToHere(s.Hub(i), s.S3Port))
			}
			return "all hubs from S3", rules
		}),
		{"s3-gone", Bucket, 2 * time.Second, 8 * time.Second, func(context.Context, *rand.Rand) (string, Heal, error) {
			s.S3.Kill()
			return "the S3 server", func() error { s.S3.Run(s.t); return nil }, nil
		}},
		s.spoil("s3-500", 2*time.Second, 6*time.Second, func(rng *rand.Rand) faultproxy.Fault {
			return faultproxy.Fault{Kind: faultproxy.Status, Code: 500, Chance: share(rng)}
		}),
		s.spoil("s3-503", 2*time.Second, 6*time.Second, func(rng *rand.Rand) faultproxy.Fault {
			return faultproxy.Fault{Kind: faultproxy.Status, Code: 503, Chance: share(rng)}
		}),
		s.spoil("s3-slow", 2*time.Second, 6*time.Second, func(rng *rand.Rand) faultproxy.Fault {
			return faultproxy.Fault{Kind: faultproxy.Delay, For: time.Second + time.Duration(rng.IntN(2000))*time.Millisecond, Chance: share(rng)}
		}),
		s.spoil("s3-lost", 2*time.Second, 6*time.Second, func(rng *rand.Rand) faultproxy.Fault {
			return faultproxy.Fault{Kind: faultproxy.Lost, Chance: share(rng)}
		}),
		s.spoil("s3-hang", 2*time.Second, 6*time.Second, func(rng *rand.Rand) faultproxy.Fault {
			return faultproxy.Fault{Kind: faultproxy.Hang, Chance: share(rng)}
		}),
		s.spoil("s3-cuts", 2*time.Second, 6*time.Second, func(rng *rand.Rand) faultproxy.Fault {
			return faultproxy.Fault{Kind: faultproxy.Cut, Chance: share(rng)}
		}),
	}
}
