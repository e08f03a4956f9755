// Package zkproc runs real ZooKeeper servers on loopback for tests: one, or an ensemble. It needs the Debian package zookeeper, which `make needs` installs.
package zkproc

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// jar is where Debian puts it.
const jar = "/usr/share/java/zookeeper.jar"

// Server is one server. Its data outlives Kill.
type Server struct {
	Address string        // of clients, host:port
	TLS     *Certificates // nil: plain
	dir     string
	config  string
	cmd     *exec.Cmd
	log     *os.File
	start   func(*exec.Cmd) error
}

// Options are for Start.
type Options struct {
	Servers  int           // of the ensemble; 0: 1
	Tick     time.Duration // tickTime; sessions last two ticks at least. 0: 100 ms
	Property string        // further lines of the configuration
	TLS      bool          // clients have to speak TLS, and to have a certificate; at 127.0.0.1 only

	// Hosts are the addresses of the servers; nil: all of them are at 127.0.0.1. Run starts the command of the i-th where that address is; nil: here.
	Hosts []string
	Run   func(i int, cmd *exec.Cmd) error
}

// Start runs servers until the test ends, and returns when they answer. Without ZooKeeper the test fails in CI and is skipped elsewhere.
func Start(t *testing.T, o Options) []*Server {
	t.Helper()
	if _, err := os.Stat(jar); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("ZooKeeper is missing: make needs")
		}
		t.Skip("ZooKeeper is missing: make needs")
	}
	servers, err := Launch(t.TempDir(), o)
	for _, s := range servers {
		t.Cleanup(s.Kill)
	}
	if err != nil {
		t.Fatal(err)
	}
	return servers
}

// Launch is Start for programs that are no tests. The data lies below dir; whoever calls kills the servers, also after an error.
func Launch(dir string, o Options) ([]*Server, error) {
	if o.Servers == 0 {
		o.Servers = 1
	}
	if o.Tick == 0 {
		o.Tick = 100 * time.Millisecond
	}
	ports, err := freePorts(3 * o.Servers)
	if err != nil {
		return nil, err
	}
	var ensemble strings.Builder
	for i := range o.Servers {
		if o.Servers > 1 {
			fmt.Fprintf(&ensemble, "server.%d=%s:%d:%d\n", i+1, o.host(i), ports[3*i+1], ports[3*i+2])
		}
	}
	var certificates *Certificates
	if o.TLS {
		if certificates, err = makeCertificates(dir); err != nil {
			return nil, err
		}
	}
	var servers []*Server
	for i := range o.Servers {
		s := &Server{
			Address: fmt.Sprintf("%s:%d", o.host(i), ports[3*i]), dir: filepath.Join(dir, fmt.Sprint("zookeeper-", i+1)), TLS: certificates, start: (*exec.Cmd).Start,
		}
		if o.Run != nil {
			s.start = func(cmd *exec.Cmd) error { return o.Run(i, cmd) }
		}
		s.config = filepath.Join(s.dir, "zoo.cfg")
		door := fmt.Sprintf("clientPort=%d\nclientPortAddress=%s\n", ports[3*i], o.host(i))
		if o.TLS {
			door = certificates.properties(ports[3*i])
		}
		// Nobody cuts the power of these servers: without syncs they do not wait for a disk that others keep busy.
		text := fmt.Sprintf("forceSync=no\ndataDir=%s\n%stickTime=%d\ninitLimit=50\nsyncLimit=20\nmaxSessionTimeout=60000\nmaxClientCnxns=0\n"+
			"admin.enableServer=false\n4lw.commands.whitelist=*\npreAllocSize=512\nsnapCount=100000\n%s%s", s.dir, door, o.Tick.Milliseconds(), ensemble.String(), o.Property)
		err := os.MkdirAll(s.dir, 0o700)
		if err == nil {
			err = errors.Join(os.WriteFile(s.config, []byte(text), 0o600), os.WriteFile(filepath.Join(s.dir, "myid"), []byte(fmt.Sprint(i+1)), 0o600))
		}
		if err == nil {
			err = s.run()
		}
		if err != nil {
			return servers, err
		}
		servers = append(servers, s)
	}
	for _, s := range servers {
		if err := s.wait(); err != nil {
			return servers, err
		}
	}
	return servers, nil
}

