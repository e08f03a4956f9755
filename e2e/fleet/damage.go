package fleet

import (
	"time"

	"timehub/e2e/sim"
)

// maxFlips is how many places of a disk are damaged at once.
const maxFlips = 4

// flip damages bytes of the log on the disk of a node, which may run or not, if the others have what is there: a bit, or a sector that is empty.
func (w *world) flip(m *machine) {
	logs, err := m.disk.List("spoke")
	if err != nil || !w.spare(m) {
		return
	}
	for range 1 + w.rng.IntN(maxFlips) {
		i := logs[w.rng.IntN(len(logs))]
		if i.Size == 0 {
			continue
		}
		name, at := "spoke/"+i.Name, w.rng.Int64N(i.Size)
		if w.rng.IntN(2) == 0 { // what is new is asked for more often
			at = i.Size - 1 - w.rng.Int64N(min(i.Size, 4096))
		}
		with := make([]byte, 1)
		if w.rng.IntN(4) == 0 {
			at -= at % 512
			with = make([]byte, min(512, i.Size-at))
		} else if with[0], err = m.byteAt(name, at); err != nil {
			continue
		} else {
			with[0] ^= 1 << w.rng.IntN(8)
		}
		if err := m.disk.Damage(name, at, with); err != nil {
			continue
		}
		m.strange++
		w.note("%s: %d bytes of %s at %d of %d are others now", m.ip, len(with), name, at, i.Size)
	}
}

func (m *machine) byteAt(name string, at int64) (byte, error) {
	f, err := m.disk.Open(name, false)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	return b[0], err
}

// rot lets long-term storage give other bytes than it has, until it is well.
func (w *world) rot() {
	s := &sim.StoreTrouble{Flips: w.rng.Float64(), Late: time.Second}
	w.note("bytes of what is read from long-term storage are others: %+v", *s)
	w.rotten.Store(true)
	w.sick.Store(s)
}
