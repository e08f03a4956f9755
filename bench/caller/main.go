// Command caller is the yardstick of webhooks: it posts n bodies as a webhook does, over so many connections, and prints how many it did in a second. It
// is the least that a caller on net/http must do.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	to := flag.String("to", "", "the address to post to")
	conns := flag.Int("conns", 1, "connections")
	n := flag.Int("n", 1000, "posts")
	flag.Parse()
	fmt.Println(rate(*to, *conns, *n))
}

func rate(to string, conns, n int) float64 {
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: conns, DisableCompression: true}}
	var next atomic.Int64
	var group sync.WaitGroup
	begin := time.Now()
	for range conns {
		group.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(n) {
					return
				}
				body := fmt.Appendf(nil, `{"name":"bench","uris":["http://127.0.0.1:12345/channel/bench/2021/03/04/05/06/07/089/%06d"],"type":"item"}`, i)
				resp, err := c.Post(to, "application/json", bytes.NewReader(body))
				if err != nil {
					log.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					log.Fatal(resp.Status)
				}
			}
		})
	}
	group.Wait()
	return float64(n) / time.Since(begin).Seconds()
}
