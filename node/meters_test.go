package node

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"timehub/hub/metrics"
	"timehub/hub/metrics/prom"
	"timehub/hub/web"
)

func TestRequestMeters(t *testing.T) {
	r := prom.New()
	m := newRequestMeters(r, true)
	for i := range maxRequestKinds + 10 {
		m.observe(web.Observation{Method: "GET", Pattern: "/channel/{channel}", Channel: fmt.Sprint("c", i), Status: 200, Took: time.Millisecond})
	}
	if len(m.known) > maxRequestKinds {
		t.Errorf("%d kinds are remembered", len(m.known))
	}
	for _, o := range []web.Observation{
		{Method: "POST", Pattern: "/channel/{channel}", Channel: "beans", Status: 503}, {Method: "BREW", Pattern: "/provider", Status: 405}, {Method: "GET", Status: 404},
		{Method: "GET", Pattern: "/internal/channel/refresh", Status: 200}, {Method: "GET", Pattern: "/internal/deploy", Status: 400},
	} {
		m.observe(o)
	}
	w := &recorder{header: map[string][]string{}}
	r.Handler().ServeHTTP(w, request(t, "/metrics"))
	for _, want := range []string{
		`hub_request_api_channel_seconds_count{call="GET /channel/{channel}",method="GET"} 10010`,
		`hub_request_api_nonchannel_seconds_count{call="GET unknown",method="GET"} 1`,
		`hub_request_api_nonchannel_seconds_count{call="OTHER /provider",method="OTHER"} 1`,
		`hub_request_internal_channel_seconds_count{call="GET /internal/channel/refresh",method="GET"} 1`,
		`hub_request_internal_nonchannel_seconds_count{call="GET /internal/deploy",method="GET"} 1`,
		`hub_errors_total{call="POST /channel/{channel}",channel="beans",errorCode="503"} 1`,
		`hub_errors_total{call="OTHER /provider",channel="",errorCode="405"} 1`,
	} {
		if !strings.Contains(w.body.String(), want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(w.body.String(), `errorCode="40`+`4"`) || strings.Contains(w.body.String(), `errorCode="400"`) {
		t.Error("404 and 400 are no errors of the hub")
	}
}

// With metrics.enable, both agents get the figures of the documented names.
func TestStatsd(t *testing.T) {
	var ports []string
	lines := make(chan string, 100_000)
	for range 2 {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, port, _ := net.SplitHostPort(conn.LocalAddr().String())
		ports = append(ports, port)
		go func() {
			buf := make([]byte, 65536)
			for {
				n, _, err := conn.ReadFrom(buf)
				if err != nil {
					return
				}
				for line := range strings.SplitSeq(strings.TrimSpace(string(buf[:n])), "\n") {
					lines <- port + " " + line
				}
			}
		}()
	}
	h := run(t, t.TempDir(), "metrics.enable=true", "metrics.statsd.port="+ports[0], "metrics.grafanastatsd.port="+ports[1])
	h.call("PUT", "/channel/beans", "")
	h.call("POST", "/channel/beans", "hello")
	h.call("GET", "/channel/none", "")
	h.stop()
	var want []string
	for _, port := range ports {
		for _, line := range []string{
			"hub.channel.items:1|c|#type:SINGLE,channel:beans", "hub.channel.bytes:5|c|#type:SINGLE,channel:beans",
			"hub.lifecycle.startup.start:1|c|#startup:startup", "hub.lifecycle.startup.complete:1|c|#startup:startup",
			"hub.lifecycle.shutdown.start:1|c|#shutdown:shutdown", "hub.lifecycle.shutdown.complete:1|c|#shutdown:shutdown", "hub.spoke.write.ttl:60|g",
		} {
			want = append(want, port+" "+line)
		}
	}
	missing := map[string]bool{}
	for _, w := range want {
		missing[w] = true
	}
	timed := false
	for deadline := time.After(time.Minute); len(missing) > 0 || !timed; {
		select {
		case line := <-lines:
			delete(missing, line)
			timed = timed || strings.Contains(line, "hub.request.api.channel:") && strings.HasSuffix(line, "|ms|#method:POST,call:POST /channel/{channel},channel:beans")
		case <-deadline:
			t.Fatalf("missing %v, timed %v", missing, timed)
		}
	}
}

// Declared metrics are made by somebody.
func TestEveryMetricIsMade(t *testing.T) {
	h := run(t, t.TempDir())
	defer h.stop()
	made := map[string]bool{}
	for _, name := range h.parts.prom.Names() {
		made[name] = true
		if d := metrics.Lookup(name, 0, "", nil); d.Help == "" {
			t.Errorf("%s is made and not declared in the table", name)
		}
	}
	for _, d := range metrics.Table() {
		if !made[d.Name] {
			t.Errorf("%s is declared and made by nobody", d.Name)
		}
	}
}
