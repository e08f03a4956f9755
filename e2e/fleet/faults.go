package fleet

import (
	"io"
	"math"
	"time"

	"timehub/e2e/memdisk"
	"timehub/e2e/memnet"
)

func (w *world) any() *machine { return w.machines[w.rng.IntN(len(w.machines))] }

func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(d))) }

// step is one fault, or the end of one.
func (w *world) step() {
	m, o := w.any(), w.any()
	switch w.rng.IntN(22) {
	case 0:
		m.kill(memdisk.PowerCut)
	case 1:
		m.kill(memdisk.ProcessKill)
	case 2:
		m.stop()
	case 3, 4, 5, 6, 7:
		for _, m := range w.machines {
			if p, _ := m.current(); p == nil && !m.left && w.rng.IntN(3) > 0 {
				m.start()
			}
		}
	case 8:
		w.ledger.Note("%s does not reach %s", m.ip, o.ip)
		w.line(m, o, memnet.Line{Cut: true})
	case 9:
		w.ledger.Note("%s is cut off from the others", m.ip)
		for _, o := range w.machines {
			w.line(m, o, memnet.Line{Cut: true})
			w.line(o, m, memnet.Line{Cut: true})
		}
	case 10, 11:
		w.ledger.Note("lines are mended")
		w.mendLines()
	case 12:
		d := w.upTo(300 * time.Millisecond)
		w.ledger.Note("%s reaches %s in %v", m.ip, o.ip, d)
		w.line(m, o, memnet.Line{Delay: d})
	case 13:
		if p, _ := m.current(); p != nil {
			w.ledger.Note("%s loses its session", m.ip)
			w.store.Cut(p.seat.Coordinator)
		}
	case 14, 15:
		w.comeBack()
		w.deaf.Store(0)
	case 16:
		w.goAway()
	case 17:
		d := w.upTo(30*time.Second) - 15*time.Second
		if w.rng.IntN(3) > 0 {
			d /= 50
		}
		w.ledger.Note("the clock of %s is off by %v", m.ip, d)
		m.skew.Store(int64(d))
	case 18:
		w.troubleBucket()
	case 19:
		w.sick.Store(nil)
		w.ledger.Note("long-term storage is well")
	case 20:
		w.troubleDisk(m)
	case 21:
		w.rare()
	}
}

// rare are faults of everything at once.
func (w *world) rare() {
	switch w.rng.IntN(3) {
	case 0:
		w.ledger.Note("everybody dies")
		for _, m := range w.machines {
			m.kill(memdisk.PowerCut)
		}
	case 1:
		p := w.rng.Float64() * 0.5
		w.ledger.Note("the coordinator is deaf, %.2f", p)
		w.deaf.Store(math.Float64bits(p))
	case 2:
		for _, m := range w.machines {
			m.skew.Store(0)
		}
		w.ledger.Note("all clocks are right")
	}
}

func (w *world) line(a, b *machine, l memnet.Line) {
	if a != b {
		w.wire.SetLine(a.ip, b.ip, l)
	}
}

func (w *world) mendLines() {
	for _, a := range w.machines {
		for _, b := range w.machines {
			w.line(a, b, memnet.Line{})
		}
	}
}

func (w *world) troubleBucket() {
	s := &sickness{before: w.rng.Float64() * w.rng.Float64(), after: w.rng.Float64() * w.rng.Float64(), late: w.upTo(8 * time.Second)}
	if w.rng.IntN(3) == 0 {
		s.before = 1
	}
	w.ledger.Note("long-term storage is sick: %+v", *s)
	w.sick.Store(s)
}

// troubleDisk lets the next syncs or writes fail, of the log or of what is beside it.
func (w *world) troubleDisk(m *machine) {
	p, _ := m.current()
	if p == nil {
		return
	}
	name := []string{"spoke/*", "spoke/*", "cluster*", "clock", "*"}[w.rng.IntN(5)]
	ops := []memdisk.Op{memdisk.OpSync, memdisk.OpSync, memdisk.OpWrite, memdisk.OpWrite | memdisk.OpSync}[w.rng.IntN(4)]
	r := memdisk.Rule{Ops: ops, Name: name, Times: 1 + w.rng.IntN(3), Fault: memdisk.Fault{Err: io.ErrShortWrite, Effect: memdisk.Effect(w.rng.IntN(3))}}
	if w.rng.IntN(3) == 0 {
		r.Fault = memdisk.Fault{Delay: w.upTo(4 * time.Second)}
	}
	w.ledger.Note("%s: the next %d of %v of %q: %v, effect %d, delay %v", m.ip, r.Times, r.Ops, r.Name, r.Fault.Err, r.Fault.Effect, r.Fault.Delay)
	m.strange++
	p.disk.Inject(r)
}
