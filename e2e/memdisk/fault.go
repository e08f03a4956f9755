package memdisk

import (
	"io/fs"
	"path"
	"time"
)

// Op is a kind of call, or a set of kinds.
type Op uint32

// The kinds. MkdirAll is one Mkdir for each folder that it makes and one SyncDir for each parent that needs it; RemoveAll is one Remove for each name that
// it removes. So a process can die in the middle of both.
const (
	OpCreate Op = 1 << iota
	OpOpen
	OpRename
	OpLink
	OpRemove
	OpMkdir
	OpSyncDir
	OpList
	OpStat
	OpLock
	OpFree
	OpRead
	OpWrite // Write and WriteAt
	OpSync
	OpTruncate
	OpSize
	OpClose
	OpUnlock
	opEnd

	// Changes are the kinds after which a power cut can find something else than before: crash points that differ.
	Changes = OpCreate | OpRename | OpLink | OpRemove | OpMkdir | OpSyncDir | OpLock | OpWrite | OpSync | OpTruncate | OpUnlock
	// Any is every kind.
	Any = opEnd - 1
)

const opCount = 18

var opNames = [opCount]string{
	"create", "open", "rename", "link", "remove", "mkdir", "syncdir", "list", "stat", "lock", "free", "read", "write", "sync", "truncate", "size",
	"close", "unlock",
}

func (o Op) String() string {
	s := ""
	for i, name := range opNames {
		if o&(1<<i) != 0 {
			if s != "" {
				s += "|"
			}
			s += name
		}
	}
	return s
}

func (o Op) index() int {
	for i := range opCount {
		if o == 1<<i {
			return i
		}
	}
	panic("memdisk: not a single kind of call")
}

// Call is what a Hook is told of a call.
type Call struct {
	Op     Op
	Name   string // of the file when it was opened; the new name of a Rename or Link
	Offset int64  // of a read, a write, or the size of a truncation
	Size   int    // of a read or a write
	N      int64  // the how manyth call of its kind in this generation this is, from 1
}

// Effect says how much of a failing call happens all the same.
type Effect int

const (
	// None: nothing happens. Of a Sync: nothing reaches the medium, and never will (see Fault).
	None Effect = iota
	// All: everything happens, and then the call fails.
	All
	// Part: of a Write a prefix; of a Sync any subset of the sectors; of anything else, nothing or all. The disk's seed decides.
	Part
)

// Fault is what goes wrong with a call. The zero value is nothing.
//
// After a Sync that failed by Err, the pages count as written: the file reads as before (with Part, perhaps as it is on the medium), a later Sync does not
// write them again, unless they are written to again, and a power cut finds what the effect put on the medium. The same goes for SyncDir and names.
type Fault struct {
	Delay  time.Duration // first; a Kill ends the wait
	Err    error         // the call fails with it in the chain
	Effect Effect        // with Err or Crash
	Crash  bool          // the generation is killed at this call, before, after or within its effect; the call returns ErrKilled
}

func (f Fault) zero() bool { return f.Delay == 0 && f.Err == nil && !f.Crash }

// Rule arms a fault for calls that match.
type Rule struct {
	Ops   Op     // 0: any
	Name  string // a pattern of path.Match for the whole name, where "*" matches no slash; "": any name
	Skip  int    // so many matching calls pass first
	Times int    // then so many fail; 0: all that follow
	Fault Fault
}

type rule struct {
	Rule
	seen int
}

// Inject arms a rule; remove takes it back. Of several rules that match a call, the one armed first that is due strikes; those after it do not
// count the call. A pattern that path.Match does not take matches nothing.
func (d *Disk) Inject(r Rule) (remove func()) {
	if r.Ops == 0 {
		r.Ops = Any
	}
	armed := &rule{Rule: r}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rules = append(d.rules, armed)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		for i, x := range d.rules {
			if x == armed {
				d.rules = append(d.rules[:i:i], d.rules[i+1:]...)
				return
			}
		}
	}
}

// CrashAt kills the generation at the k-th call from now of the given kinds, counted from 1: before its effect (None), after it (All), or within (Part).
// Run once and read Calls(Changes) to know how many there are; then crash at each.
func (d *Disk) CrashAt(ops Op, k int, effect Effect) (remove func()) {
	return d.Inject(Rule{Ops: ops, Skip: k - 1, Times: 1, Fault: Fault{Crash: true, Effect: effect}})
}

// Calls is how many calls of the given kinds this generation has seen, failed ones too.
func (d *Disk) Calls(ops Op) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	var n int64
	for i, c := range d.counts {
		if ops&(1<<i) != 0 {
			n += c
		}
	}
	return n
}

// match finds the fault that the rules have for a call. It counts.
func (d *Disk) match(c Call) Fault {
	for _, r := range d.rules {
		if r.Ops&c.Op == 0 {
			continue
		}
		if r.Name != "" {
			if ok, err := path.Match(r.Name, c.Name); err != nil || !ok {
				continue
			}
		}
		r.seen++
		if r.seen > r.Skip && (r.Times == 0 || r.seen <= r.Skip+r.Times) {
			return r.Fault
		}
	}
	return Fault{}
}

// do runs one call: it counts it, finds its fault, waits without the lock, and calls effect with the lock held. effect is told how much is to happen:
// All, or what the fault of a write or of a sync says, and may rely on nothing that was seen before.
func (d *Disk) do(c Call, effect func(Effect) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.killed {
		return &pathError{Op: c.Op.String(), Path: c.Name, Err: ErrKilled}
	}
	i := c.Op.index()
	d.counts[i]++
	c.N = d.counts[i]
	f := d.match(c)
	if f.zero() && d.options.Hook != nil {
		d.unlocked(func() { f = d.options.Hook(c) })
	}
	if f.Delay > 0 {
		d.unlocked(func() { d.wait(f.Delay) })
	}
	if d.killed {
		return &pathError{Op: c.Op.String(), Path: c.Name, Err: ErrKilled}
	}
	if f.Crash {
		return d.crash(c, f, effect)
	}
	if f.Err == nil {
		return effect(All)
	}
	syncs := c.Op == OpSync || c.Op == OpSyncDir
	if f.Effect == Part && c.Op != OpWrite && !syncs {
		f.Effect = Effect(d.rng.IntN(2))
	}
	if f.Effect != None || syncs { // a sync without effect still spoils
		if err := effect(f.Effect); err != nil {
			return err // it would have failed anyhow
		}
	}
	return &pathError{Op: c.Op.String(), Path: c.Name, Err: f.Err}
}

// crash kills the generation at a call. A sync that is cut off has simply happened or not: what is between is for the seed of the power cut.
func (d *Disk) crash(c Call, f Fault, effect func(Effect) error) error {
	if f.Effect == Part && c.Op != OpWrite {
		f.Effect = Effect(d.rng.IntN(2))
	}
	if f.Effect != None {
		_ = effect(f.Effect) // nobody is left to hear of it
	}
	d.kill()
	return &pathError{Op: c.Op.String(), Path: c.Name, Err: ErrKilled}
}

// unlocked calls f without the lock, which it takes back whatever f does.
func (d *Disk) unlocked(f func()) {
	d.mu.Unlock()
	defer d.mu.Lock()
	f()
}

func (d *Disk) wait(t time.Duration) {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.dead:
	}
}

type pathError = fs.PathError
