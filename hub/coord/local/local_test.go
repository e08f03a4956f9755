package local

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
	"timehub/hub/coord/coordtest"
)

// world runs sessions on whatever store there is at the moment.
func world(store **Store, restart func(*testing.T)) coordtest.World {
	return coordtest.World{
		Open: func(t *testing.T) coord.Coordinator {
			c := (*store).Session(t.Name())
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan struct{})
			go func() { defer close(ended); _ = c.Run(ctx) }()
			t.Cleanup(func() { cancel(); <-ended })
			return c
		},
		Cut:     func(c coord.Coordinator) { c.(*Coordinator).store.Cut(c.(*Coordinator)) },
		Mend:    func(c coord.Coordinator) { c.(*Coordinator).store.Mend(c.(*Coordinator)) },
		Restart: restart,
	}
}

func TestMemory(t *testing.T) {
	coordtest.Run(t, func(t *testing.T) coordtest.World {
		s := NewMemory()
		return world(&s, func(*testing.T) {
			for _, c := range sessionsOf(s) {
				s.Cut(c)
			}
		})
	})
}

func TestFile(t *testing.T) {
	coordtest.Run(t, func(t *testing.T) coordtest.World {
		path := filepath.Join(t.TempDir(), "coord.db")
		s := open(t, path)
		t.Cleanup(func() { _ = s.Close() })
		return world(&s, func(t *testing.T) {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, path)
		})
	})
}

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestBubble shows that the memory store works with virtual time, and that a loss, however it comes about, never leaves two leaders that both believe.
func TestBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewMemory()
		a, b := s.Session("a"), s.Session("b")
		ctx, stop := context.WithCancel(t.Context())
		began := time.Now()
		var mu sync.Mutex
		led := map[string]int{}
		ended := make(chan error, 2)
		for name, c := range map[string]*Coordinator{"a": a, "b": b} {
			go func() {
				ended <- coord.Lead(ctx, c, "job", func(ctx context.Context, _ uint64) error {
					mu.Lock()
					led[name]++
					mu.Unlock()
					<-ctx.Done()
					return ctx.Err()
				})
			}()
		}
		for range 50 {
			time.Sleep(time.Hour)
			for _, c := range []*Coordinator{a, b} {
				s.Cut(c)
				time.Sleep(time.Minute)
				s.Mend(c)
				time.Sleep(time.Minute)
			}
		}
		stop()
		<-ended
		<-ended
		if led["a"] < 10 || led["b"] < 10 {
			t.Errorf("led %v in %v", led, time.Since(began))
		}
	})
}

func TestStealLeavesABelieverBehind(t *testing.T) {
	s := NewMemory()
	a, b := s.Session("a"), s.Session("b")
	old, err := a.Acquire(t.Context(), "job")
	if err != nil {
		t.Fatal(err)
	}
	s.Steal("job")
	fresh, err := b.Acquire(t.Context(), "job")
	if err != nil || fresh.Fence() <= old.Fence() {
		t.Fatalf("%v, %v", fresh, err)
	}
	select {
	case <-old.Lost():
		t.Fatal("the stale holder was told")
	default:
	}
	if err := old.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := a.Acquire(ctx, "job"); err == nil {
		t.Fatal("a stale release freed the lease of another")
	}
}

func TestFileInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "coord.db")
	s := open(t, path)
	if _, err := Open(path); !hub.Is(err, hub.Unavailable) || !strings.Contains(err.Error(), path) {
		t.Fatalf("a second opening: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c := s.Session("late")
	if _, err := c.Set(t.Context(), "x", nil, 0); !hub.Is(err, hub.Unavailable) {
		t.Fatalf("set after close: %v", err)
	}
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDamage: whatever is done to the file, opening it gives an error that names it, or the values as they were; never a crash.
func TestDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "coord.db")
	s := open(t, path)
	c := s.Session("a")
	for i := range 200 {
		if _, err := c.Set(t.Context(), fmt.Sprintf("dir/register-%03d", i), bytes.Repeat([]byte{byte(i)}, 100), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path)
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Errorf("%s: the error does not name the file: %v", what, err)
			}
			return
		}
		defer s.Close()
		for name, r := range s.registers {
			i, _ := strconv.Atoi(strings.TrimPrefix(name, "dir/register-"))
			if !bytes.Equal(r.value, bytes.Repeat([]byte{byte(i)}, 100)) {
				t.Errorf("%s: register %q holds %q", what, name, r.value)
			}
		}
	}
	try("text", []byte("this is no database"))
	try("half a page", whole[:2000])
	for cut := 4096; cut < len(whole); cut += 8192 {
		try(fmt.Sprintf("cut at %d", cut), whole[:cut])
	}
	for at := 0; at < len(whole); at += 1777 {
		bad := bytes.Clone(whole)
		copy(bad[at:], bytes.Repeat([]byte{0xff}, 32))
		try(fmt.Sprintf("overwritten at %d", at), bad)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	defer s.Close()
	if names := s.names("dir"); len(names) != 200 {
		t.Fatalf("%d registers are left", len(names))
	}
}

// TestHalfMade: a crash while the file was made for the first time leaves nothing in the way.
func TestHalfMade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "coord.db")
	if err := os.WriteFile(path+".new", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + ".new"); !os.IsNotExist(err) {
		t.Fatal("the half is still there")
	}
	if _, err := Open(filepath.Join(t.TempDir(), "no", "such", "folder.db")); err == nil {
		t.Fatal("opened in a folder that does not exist")
	}
}

// TestManyRevisions crosses the reservation several times and starts again: nothing may be given out twice.
func TestManyRevisions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "coord.db")
	var last uint64
	for range 3 {
		s := open(t, path)
		for range revisionBlock + 10 {
			v, err := s.revise()
			if err != nil || v <= last {
				t.Fatalf("revision %d after %d, %v", v, last, err)
			}
			last = v
		}
		c := s.Session("x")
		name := fmt.Sprint("r", last)
		v, err := c.Set(t.Context(), name, nil, 0)
		if err != nil || v <= last {
			t.Fatalf("version %d after %d, %v", v, last, err)
		}
		last = v
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
