package chaos

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"timehub/e2e/clockctl"
	"timehub/e2e/faultproxy"
	"timehub/e2e/hubproc"
	"timehub/e2e/loopdisk"
	"timehub/e2e/s3proc"
	"timehub/e2e/zkproc"
)

const (
	hubPort    = "8080"
	bucketName = "chaos-bucket"
)

// Options say what stands on the stage.
type Options struct {
	Bin        string   // of the hub
	Root       string   // the way to the folder of the module
	Dir        string   // for data and histories; it must exist
	Hubs       int      // 0: 3
	ZooKeepers int      // 0: 3
	Flags      []string // of the hubs
	Disks      bool     // each hub has a disk of its own, whose power can be cut
	Clocks     bool     // Bin has the control of clocks
	Logs       bool     // the hubs say everything, and what they said is kept in Dir also when the test does not fail
}

// Stage is a cluster of processes: hubs, ZooKeeper and S3, which run until the test ends.
type Stage struct {
	Net    *Network
	Hubs   []*hubproc.Hub
	ZK     []*zkproc.Server
	S3     *s3proc.Server
	Proxy  *faultproxy.HTTP // before the S3 server
	Disks  []*loopdisk.Disk // of the hubs, with Options.Disks
	Clocks []*clockctl.Clock
	Bucket string // the folder that the S3 server keeps the bucket in
	Hung   int    // how often ZooKeeper committed nothing more until its leader was started again
	S3Port string // of the address Here, at which hubs reach the S3 server

	t   *testing.T
	opt Options
}

