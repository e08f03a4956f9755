package chaos

import (
	"io"
	"net"
	"testing"
	"time"
)

// TestNetwork: places reach each other and the test, until they are cut off, in one direction or both.
func TestNetwork(t *testing.T) {
	if !Inside(t) {
		return
	}
	n := NewNetwork(t, 2)
	a, b := n.Places[0], n.Places[1]
	echo := func(l net.Listener) {
		t.Cleanup(func() { l.Close() })
		go func() { // ends with the listener
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, "x")
				c.Close()
			}
		}()
	}
	listen := func(p *Place, address string) {
		t.Helper()
		open := func() error {
			l, err := net.Listen("tcp4", address)
			if err == nil {
				echo(l)
			}
			return err
		}
		var err error
		if p == nil {
			err = open()
		} else {
			err = p.Do(open)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	reaches := func(p *Place, address string, want bool) {
		t.Helper()
		limit := 300 * time.Millisecond
		if want { // on a machine that is busy
			limit = time.Minute
		}
		open := func() error {
			c, err := net.DialTimeout("tcp4", address, limit)
			if err != nil {
				return err
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(limit))
			_, err = io.ReadAll(c)
			return err
		}
		var err error
		if p == nil {
			err = open()
		} else {
			err = p.Do(open)
		}
		if (err == nil) != want {
			t.Errorf("%s: %v, want it reached: %v", address, err, want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	listen(a, a.IP+":80")
	listen(b, b.IP+":80")
	listen(nil, Here+":80")
	reaches(nil, a.IP+":80", true)
	reaches(a, b.IP+":80", true)
	reaches(b, a.IP+":80", true)
	reaches(a, Here+":80", true)
	must(n.Cut("apart", Between(a, b)))
	must(n.Cut("here", ToHere(a, "80")))
	reaches(a, b.IP+":80", false) // the first packet is lost
	reaches(b, a.IP+":80", false) // the answer is lost
	reaches(a, Here+":80", false)
	reaches(b, Here+":80", true)
	reaches(nil, a.IP+":80", true)
	must(n.Mend("apart"))
	reaches(a, b.IP+":80", true)
	reaches(a, Here+":80", false)
	must(n.Mend(""))
	reaches(a, Here+":80", true)
}
