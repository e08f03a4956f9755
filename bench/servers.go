package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"timehub/e2e/hubproc"
)

// bench is what the rows share.
type bench struct {
	opt      options
	dir      string // of binaries and data; removed at the end
	place    string // the file system, for the table
	hubBin   string
	floorBin string
	callBin  string
	small    []byte // 1 KiB: the first bytes of the flights
	large    []byte // 100 KiB
	client   *http.Client
	results  []result
	floor64  float64 // what the floor did with 64 connections, for the rows that refer to it
}

// root is the folder of the module, whether bench runs there or in its own folder.
func root() (string, error) {
	for _, dir := range []string{".", ".."} {
		if _, err := os.Stat(filepath.Join(dir, "bench", "floor", "main.go")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("run bench in the folder of the module")
}

func newBench(ctx context.Context, opt options, dir, hub string) (*bench, error) {
	top, err := root()
	if err != nil {
		return nil, err
	}
	flights, err := os.ReadFile(filepath.Join(top, "e2e", "testdata", "data", "flights-20k.json"))
	if err != nil {
		return nil, fmt.Errorf("read the flights: %w", err)
	}
	b := &bench{opt: opt, small: flights[:1024], large: flights[:100<<10], hubBin: hub, client: &http.Client{Timeout: 2 * time.Minute}}
	if b.dir, err = os.MkdirTemp(dir, "hub-bench-"); err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	b.place = "data in " + filepath.Dir(b.dir) + " (" + fileSystem(b.dir) + ")"
	if b.hubBin == "" {
		if b.hubBin, err = hubproc.Build(ctx, top, b.dir); err != nil {
			return nil, err
		}
	}
	if b.floorBin, err = b.build(ctx, top, "floor"); err != nil {
		return nil, err
	}
	if b.callBin, err = b.build(ctx, top, "caller"); err != nil {
		return nil, err
	}
	return b, nil
}

// build makes one of the yardsticks.
func (b *bench) build(ctx context.Context, top, name string) (string, error) {
	bin, err := filepath.Abs(filepath.Join(b.dir, name))
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, ".")
	cmd.Dir = filepath.Join(top, "bench", name)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build bench/%s: %w\n%s", name, err, out)
	}
	return bin, nil
}

// fileSystem names the kind of file system, as the kernel numbers it.
func fileSystem(dir string) string {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return err.Error()
	}
	if name, ok := map[int64]string{0xef53: "ext4", 0x01021994: "tmpfs", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x794c7630: "overlay"}[int64(s.Type)]; ok {
		return name
	}
	return "type 0x" + strconv.FormatInt(int64(s.Type), 16)
}

// withHub runs fn against a fresh hub with an empty folder.
func (b *bench) withHub(fn func(*hubproc.Hub) error, flags ...string) (err error) {
	data, err := os.MkdirTemp(b.dir, "hub-")
	if err != nil {
		return err
	}
	h, err := hubproc.New(hubproc.Options{Bin: b.hubBin, Dir: data, Flags: append([]string{"--set", "spoke.sync=always"}, flags...)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close(), os.RemoveAll(data)) }()
	if err := h.Start(); err != nil {
		return err
	}
	return fn(h)
}

// withFloor runs fn against a fresh floor.
func (b *bench) withFloor(ctx context.Context, mode string, fn func(addr string) error) (err error) {
	data, err := os.MkdirTemp(b.dir, "floor-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(data)
	addr, err := hubproc.FreeAddr()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, b.floorBin, "-addr", addr, "-mode", mode, "-dir", data)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		stop()
		return fmt.Errorf("start the floor: %w", err)
	}
	defer func() {
		if cmd.Process.Signal(syscall.Signal(0)) != nil {
			err = errors.Join(err, errors.New("the floor had died: somebody else answered"))
		}
		stop()
		cmd.Wait() // killed: its status says nothing
	}()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return fn(addr)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the floor does not answer: %w", err)
		}
	}
}

// call sends one request that must be answered with the status.
func (b *bench) call(method, url string, body []byte, status int, headers ...string) (string, error) {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != status {
		return "", fmt.Errorf("%s %s: %d, want %d: %.300s", method, url, resp.StatusCode, status, answer)
	}
	return string(answer), nil
}

// channel makes a BATCH channel.
func (b *bench) channel(h *hubproc.Hub, name string) error {
	_, err := b.call("PUT", h.URL+"/channel/"+name, []byte(`{"storage": "BATCH"}`), 201, "Content-Type", "application/json")
	return err
}

// check reads back what a load was told to be stored: it proves that our own child took it.
func (b *bench) check(h *hubproc.Hub, location string, want []byte) error {
	if !h.Running() {
		return fmt.Errorf("the hub has died:\n%s", h.Tail(2000))
	}
	if !strings.HasPrefix(location, h.URL+"/") {
		return fmt.Errorf("an answer named %q, which is not at %s", location, h.URL)
	}
	got, err := b.call("GET", location, nil, 200)
	if err != nil {
		return err
	}
	if got != string(want) {
		return fmt.Errorf("%s holds %d other bytes", location, len(got))
	}
	return nil
}

// metric is a figure of /metrics, summed over its labels; 0 if there is none.
func (b *bench) metric(h *hubproc.Hub, name string) (sum float64, err error) {
	text, err := b.call("GET", h.URL+"/metrics", nil, 200)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == ' ' || rest[0] == '{') {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' ')+1:]), 64)
			if err != nil {
				return 0, fmt.Errorf("metric %s: %w", name, err)
			}
			sum += v
		}
	}
	return sum, nil
}

// memory is a figure of /proc/pid/status in MiB: VmRSS now, VmHWM the maximum ever.
func memory(h *hubproc.Hub, field string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.PID()))
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no %s in /proc", field)
}
