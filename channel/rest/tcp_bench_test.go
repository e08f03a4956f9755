package rest

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
)

// overTCP measures requests over kept connections, as a load generator sends them: raw bytes out, and the answer skipped by its length.
func overTCP(b *testing.B, h http.Handler, request string) {
	s := httptest.NewServer(h)
	defer s.Close()
	b.ReportAllocs()
	before := cpu()
	defer func() { b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op") }() // a busy machine does not change this
	b.RunParallel(func(pb *testing.PB) {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		in := bufio.NewReaderSize(c, 16<<10)
		size := 0
		for pb.Next() {
			if _, err := io.WriteString(c, request); err != nil {
				b.Error(err)
				return
			}
			if size == 0 { // the first answer says how long all are
				head, length := 0, 0
				for {
					line, err := in.ReadString('\n')
					if err != nil {
						b.Error(err)
						return
					}
					head += len(line)
					if v, ok := strings.CutPrefix(line, "Content-Length: "); ok {
						for _, d := range strings.TrimSpace(v) {
							length = length*10 + int(d-'0')
						}
					}
					if line == "\r\n" {
						break
					}
				}
				size = head + length
				_, _ = in.Discard(length)
				continue
			}
			if _, err := in.Discard(size); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// cpu is the processor time that the process has used, in nanoseconds.
func cpu() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

// realBody is 1 KiB of real data, or something like it where the repository's copy is not at hand.
func realBody() []byte {
	if b, err := os.ReadFile("testdata/flights-1k.json"); err == nil {
		return b
	}
	return bytes.Repeat([]byte(`{"n": 123456789, "s": "abcdefg"}`), 32)
}

func BenchmarkTCPGetEcho(b *testing.B) {
	body := realBody()
	overTCP(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = []string{"application/json"}
		_, _ = w.Write(body)
	}), "GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n")
}

func BenchmarkTCPGetItem(b *testing.B) {
	w := newWorld(b, nil)
	w.put("orders", "")
	path := w.post("orders", string(realBody()), "Content-Type: application/json")
	overTCP(b, w.rt, "GET "+path+" HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n")
}
