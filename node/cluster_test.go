package node

import (
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestWhatIsSentOn(t *testing.T) {
	for _, c := range []struct {
		method, path, name string
		change, ok         bool
	}{
		{"GET", "/webhook/a/attempts", "a", false, true}, {"POST", "/group/b/replay", "b", true, true}, {"GET", "/webhook/a", "", false, false},
		{"POST", "/webhook/a/attempts", "", false, false}, {"GET", "/channel/a/attempts", "", false, false}, {"GET", "/webhook/a/attempts/x", "", false, false},
		{"GET", "/", "", false, false}, {"DELETE", "/webhook/a", "a", true, true}, {"DELETE", "/group/a", "a", true, true}, {"PUT", "/webhook/a", "a", true, true},
		{"PUT", "/webhook/a/updateCursor", "a", true, true}, {"DELETE", "/channel/a", "", false, false}, {"GET", "/webhook", "", false, false},
	} {
		r := httptest.NewRequest(c.method, c.path, nil)
		if name, change, ok := forwarded(r); ok != c.ok || name != c.name || change != c.change {
			t.Errorf("%s %s: %q %v %v", c.method, c.path, name, change, ok)
		}
		r.Header.Set(forwardedBy, "node-2")
		if _, _, ok := forwarded(r); ok {
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
