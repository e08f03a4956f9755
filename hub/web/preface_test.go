package web

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// noting is a connection that keeps what it was handed.
type noting struct {
	net.Conn
	got []string
}

func (c *noting) Preface(lines []byte) { c.got = append(c.got, string(lines)) }

// TestSharedLines: each line that all answers share goes out once, through the map or by the connection. That the bytes are right in the end is tested
// where there are connections, in the room node.
func TestSharedLines(t *testing.T) {
	rt := newRouter(t, Options{Node: "n1:8080", Version: "1.2.3"})
	rt.Handle("GET", "/plain", func(w http.ResponseWriter, _ *http.Request) error {
		_, err := io.WriteString(w, "plain")
		return err
	})
	rt.Handle("GET", "/flushed", func(w http.ResponseWriter, _ *http.Request) error {
		io.WriteString(w, "a")
		w.(http.Flusher).Flush()
		io.WriteString(w, "b")
		return nil
	})
	rt.Handle("GET", "/nothing", func(http.ResponseWriter, *http.Request) error { return nil })
	rt.Handle("GET", "/fails", func(http.ResponseWriter, *http.Request) error { return errors.New("no") })
	rt.Handle("GET", "/other", func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Server", "Other/1")
		w.Header()["Vary"] = nil
		return nil
	})
	shared := map[string]string{
		"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "origin, content-type, accept, authorization",
		"Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS, HEAD", "Server": "Hub/1.2.3", "Vary": "Accept-Encoding",
	}
	for _, c := range []struct {
		path    string
		handled bool // the handler has said something else
	}{{"/plain", false}, {"/flushed", false}, {"/nothing", false}, {"/nowhere", false}, {"/fails", false}, {"/other", true}} {
		for _, can := range []bool{true, false} {
			conn := &noting{}
			r := httptest.NewRequest("GET", c.path, nil)
			if can {
				r = r.WithContext(ConnContext(r.Context(), conn))
			} else {
				r = r.WithContext(ConnContext(r.Context(), conn.Conn))
			}
			w := httptest.NewRecorder()
			rt.ServeHTTP(w, r)
			byConn := can && !c.handled
			if len(conn.got) > 1 || (len(conn.got) == 1) != byConn {
				t.Errorf("%s: handed over %q", c.path, conn.got)
			}
			for name, value := range shared {
				if c.handled && name == "Server" {
					value = "Other/1"
				}
				if c.handled && name == "Vary" {
					value = ""
				}
				if got := w.Header().Get(name); byConn && (got != "" || strings.Count(conn.got[0], name+": "+value+"\r\n") != 1) || !byConn && got != value {
					t.Errorf("%s: %s is %q in the map, %q by the connection", c.path, name, got, conn.got)
				}
			}
			if w.Header().Get("Hub-Node") != "n1:8080" {
				t.Errorf("%s: Hub-Node is %q", c.path, w.Header().Get("Hub-Node"))
			}
		}
	}
	rt.Handle("GET", "/depends", func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Vary", "Accept")
		return nil
	})
	for range 2 {
		for _, c := range []net.Conn{&noting{}, nil} {
			r := httptest.NewRequest("GET", "/depends", nil)
			w := httptest.NewRecorder()
			rt.ServeHTTP(w, r.WithContext(ConnContext(r.Context(), c)))
			if got := w.Header().Values("Vary"); !slices.Equal(got, []string{"Accept", "Accept-Encoding"}) {
				t.Errorf("Vary is %q", got)
			}
		}
	}
	for _, opt := range []Options{{Version: "1\r\nX: y"}, {Node: "n\n"}} {
		if _, err := New(opt); err == nil {
			t.Errorf("%+v makes a line of its own", opt)
		}
	}
}
