package node

import (
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

func TestConfigurationPage(t *testing.T) {
	const page = "../docs/configuration.md"
	if *update {
		if err := os.MkdirAll("../docs", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(page, []byte(Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil || string(got) != Markdown() {
		t.Errorf("%s does not say what the table says (%v): go test ./node -run TestConfigurationPage -update", page, err)
	}
}

func TestTable(t *testing.T) {
	names, variables := map[string]bool{}, map[string]string{}
	for _, p := range Properties() {
		if names[p.Name] {
			t.Errorf("%s is declared twice", p.Name)
		}
		names[p.Name] = true
		v := EnvironmentName(p.Name)
		if other := variables[v]; other != "" || isOthers(v) {
			t.Errorf("%s and %s share the variable %s", p.Name, other, v)
		}
		variables[v] = p.Name
		if err := p.check(p.Default); err != nil {
			t.Errorf("the default: %v", err)
		}
		if p.Meaning == "" {
			t.Errorf("%s has no meaning", p.Name)
		}
		if p.Fallback != "" && !names[p.Fallback] {
			defer func() {
				if !names[p.Fallback] {
					t.Errorf("%s falls back to nothing", p.Name)
				}
			}()
		}
	}
	// The profiles of spec 06 §2.10 and §2.11 must be usable as they are.
	for name, file := range map[string]string{
		"single": "hub.type=test\napp.name=hub\napp.environment=single\nzookeeper.connection=localhost:2181\nrunSingleZookeeperInternally=singleNode\n" +
			"app.url=http://localhost:8080/\nhttp.bind_port=8080\nspoke.enforceTTL=true\nchannel.enforceTTL=false\napp.stable_seconds=2\napp.shutdown_delay_seconds=0\n" +
			"hub.protect.channels=false\napp.runNtpMonitor=false\nmetrics.enable=false\napp.large.payload.MB=10000\nstorage.path=/tmp/a\nspoke.path=/tmp/b\napp.remoteTimeFile=/tmp/a/remoteTime",
		"container": "hub.type=test\nhttp.bind_port=80\napp.maxPayloadSizeMB=40\napp.large.payload.MB=10000\napp.lib_path=/opt/hub/lib\nspoke.path=/mnt/spoke\nspoke.ttlMinutes=60\nchannel.enforceTTL=true\n" +
			"http.connect.timeout.seconds=30\nhttp.read.timeout.seconds=120\nzookeeper.connection=localhost:2181\nrunSingleZookeeperInternally=singleNode",
	} {
		if _, _, err := load(file); err != nil {
			t.Errorf("profile %s: %v", name, err)
		}
	}
}

// load loads the text of a file, and more sources if given.
func load(file string, more ...func(*Sources)) (Config, []string, error) {
	s := Sources{File: "/etc/hub/hub.properties", Read: func(string) ([]byte, error) { return []byte(file), nil }}
	for _, m := range more {
		m(&s)
	}
	return Load(s)
}

func TestForce(t *testing.T) {
	const name = "app.stable_seconds"
	env := func(s *Sources) { s.Environ = []string{"PATH=/bin", "HUB_APP_STABLE_SECONDS=4", "HUB_URL=http://x"} }
	set := func(s *Sources) { s.Set = []string{"app.stable_seconds=5", "http.bind_port=99"} }
	listen := func(s *Sources) { s.Listen, s.Data = "[::1]:7", "/var/hub" }
	for _, c := range []struct {
		file          string
		more          []func(*Sources)
		value, origin string
	}{
		{"", nil, "auto", "default"},
		{"# a comment\n app.stable_seconds : 3", nil, "3", "file hub.properties:2"},
		{"app.stable_seconds 3", []func(*Sources){env}, "4", "environment HUB_APP_STABLE_SECONDS"},
		{"app.stable_seconds=3", []func(*Sources){env, set}, "5", "--set"},
		{"app.stable_seconds=3", []func(*Sources){env, set, listen}, "5", "--set"},
	} {
		cfg, warnings, err := load(c.file, c.more...)
		s := cfg.setting(name)
		if err != nil || len(warnings) > 0 || s.Value != c.value || s.Origin != c.origin {
			t.Errorf("%q: %s from %s, %v, %v; want %s from %s", c.file, s.Value, s.Origin, warnings, err, c.value, c.origin)
		}
	}
	cfg, _, _ := load("http.bind_port=1\ndata.dir=/x", set, listen)
	if cfg.Address() != "[::1]:7" || cfg.Text("data.dir") != "/var/hub" {
		t.Errorf("flags are the strongest: %s, %s", cfg.Address(), cfg.Text("data.dir"))
	}
	cfg, _, _ = Load(Sources{Listen: ":0"})
	if cfg.Address() != "0.0.0.0:0" {
		t.Errorf("no host is every address: %s", cfg.Address())
	}
	cfg, _, _ = load("spoke.ttlMinutes=7")
	if cfg.Duration("spoke.write.ttlMinutes") != 7*time.Minute {
		t.Error("spoke.ttlMinutes is what spoke.write.ttlMinutes falls back to")
	}
	cfg, _, _ = load("spoke.ttlMinutes=7\nspoke.write.ttlMinutes=8")
	if cfg.Duration("spoke.write.ttlMinutes") != 8*time.Minute {
		t.Error("spoke.write.ttlMinutes itself is stronger")
	}
}

func TestWhatMakesACluster(t *testing.T) {
	for _, c := range []struct {
		file              string
		cluster           bool
		stable, storage   string
		connection, below string
	}{
		{"", false, "auto", "directory", "", ""},
		{"hub.type=aws", true, "5", "s3", "localhost:2181", "/hub-test"},
		{"hub.type=aws\nstorage.directory=/mnt/shared\napp.stable_seconds=auto", true, "auto", "directory", "localhost:2181", "/hub-test"},
		{"zookeeper.connection=a:1, b:2/deep/er\napp.environment=prod", true, "5", "s3", "a:1,b:2", "/deep/er/hub-prod"},
		{"zookeeper.connection=a:1\nhub.type=test", false, "auto", "directory", "", ""},
		{"zookeeper.connection=a:1\nrunSingleZookeeperInternally=singleNode", false, "auto", "directory", "", ""},
	} {
		cfg, _, err := load(c.file)
		if err != nil || cfg.Cluster() != c.cluster || cfg.Text("app.stable_seconds") != c.stable || cfg.Text("storage.type") != c.storage {
			t.Errorf("%q: cluster %v, %s, %s, %v", c.file, cfg.Cluster(), cfg.Text("app.stable_seconds"), cfg.Text("storage.type"), err)
			continue
		}
		if !c.cluster {
			continue
		}
		if servers, root, err := cfg.zooKeeper(); err != nil || strings.Join(servers, ",") != c.connection || root != c.below {
			t.Errorf("%q: %v below %s, %v", c.file, servers, root, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		file string
		want []string // all in the error
	}{
		{"app.stable_secconds=3", []string{"hub.properties, line 1", `no property "app.stable_secconds"`, "did you mean app.stable_seconds?"}},
		{"zzz=1", []string{`no property "zzz"`, "hub config"}},
		{"\n\nhttp.bind_port=http", []string{"line 3", "http.bind_port", `"http"`, "0 to 65535"}},
		{"http.bind_port=65536", []string{"0 to 65535"}},
		{"http.bind_port=", []string{`"": it must be 0 to 65535`}},
		{"app.stable_seconds=-1", []string{"auto or 0 to 3600 seconds"}},
		{"spoke.sync=sometimes", []string{"always, interval, never"}},
		{"spoke.enforceTTL=yes", []string{"true or false"}},
		{"app.birthDay=2015/02/30", []string{"yyyy/MM/dd"}},
		{"app.url=ftp://x", []string{"http or https"}},
		{"http.bind_ip=a b", []string{"IP address"}},
		{"hub.type=aws\nstorage.type=directory", []string{"storage.directory"}},
		{"hub.type=aws\nzookeeper.connection=zk", []string{"zookeeper.connection", "host:port"}},
		{"hub.type=aws\nzookeeper.connection=zk:99999", []string{"zookeeper.connection", "host:port"}},
		{"hub.type=aws\ncluster.address=a:0", []string{"cluster.address", "host:port"}},
		{"hub.type=aws\ncluster.address=0.0.0.0:8080", []string{"cluster.address", "reach this one"}},
		{"hub.type=aws\ncluster.address=::1:8080", []string{"cluster.address", "brackets"}},
		{"hub.type=aws\ncluster.address=[fe80::1%eth0]:8080", []string{"cluster.address"}},
		{"hub.type=aws\nzookeeper.tls.authority=/x", []string{"zookeeper.tls.authority", "zookeeper.tls is not true"}},
		{"hub.type=aws\nzookeeper.tls=true\nzookeeper.tls.key=/x", []string{"zookeeper.tls.certificate", "both"}},
		{"hub.type=aws\ncluster.trusted=10.1.0.0/16, x", []string{"cluster.trusted", `"x"`}},
		{"hub.type=aws\napp.name=a hub", []string{"a name in ZooKeeper"}},
		{"app.encrypted=true", []string{"TLS proxy"}},
		{"metrics.grafana.api_key=a\nmetrics.grafana.api_key=b", []string{"line 2", "given twice, first in line 1"}},
		{"app.name=\\u12", []string{"line 1", "unicode escape"}},
		{"app.name=\xff", []string{"line 1", "UTF-8"}},
		{"=x", []string{"line 1", "without a name"}},
		{"a=1\nb=2", []string{`"a"`, `"b"`}}, // all of them at once
		{"metrics.influxdb.port=secret", []string{"65535"}},
	} {
		_, _, err := load(c.file)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v; want %s", c.file, err, want)
			}
		}
	}
	for _, s := range []Sources{
		{Set: []string{"app.name"}}, {Set: []string{"x.y=1"}}, {Listen: "8080"}, {Listen: "a:b"}, {Listen: "127.0.0.1:99999"},
		{Environ: []string{"HUB_HTTP_BIND_PORT=tcp://1.2.3.4"}},
		{File: "x", Read: func(string) ([]byte, error) { return nil, errors.New("permission denied") }},
	} {
		if _, _, err := Load(s); err == nil {
			t.Errorf("%+v is accepted", s)
		}
	}
	_, warnings, err := Load(Sources{Environ: []string{"HUB_APP_STABEL=1", "HUB_B=2", "HUB_PORT_8080_TCP=x", "HUB_SERVICE_HOST=y", "HUB_PORT=tcp://z"}})
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "HUB_APP_STABEL, HUB_B;") {
		t.Errorf("one warning about what nobody knows: %q, %v", warnings, err)
	}
}

func TestRedaction(t *testing.T) {
	cfg, _, err := load("metrics.grafana.api_key=k1\nmetrics.influxdb.database.password=p1\napp.url=http://me:pw@hub/\naws.credentials=/etc/secret")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range cfg.All() {
		for _, secret := range []string{"k1", "p1", "pw", "/etc/secret"} {
			if strings.Contains(s.Value, secret) {
				t.Errorf("%s shows %s", s.Name, s.Value)
			}
		}
		if s.Name == "app.url" && s.Value != "http://me:REDACTED@hub/" {
			t.Errorf("%s", s.Value)
		}
	}
}

func TestPropertiesFile(t *testing.T) {
	got, err := parseProperties([]byte("\ufeff# c\r\n! c\r\na=b\r\nc : d\\\r\n   e\re\\ f=g\\u0041\\t.\nh\ni=${a}\\\\\nj=1 # no comment\n\\#k=\\=\n\t l   m  \nn=\\\n\n"))
	want := []entry{{3, "a", "b"}, {4, "c", "de"}, {6, "e f", "gA\t."}, {7, "h", ""}, {8, "i", `${a}\`}, {9, "j", "1 # no comment"}, {10, "#k", "="}, {11, "l", "m  "}, {12, "n", ""}}
	if err != nil || len(got) != len(want) {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}

func FuzzProperties(f *testing.F) {
	for _, s := range []string{"", "a=b", "a:b\\\n c", "\\u0041=1", "\\u00", "#\\\na=1", "a\\", "\\", "=", "a=1\na=2", "\ufeffx y", "a=%s%d\\", "\x00=\x00", "a\\\n\\\n\\u", "x=${y}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseProperties(data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "line ") || len(entries) > 0 {
				t.Fatalf("an error names its line, and nothing else comes with it: %v, %v", err, entries)
			}
			return
		}
		seen := map[string]bool{}
		last := 0
		for _, e := range entries {
			if e.line <= last || e.name == "" || seen[e.name] {
				t.Fatalf("%+v", entries)
			}
			last, seen[e.name] = e.line, true
		}
	})
}
