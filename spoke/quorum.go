package spoke

// Quorum is the rule by which members of a list acknowledge (ENGINE §4).
type Quorum uint8

// Half asks ⌈n/2⌉ disks, the documented 50 %; Majority asks ⌊n/2⌋+1. For odd n they are the same.
const (
	Half Quorum = iota
	Majority
)

// Write is W: so many disks of a list of n have synced a record before it is committed.
func (q Quorum) Write(n int) int {
	if q == Majority {
		return n/2 + 1
	}
	return (n + 1) / 2
}

// Read is R = n−W+1: so many answers meet every committed record.
func (q Quorum) Read(n int) int { return n - q.Write(n) + 1 }
