// Package memdisk is a disk in memory that behaves as badly as a real one may: what was not synced is lost, kept or torn after a power cut, calls fail
// or take long, the space ends, and the process dies between any two calls. It is made for simulations inside testing/synctest bubbles: nothing runs in
// the background, no mutex is held while a call waits, time is package time.
//
// What it models:
//
//   - Two states of everything, what a reader sees (the page cache) and what is on the medium. Sync and SyncDir move the first to the second.
//   - Content not synced: after a power cut any subset of its sectors (512 bytes or 4 KiB) is there, the rest is old, zero or garbage; the length is any that
//     the file had on the way. Bytes that were synced are never damaged, also not by an unsynced append to their sector.
//   - Names not synced: any subset of the changes is there, in orders that a journal allows; a rename is one change. A name may survive without
//     the content of its file. A folder that is durable in itself is still lost if its own name is not.
//   - A failed Sync: what was written is clean for the system and lost for the medium; later Syncs do not bring it back, as on Linux.
//   - Kill freezes a generation: each call through it fails with ErrKilled from then on and changes nothing. Restart gives the next generation, as it
//     would be found after a power cut, or after the end of just the process.
//
// A simulation makes a Disk with New, gives it to a node as its disk.Disk, arms faults with Inject and CrashAt, waits on Dead, stops the node, and starts
// another one on Restart. Fork looks at what a crash would leave without one. All choices come from the seeds given to New and Restart.
package memdisk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"timehub/hub/disk"
)

// ErrKilled is in the chain of the error of every call on a generation that was killed.
var ErrKilled = errors.New("the process of this disk is dead")

// Options of a Disk. The zero value is a disk without faults and without an end.
type Options struct {
	// Seed is for choices that a running disk makes: how much of a failing call has effect.
	Seed uint64
	// Capacity is the number of bytes that fit, counted in blocks of 4 KiB, one for each folder; 0 means 1 TiB.
	Capacity int64
	// Now is the time put on files; nil means time.Now.
	Now func() time.Time
	// Hook is asked about every call that no Rule caught, before it has effect, without any lock held; nil means no faults. It stays for the generations that
	// follow. It may call the Disk.
	Hook func(Call) Fault
}

const defaultCapacity = 1 << 40

// Disk is one generation of a disk: what one process sees of it. It is safe for concurrent use.
type Disk struct {
	options Options
	dead    chan struct{}

	mu      sync.Mutex // guards all below; held for computing only
	rng     *rand.Rand
	root    *node
	pending []*change // of names, not yet durable, oldest first
	locks   map[*node]string
	rules   []*rule
	counts  [opCount]int64
	killed  bool
	blocks  int64 // in use
	nextID  uint64
	tick    uint64 // changes of anything, for Info.ID
}

var _ disk.Disk = (*Disk)(nil)

// New makes an empty disk.
func New(o Options) *Disk {
	if o.Capacity == 0 {
		o.Capacity = defaultCapacity
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	d := &Disk{options: o, dead: make(chan struct{}), locks: map[*node]string{}, rng: rand.New(rand.NewPCG(o.Seed, 0))}
	d.root = d.newNode(true)
	return d
}

// Kill freezes this generation. Calls that wait return; nothing changes any more. A second Kill does nothing.
func (d *Disk) Kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kill()
}

func (d *Disk) kill() {
	if !d.killed {
		d.killed = true
		close(d.dead)
	}
}

// Dead is closed when this generation is killed, by Kill or by a fault.
func (d *Disk) Dead() <-chan struct{} { return d.dead }

// A Death is a way in which a process ends.
type Death int

const (
	// PowerCut loses what was not synced, or parts of it, as the seed decides.
	PowerCut Death = iota
	// ProcessKill (kill -9) loses nothing but the locks: what was not synced is still there, and still not durable.
	ProcessKill
)

func (k Death) String() string {
	if k == ProcessKill {
		return "process kill"
	}
	return "power cut"
}

// Restart kills this generation, if it is alive, and returns the next. Rules, counts and locks do not pass on; capacity, clock and hook do. Called again,
// also with another seed, it starts from the same moment again.
func (d *Disk) Restart(how Death, seed uint64) *Disk {
	d.Kill()
	return d.Fork(how, seed)
}

// Fork returns the disk that Restart would, and leaves this one as it is. With a PowerCut at every call it shows every state a crash can leave.
func (d *Disk) Fork(how Death, seed uint64) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := &Disk{
		options: d.options, dead: make(chan struct{}), locks: map[*node]string{}, nextID: d.nextID, tick: d.tick,
		rng: rand.New(rand.NewPCG(d.options.Seed, seed)),
	}
	c := copier{from: d, to: next, seed: seed, nodes: map[*node]*node{}}
	if how == ProcessKill {
		c.everything()
	} else {
		c.durable()
	}
	next.blocks = next.root.count(map[*node]bool{})
	return next
}

// SetCapacity changes the number of bytes that fit; 0 means 1 TiB. What is there stays, also if it is more.
func (d *Disk) SetCapacity(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if bytes == 0 {
		bytes = defaultCapacity
	}
	d.options.Capacity = bytes
}

// Damage overwrites a part of a file, in the cache and on the medium alike, as a failing medium would: no time changes, no fault strikes, the length
// stays. It works on a killed disk, too.
func (d *Disk) Damage(name string, offset int64, with []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.lookup("damage", name)
	if err == nil && n.dir() {
		err = &pathError{Op: "damage", Path: name, Err: errIsFolder}
	}
	if err == nil && (offset < 0 || offset+int64(len(with)) > n.content.size) {
		err = fmt.Errorf("damage %s: %d bytes at %d are not inside its %d", name, len(with), offset, n.content.size)
	}
	if err != nil {
		return err
	}
	d.blocks -= n.content.blocks()
	n.content.damage(with, offset)
	d.blocks += n.content.blocks()
	return nil
}

// Dump describes the whole disk for the message of a failing test: each name with its size, what of it is on the medium, and the changes of
// names that are not.
func (d *Disk) Dump() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var b strings.Builder
	var walk func(prefix string, n *node)
	walk = func(prefix string, n *node) {
		for _, name := range n.sorted() {
			c := n.names[name]
			state := "durable"
			if n.medium[name] != c {
				state = "name not durable"
			}
			if c.dir() {
				fmt.Fprintf(&b, "%s%s/  %s\n", prefix, name, state)
				walk(prefix+name+"/", c)
				continue
			}
			fmt.Fprintf(&b, "%s%s  %d bytes, %d on the medium, %d dirty pages, %s\n", prefix, name, c.content.size, c.content.mediumSize, len(c.content.dirty), state)
		}
	}
	walk("", d.root)
	for _, p := range d.pending {
		fmt.Fprintf(&b, "pending: %s %s\n", p.op, p.name)
	}
	if d.killed {
		b.WriteString("killed\n")
	}
	return b.String()
}