func (o Options) host(i int) string {
	if o.Hosts == nil {
		return "127.0.0.1"
	}
	return o.Hosts[i]
}

func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

// Run starts the process (again).
func (s *Server) Run(t *testing.T) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) run() error {
	log, err := os.OpenFile(filepath.Join(s.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command("java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.log.dir="+s.dir, "-Dzookeeper.fsync.warningthresholdms=10000",
		"-cp", s.classes(), "org.apache.zookeeper.server.quorum.QuorumPeerMain", s.config)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.start(cmd); err != nil {
		return errors.Join(fmt.Errorf("start ZooKeeper (the Debian package zookeeper; make needs): %w", err), log.Close())
	}
	s.log, s.cmd = log, cmd
	return nil
}

func (s *Server) classes() string {
	if s.TLS != nil {
		return jar + secureJars
	}
	return jar
}

// Wait returns when the server serves.
func (s *Server) Wait(t *testing.T) {
	t.Helper()
	if err := s.wait(); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) wait() error {
	for range 600 {
		if answer, err := s.Ask("srvr"); err == nil && strings.Contains(answer, "Mode:") {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	out, _ := os.ReadFile(filepath.Join(s.dir, "server.log"))
	return fmt.Errorf("ZooKeeper at %s does not serve:\n%s", s.Address, out)
}

// Leads reports whether the server is the leader of its ensemble.
func (s *Server) Leads() bool {
	answer, err := s.Ask("srvr")
	return err == nil && strings.Contains(answer, "Mode: leader")
}

// Ask sends one of the words of four letters that the server answers, like mntr.
func (s *Server) Ask(word string) (string, error) {
	c, err := s.dial()
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte(word)); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// Commits asks the server for a session: it gives one only when the ensemble agrees. An ensemble can hang with a leader that commits nothing more after all
// of it stood still for a while (3.8.0 does: what a follower had begun to write before it lost its leader is never told to the next one, nor to the same one).
func (s *Server) Commits(within time.Duration) error {
	c, err := s.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(within))
	const timeout = 4000 // of the session, in ms
	ask := binary.BigEndian.AppendUint32(nil, 45)
	ask = append(ask, make([]byte, 4+8)...) // version, last change seen
	ask = binary.BigEndian.AppendUint32(ask, timeout)
	ask = append(ask, make([]byte, 8)...) // a new session
	ask = binary.BigEndian.AppendUint32(ask, 16)
	ask = append(ask, make([]byte, 16+1)...) // its password; read-only: no
	if _, err := c.Write(ask); err != nil {
		return err
	}
	answer := make([]byte, 4+4+4+8) // length, version, time-out, session
	if _, err := io.ReadFull(c, answer); err != nil {
		return fmt.Errorf("ZooKeeper at %s gives no session: %w", s.Address, err)
	}
	if binary.BigEndian.Uint64(answer[12:]) == 0 {
		return fmt.Errorf("ZooKeeper at %s refuses a session", s.Address)
	}
	_, err = c.Write([]byte{0, 0, 0, 8, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xf5}) // close it
	return err
}

func (s *Server) dial() (net.Conn, error) {
	if s.TLS == nil {
		return net.DialTimeout("tcp", s.Address, time.Second)
	}
	cfg, err := s.TLS.Config()
	if err != nil {
		return nil, err
	}
	return tls.DialWithDialer(&net.Dialer{Timeout: time.Second}, "tcp", s.Address, cfg)
}

// Kill ends the process at once.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	_ = s.log.Close()
	s.cmd = nil
}

// Freeze stops the process where it is; Thaw lets it go on.
func (s *Server) Freeze() error { return s.cmd.Process.Signal(syscall.SIGSTOP) }

// Thaw is the end of Freeze.
func (s *Server) Thaw() error { return s.cmd.Process.Signal(syscall.SIGCONT) }
