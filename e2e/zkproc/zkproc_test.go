package zkproc

import (
	"testing"
	"time"
)

// TestCommits: a server that runs gives a session, one that stands still does not.
func TestCommits(t *testing.T) {
	s := Start(t, Options{})[0]
	for range 3 {
		if err := s.Commits(20 * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Freeze(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); s.Commits(300*time.Millisecond) == nil; { // a process of many threads does not stop at once
		if time.Now().After(deadline) {
			t.Fatal("a server that stands still gives a session")
		}
	}
	if err := s.Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := s.Commits(20 * time.Second); err != nil {
		t.Error(err)
	}
}
