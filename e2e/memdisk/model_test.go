package memdisk

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"timehub/hub/disk"
)

// modelFile says of a file what it must hold now, and what a power cut may do to it.
type modelFile struct {
	now     []byte
	touched []bool // bytes that were changed since the last Sync
	low     int    // the least length since then
	spoiled bool
	file    disk.File
}

func (m *modelFile) resize(n int) {
	for len(m.now) < n {
		m.now = append(m.now, 0)
	}
	for len(m.touched) < n {
		m.touched = append(m.touched, true)
	}
	for i := n; i < len(m.touched); i++ {
		m.touched[i] = true
	}
	m.now = m.now[:n]
	m.low = min(m.low, n)
}

// Random writes, cuts, syncs, failures and forks on a few files, compared with plain slices: readers see what was written; a power cut keeps
// each byte that was not changed since the last Sync; the space in use is what the files hold.
func TestModel(t *testing.T) {
	runs := uint64(150)
	if testing.Short() {
		runs = 30
	}
	for seed := range runs {
		rng := rand.New(rand.NewPCG(seed, 1))
		d := New(Options{Seed: seed, Capacity: 60 * pageSize})
		var files []*modelFile
		for i := range 3 {
			f, err := d.Create(fmt.Sprint(i))
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, &modelFile{file: f})
		}
		if err := d.SyncDir("."); err != nil {
			t.Fatal(err)
		}
		for range 60 {
			m := files[rng.IntN(len(files))]
			modelStep(t, d, m, rng)
			modelCheck(t, d, files, rng.Uint64())
			if rng.IntN(10) == 0 {
				d = modelKill(t, d, files)
			}
		}
		for i, m := range files {
			if err := errors.Join(m.file.Close(), d.Remove(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		if d.blocks != 1 {
			t.Fatalf("seed %d: %d blocks in use by nothing", seed, d.blocks)
		}
	}
}

func modelStep(t *testing.T, d *Disk, m *modelFile, rng *rand.Rand) {
	t.Helper()
	switch rng.IntN(10) {
	case 0, 1, 2, 3, 4:
		off := rng.IntN(3*pageSize + 1)
		if rng.IntN(2) == 0 {
			off = len(m.now)
		}
		p := bytes.Repeat([]byte{byte(1 + rng.IntN(250))}, 1+rng.IntN([]int{10, 600, 9000}[rng.IntN(3)]))
		n, err := m.file.WriteAt(p, int64(off))
		if err != nil && !errors.Is(err, disk.ErrFull) || n < len(p) != (err != nil) {
			t.Fatal(n, err)
		}
		if n > 0 && off+n > len(m.now) {
			m.resize(off + n)
		}
		copy(m.now[min(off, len(m.now)):], p[:n])
		for i := range n {
			m.touched[off+i] = true
		}
	case 5, 6:
		n := rng.IntN(3 * pageSize)
		if rng.IntN(2) == 0 {
			n = rng.IntN(len(m.now) + 1)
		}
		if err := m.file.Truncate(int64(n)); err != nil {
			t.Fatal(err)
		}
		m.resize(n)
	case 7, 8:
		if err := m.file.Sync(); err != nil {
			t.Fatal(err)
		}
		m.low = len(m.now)
		if !m.spoiled { // after a failed one, what was touched stays in doubt
			m.touched = make([]bool, len(m.now))
		}
	case 9:
		remove := d.Inject(Rule{Ops: OpSync, Times: 1, Fault: Fault{Err: syscall.EIO, Effect: Effect(rng.IntN(3))}})
		if err := m.file.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		remove()
		m.spoiled = true
		// What can be read now is anything where it was touched, and the rest is as it was.
		got := make([]byte, len(m.now))
		if n, err := m.file.ReadAt(got, 0); err != nil || n != len(got) {
			t.Fatal(n, err)
		}
		for i, b := range got {
			if b != m.now[i] && !m.touched[i] {
				t.Fatalf("byte %d was synced and is damaged by a failed Sync", i)
			}
		}
		m.now = got
	}
}

func modelCheck(t *testing.T, d *Disk, files []*modelFile, seed uint64) {
	t.Helper()
	cut := d.Fork(PowerCut, seed)
	for i, m := range files {
		got := make([]byte, len(m.now)+1)
		n, _ := m.file.ReadAt(got, 0)
		if !bytes.Equal(got[:n], m.now) {
			t.Fatalf("file %d reads otherwise than it was written", i)
		}
		f, err := cut.Open(fmt.Sprint(i), false)
		if err != nil {
			t.Fatal(err)
		}
		size, err := f.Size()
		if err != nil || int(size) < m.low {
			t.Fatalf("file %d: %d bytes (%v), was never below %d since the last Sync", i, size, err, m.low)
		}
		left := make([]byte, size)
		if n, err := f.ReadAt(left, 0); err != nil || n != len(left) {
			t.Fatal(n, err)
		}
		for k, b := range left {
			if k < len(m.now) && !m.touched[k] && b != m.now[k] {
				t.Fatalf("file %d: byte %d was synced and is damaged by a power cut", i, k)
			}
		}
	}
	if want := d.root.count(map[*node]bool{}); d.blocks != want {
		t.Fatalf("%d blocks in use, counted %d", d.blocks, want)
	}
	if cut.blocks != cut.root.count(map[*node]bool{}) {
		t.Fatal("the fork counts its blocks wrong")
	}
}

// modelKill goes on with the next generation after a process kill: what was in doubt stays in doubt.
func modelKill(t *testing.T, d *Disk, files []*modelFile) *Disk {
	t.Helper()
	d = d.Restart(ProcessKill, 0)
	for i, m := range files {
		f, err := d.Open(fmt.Sprint(i), true)
		if err != nil {
			t.Fatal(err)
		}
		m.file = f
	}
	return d
}
