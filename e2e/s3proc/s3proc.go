// Package s3proc runs real S3 servers on loopback for tests: versitygw on a directory, and gofakes3 in memory. `make needs` installs both.
package s3proc

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// User and Secret are the credentials that every server takes.
const User, Secret = "tester", "tester-secret"

// Kind is a server.
type Kind string

// The servers. A directory of versitygw is a bucket if it lies in Dir.
const (
	Versity  Kind = "versitygw"
	GoFakeS3 Kind = "gofakes3"
)

// Server is one process, which can be killed and run again; versitygw keeps its data then.
type Server struct {
	URL string
	Dir string

	kind    Kind
	address string
	program string
	cmd     *exec.Cmd
	log     *os.File
}

// Start runs a server until the test ends and returns when it listens. root is the way from the test's folder to the module's. A server that is not
// installed fails the test in CI, and skips it elsewhere.
func Start(t *testing.T, kind Kind, root string) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{kind: kind, address: l.Addr().String(), Dir: t.TempDir(), program: find(t, kind, root)}
	s.URL = "http://" + s.address
	_ = l.Close()
	if s.log, err = os.Create(filepath.Join(t.TempDir(), "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill()
		_ = s.log.Close()
	})
	s.Run(t)
	return s
}

func find(t *testing.T, kind Kind, root string) string {
	t.Helper()
	if path, err := filepath.Abs(filepath.Join(root, ".tools", string(kind))); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	path, err := exec.LookPath(string(kind))
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is missing: make needs", kind)
		}
		t.Skipf("%s is missing: make needs", kind)
	}
	return path
}

// Run starts the process and waits until it listens.
func (s *Server) Run(t *testing.T) {
	t.Helper()
	args := []string{"-host", s.address, "-backend", "memory", "-quiet"}
	if s.kind == Versity {
		args = []string{"--access", User, "--secret", Secret, "--port", s.address, "--quiet", "posix", s.Dir}
	}
	s.cmd = exec.Command(s.program, args...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.Dir, s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 600 {
		if c, err := net.Dial("tcp", s.address); err == nil {
			_ = c.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	out, _ := os.ReadFile(s.log.Name())
	t.Fatalf("%s does not listen: %s", s.kind, out)
}

// Kill ends the process at once.
func (s *Server) Kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}
