package archive

import (
	"math/rand/v2"
	"time"
)

// around is d, give or take a quarter.
func around(d time.Duration) time.Duration {
	if d < 4 {
		return d
	}
	return d*3/4 + rand.N(d/2)
}
