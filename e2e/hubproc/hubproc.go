// Package hubproc runs real hub processes for tests and benchmarks: it builds the binary, starts it on a free port of the loopback address with a
// data directory of its own, waits until it says that it is healthy, kills it, stops it, starts it again on the same directory, and keeps its log.
//
// A process never outlives the program that started it: it is killed when its Hub is closed, and by the kernel when its parent dies. The package
// talks to the hub over TCP and knows nothing of its inside.
package hubproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Build compiles the hub of the module at root to dir/hub and returns its path. With build tags, which no release has, it is dir/hub-TAGS.
func Build(ctx context.Context, root, dir string, tags ...string) (string, error) {
	bin := filepath.Join(dir, strings.Join(append([]string{"hub"}, tags...), "-"))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", strings.Join(tags, ","), "-o", bin, "./cmd/hub")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the hub: %w\n%s", err, out)
	}
	return bin, nil
}

// Options say how a hub runs.
type Options struct {
	Bin   string        // the binary
	Dir   string        // its data directory; "": a temporary one, removed by Close
	Flags []string      // after `hub serve`
	Env   []string      // beside the environment of this process without HUB_*
	Wait  time.Duration // for /health to answer 200; 0: two minutes
	Addr  string        // host:port to listen at; "": a free port of the loopback address

	// Start starts the command that it is given, where it shall run; nil: here. Its thread has to live as long as the process.
	Start func(*exec.Cmd) error
}

// Hub is one data directory and the process, if any, that serves it. Its methods are not safe for concurrent use; Addr and URL are constant.
type Hub struct {
	Addr string // host:port, the same for every start
	URL  string // http://host:port
	Dir  string

	opt    Options
	temp   string
	log    *os.File
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended; err is then set
	err    error
}

// New prepares a hub without starting it.
func New(opt Options) (*Hub, error) {
	if opt.Wait == 0 {
		opt.Wait = 2 * time.Minute
	}
	h := &Hub{opt: opt, Dir: opt.Dir}
	var err error
	if h.temp, err = os.MkdirTemp("", "hubproc-"); err != nil {
		return nil, fmt.Errorf("make a folder for the hub: %w", err)
	}
	if h.Dir == "" {
		h.Dir = filepath.Join(h.temp, "data")
	}
	if h.log, err = os.Create(filepath.Join(h.temp, "log")); err != nil {
		return nil, errors.Join(err, os.RemoveAll(h.temp))
	}
	if h.Addr = opt.Addr; h.Addr == "" {
		if h.Addr, err = FreeAddr(); err != nil {
			return nil, errors.Join(err, h.Close())
		}
	}
	h.URL = "http://" + h.Addr
	return h, nil
}

// FreeAddr is a loopback address on which nobody listens at this moment.
func FreeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Launch starts the process and returns at once; Ready waits for it.
func (h *Hub) Launch(more ...string) error {
	if h.Running() {
		return errors.New("the hub runs already")
	}
	args := append([]string{"serve", "--data", h.Dir, "--listen", h.Addr}, h.opt.Flags...)
	h.cmd = exec.Command(h.opt.Bin, append(args, more...)...)
	h.cmd.Stdout, h.cmd.Stderr = h.log, h.log
	h.cmd.Dir = h.temp
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "HUB_") {
			h.cmd.Env = append(h.cmd.Env, kv)
		}
	}
	h.cmd.Env = append(h.cmd.Env, h.opt.Env...)
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	start := h.opt.Start
	if start == nil {
		start = (*exec.Cmd).Start
	}
	if err := start(h.cmd); err != nil {
		return fmt.Errorf("start the hub: %w", err)
	}
	h.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) { // ends with the process; Kill, Stop and Close wait for it
		h.err = cmd.Wait()
		close(exited)
	}(h.cmd, h.exited)
	return nil
}

// Start launches the process and waits until it is healthy.
func (h *Hub) Start(more ...string) error {
	if err := h.Launch(more...); err != nil {
		return err
	}
	return h.Ready()
}

// StartEnv is Start with more of an environment.
func (h *Hub) StartEnv(env []string) error {
	if err := h.LaunchEnv(env); err != nil {
		return err
	}
	return h.Ready()
}

// LaunchEnv is Launch with more of an environment.
func (h *Hub) LaunchEnv(env []string) error {
	before := h.opt.Env
	h.opt.Env = append(before[:len(before):len(before)], env...)
	defer func() { h.opt.Env = before }()
	return h.Launch()
}

// Ready waits for /health to answer 200. It fails when the process ends before that, with the end of its log.
func (h *Hub) Ready() error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(h.opt.Wait); time.Now().Before(deadline); {
		select {
		case <-h.exited:
			return fmt.Errorf("the hub ended before it was healthy: %w\n%s", h.err, h.Tail(4000))
		default:
		}
		if resp, err := client.Get(h.URL + "/health"); err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK && strings.HasPrefix(resp.Header.Get("Server"), "Hub/") {
				return nil
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("the hub was not healthy within %v\n%s", h.opt.Wait, h.Tail(4000))
}

// Running reports whether there is a process that has not ended.
func (h *Hub) Running() bool {
	if h.cmd == nil {
		return false
	}
	select {
	case <-h.exited:
		return false
	default:
		return true
	}
}

// PID is the process id of the running hub.
func (h *Hub) PID() int { return h.cmd.Process.Pid }

// Kill ends the process as `kill -9` does and waits until it is gone.
func (h *Hub) Kill() {
	if h.Running() {
		h.cmd.Process.Kill()
		<-h.exited
	}
}

// Stop sends SIGTERM and waits. It fails when the process has not ended after the time given (then it is killed) or ended with a status but 0.
func (h *Hub) Stop(within time.Duration) error {
	if !h.Running() {
		return errors.New("the hub does not run")
	}
	if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop the hub: %w", err)
	}
	select {
	case <-h.exited:
	case <-time.After(within):
		h.Kill()
		return fmt.Errorf("the hub had not stopped after %v\n%s", within, h.Tail(4000))
	}
	if h.err != nil {
		return fmt.Errorf("the hub ended badly: %w\n%s", h.err, h.Tail(4000))
	}
	return nil
}

// Exit waits for the process to end by itself and returns its exit status.
func (h *Hub) Exit(within time.Duration) (int, error) {
	select {
	case <-h.exited:
		return h.cmd.ProcessState.ExitCode(), nil
	case <-time.After(within):
		return 0, fmt.Errorf("the hub still runs after %v", within)
	}
}

// Log is everything that all starts have written to stdout and stderr.
func (h *Hub) Log() string {
	b, err := os.ReadFile(h.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Tail is the end of the log.
func (h *Hub) Tail(n int) string {
	s := h.Log()
	return s[max(0, len(s)-n):]
}

// Close kills the process and removes what is temporary.
func (h *Hub) Close() error {
	h.Kill()
	return errors.Join(h.log.Close(), os.RemoveAll(h.temp))
}
