package node

import (
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestWhatIsSentOn(t *testing.T) {
	for _, c := range []struct {
		method, path, name string
		ok                 bool
	}{
		{"GET", "/webhook/a/attempts", "a", true}, {"POST", "/group/b/replay", "b", true}, {"GET", "/webhook/a", "", false},
		{"POST", "/webhook/a/attempts", "a", false}, {"GET", "/channel/a/attempts", "", false}, {"GET", "/webhook/a/attempts/x", "", false}, {"GET", "/", "", false},
	} {
		r := httptest.NewRequest(c.method, c.path, nil)
		if name, ok := forwarded(r); ok != c.ok || ok && name != c.name {
			t.Errorf("%s %s: %q %v", c.method, c.path, name, ok)
		}
		r.Header.Set(forwardedBy, "node-2")
		if _, ok := forwarded(r); ok {
			t.Errorf("%s %s is sent on twice", c.method, c.path)
		}
	}
}

func TestTrusted(t *testing.T) {
	cfg, _, err := load("hub.type=aws\ncluster.trusted=10.1.0.0/16, 192.168.3.4,fd00::/8")
	if err != nil {
		t.Fatal(err)
	}
	all, err := cfg.trusted()
	if err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	for address, want := range map[string]bool{"10.1.200.3": true, "10.2.0.1": false, "192.168.3.4": true, "192.168.3.5": false, "fd12::1": true, "::1": false} {
		got := false
		for _, p := range all {
			got = got || p.Contains(netip.MustParseAddr(address))
		}
		if got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}