// NewStage starts everything and returns when it is healthy. It belongs into namespaces of the test's own (Inside).
func NewStage(t *testing.T, opt Options) *Stage {
	t.Helper()
	if opt.Hubs == 0 {
		opt.Hubs = 3
	}
	if opt.ZooKeepers == 0 {
		opt.ZooKeepers = 3
	}
	s := &Stage{t: t, opt: opt, Net: NewNetwork(t, opt.Hubs+opt.ZooKeepers)}
	var hosts []string
	for _, p := range s.Net.Places[opt.Hubs:] {
		hosts = append(hosts, p.IP)
	}
	s.S3 = s3proc.Start(t, s3proc.Versity, opt.Root)
	s.Bucket = filepath.Join(s.S3.Dir, bucketName)
	if err := os.Mkdir(s.Bucket, 0o755); err != nil {
		t.Fatal(err)
	}
	s.Proxy = faultproxy.NewHTTP(t, strings.TrimPrefix(s.S3.URL, "http://"))
	s.S3Port = s.carryS3(t)
	s.ZK = zkproc.Start(t, zkproc.Options{Servers: opt.ZooKeepers, Tick: 200 * time.Millisecond, Hosts: hosts, Run: s.startZK})
	for i := range opt.Hubs {
		s.Hubs = append(s.Hubs, s.newHub(t, i))
	}
	for _, h := range s.Hubs {
		if err := h.Launch(); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range s.Hubs {
		if err := h.Ready(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Hub is the place of a hub, ZooKeeper that of a server.
func (s *Stage) Hub(i int) *Place { return s.Net.Places[i] }

// ZooKeeper is the place of a server.
func (s *Stage) ZooKeeper(i int) *Place { return s.Net.Places[s.opt.Hubs+i] }

// URLs are the addresses of the hubs.
func (s *Stage) URLs() []string {
	var all []string
	for _, h := range s.Hubs {
		all = append(all, h.URL)
	}
	return all
}

func (s *Stage) newHub(t *testing.T, i int) *hubproc.Hub {
	t.Helper()
	credentials := filepath.Join(s.opt.Dir, "credentials.properties")
	if err := os.WriteFile(credentials, []byte("accessKey="+s3proc.User+"\nsecretKey="+s3proc.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var zk []string
	for _, z := range s.ZK {
		zk = append(zk, z.Address)
	}
	set := []string{
		"hub.type=aws", "zookeeper.connection=" + strings.Join(zk, ","), "app.shutdown_delay_seconds=0", "app.stable_seconds=auto",
		"s3.endpoint=http://" + Here + ":" + s.S3Port, "s3.bucket_name=" + bucketName, "s3.pathStyleAccessEnable=true", "aws.credentials=" + credentials,
		"aws.retry.max.delay.millis=500", "s3.connectionTimeout=2000", "s3.socketTimeout=5000", "app.large.payload.MB=1", "webhook.retry.first_millis=50",
		"webhook.callbackTimeoutSeconds.default=5",
	}
	var flags []string
	for _, p := range set {
		flags = append(flags, "--set", p)
	}
	dir, env := filepath.Join(s.opt.Dir, fmt.Sprintf("hub%d", i)), []string(nil)
	if s.opt.Disks {
		s.Disks = append(s.Disks, loopdisk.New(t, loopdisk.Options{}))
		dir = filepath.Join(s.Disks[i].Dir, "data")
	}
	if s.opt.Clocks {
		s.Clocks = append(s.Clocks, clockctl.New(t))
		env = s.Clocks[i].Env(0)
	}
	if s.opt.Logs {
		flags = append(flags, "--log-level", "debug")
	}
	h, err := hubproc.New(hubproc.Options{
		Bin: s.opt.Bin, Dir: dir, Env: env, Flags: append(flags, s.opt.Flags...), Addr: s.Hub(i).IP + ":" + hubPort, Start: s.Hub(i).Start,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		log := h.Log()
		for _, bad := range []string{"panic:", "fatal error:", "panic serving", "DATA RACE"} {
			if strings.Contains(log, bad) {
				t.Errorf("the log of hub %d has %q", i, bad)
			}
		}
		if t.Failed() || s.opt.Logs {
			name := filepath.Join(s.opt.Dir, fmt.Sprintf("hub%d.log", i))
			if err := os.WriteFile(name, []byte(log), 0o644); err != nil {
				t.Error(err)
			}
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// Start starts the hubs that do not run; it does not wait for them.
func (s *Stage) Start() error {
	var wrong []error
	for _, h := range s.Hubs {
		if !h.Running() {
			wrong = append(wrong, h.Launch())
		}
	}
	return errors.Join(wrong...)
}

// hangs is how long hubs are not healthy before ZooKeeper is looked at.
const hangs = 15 * time.Second

// unhang starts the leader of an ensemble again that gives nobody a session: there is no other way out of that, and no hub can do it.
func (s *Stage) unhang() {
	for _, z := range s.ZK {
		if z.Commits(5*time.Second) == nil {
			return
		}
	}
	for i, z := range s.ZK {
		if z.Leads() {
			s.Hung++
			s.t.Logf("ZooKeeper hangs: its servers answer, and commit nothing; its leader, server %d, is started again", i)
			z.Kill()
			z.Run(s.t)
			return
		}
	}
}

// Healthy waits until every hub says that it is healthy, and returns what was wrong at the end of that time otherwise.
func (s *Stage) Healthy(within time.Duration) error {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	look := time.Now().Add(hangs)
	for deadline := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(look) {
			s.unhang()
			look = time.Now().Add(hangs)
		}
		var sick []error
		for i, h := range s.Hubs {
			if !h.Running() {
				return fmt.Errorf("hub %d has ended by itself:\n%s", i, h.Tail(3000))
			}
			resp, err := client.Get(h.URL + "/health")
			if err != nil {
				sick = append(sick, fmt.Errorf("hub %d: %w", i, err))
				continue
			}
			b, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				sick = append(sick, fmt.Errorf("hub %d: %d %s", i, resp.StatusCode, clip(string(b))))
			}
		}
		if len(sick) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not healthy after %v: %w", within, errors.Join(sick...))
		}
	}
}
