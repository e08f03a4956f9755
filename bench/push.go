package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"timehub/e2e/hubproc"
)

const (
	pushRate    = 1000 // items a second of the latency row
	pushConns   = 4    // that write them
	manySockets = 1000
	manyRate    = 100 // items a second to each of them
)

// socket is a websocket that is read with as little effort as possible, because it shares the machine with what it measures.
type socket struct {
	conn net.Conn
	in   *bufio.Reader
}

func openSocket(ctx context.Context, addr, path string) (*socket, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path, addr)
	s := &socket{conn, bufio.NewReaderSize(conn, 4<<10)}
	for first := true; ; first = false {
		line, err := s.in.ReadString('\n')
		if err != nil || first && !strings.HasPrefix(line, "HTTP/1.1 101 ") {
			return nil, errors.Join(fmt.Errorf("no websocket: %q, %w", line, err), conn.Close())
		}
		if line == "\r\n" {
			return s, nil
		}
	}
}

// next reads one message; it is valid until the next one. A ping goes unanswered: no row lasts that long.
func (s *socket) next() ([]byte, error) {
	for {
		head, err := s.in.Peek(4)
		if err != nil {
			return nil, fmt.Errorf("read a message: %w", err)
		}
		kind, n, skip := head[0], int(head[1]), 2
		if n == 126 {
			n, skip = int(binary.BigEndian.Uint16(head[2:])), 4
		}
		s.in.Discard(skip)
		text, err := s.in.Peek(n)
		if err != nil {
			return nil, fmt.Errorf("read a message: %w", err)
		}
		s.in.Discard(n)
		switch kind {
		case 0x81:
			return text, nil
		case 0x89:
			continue
		}
		return nil, fmt.Errorf("a frame of kind %#x: %q", kind, text)
	}
}

// paced inserts n items at a rate, over several connections, and tells of each answer: the number of the item, the time, and its address.
func (b *bench) paced(ctx context.Context, addr string, conns, rate, n int, answered func(i int, at time.Time, location string)) error {
	begin := time.Now().Add(50 * time.Millisecond)
	request := post(addr, "/channel/bench", "application/json", b.small)
	var wg sync.WaitGroup
	wrong := make(chan error, conns)
	for c := range conns {
		wg.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				wrong <- err
				return
			}
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
			in := bufio.NewReader(conn)
			for i := c; i < n; i += conns {
				time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(rate))))
				location := ""
				_, err := conn.Write(request)
				if err == nil {
					_, err = readAnswer(in, 201, &location)
				}
				if err != nil {
					wrong <- err
					return
				}
				answered(i, time.Now(), location)
			}
		})
	}
	wg.Wait()
	select {
	case err := <-wrong:
		return fmt.Errorf("insert: %w", err)
	default:
		return ctx.Err()
	}
}

// pushLatency is the time from an insert's answer to its message on a websocket.
func (b *bench) pushLatency(ctx context.Context) error {
	var p50s, p99s []float64
	for range b.opt.runs {
		if err := calm(ctx, b.opt.seconds+time.Second); err != nil {
			return err
		}
		n := int(b.opt.seconds.Seconds() * pushRate)
		err := b.withHub(func(h *hubproc.Hub) error {
			if err := b.channel(h, "bench"); err != nil {
				return err
			}
			times, err := b.pushed(ctx, h, h, n)
			p50s, p99s = append(p50s, percentile(times, 0.50).Seconds()*1000), append(p99s, percentile(times, 0.99).Seconds()*1000)
			return err
		}, "--set", "app.stable_seconds=auto")
		if err != nil {
			return err
		}
	}
	b.add(result{name: rowPush50, hub: figure(median(p50s), "ms"), yardstick: "–", value: median(p50s), unit: "ms", must: 2, aim: 0.5, atMost: true})
	b.add(result{name: rowPush99, hub: figure(median(p99s), "ms"), yardstick: "–", value: median(p99s), unit: "ms", must: 20, aim: 5, atMost: true})
	return nil
}

// pushed inserts n items at pushRate into one node and waits for their messages from a node of the same hub.
func (b *bench) pushed(ctx context.Context, from, at *hubproc.Hub, n int) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, b.opt.seconds+time.Minute)
	defer cancel()
	s, err := openSocket(ctx, at.Addr, "/channel/bench/ws")
	if err != nil {
		return nil, err
	}
	defer s.conn.Close()
	seen := make(map[string]time.Time, n)
	read := make(chan error, 1)
	go func() { // waited for below
		var err error
		for len(seen) < n && err == nil {
			var text []byte
			if text, err = s.next(); err == nil {
				seen[strings.TrimPrefix(string(text), at.URL)] = time.Now()
			}
		}
		read <- err
	}()
	type answer struct {
		at       time.Time
		location string
	}
	answers := make([]answer, n)
	err = b.paced(ctx, from.Addr, pushConns, pushRate, n, func(i int, at time.Time, location string) { answers[i] = answer{at, location} })
	if err != nil {
		s.conn.Close()
		<-read
		return nil, err
	}
	if err := <-read; err != nil {
		return nil, err
	}
	times := make([]time.Duration, 0, n)
	for _, a := range answers {
		at, ok := seen[strings.TrimPrefix(a.location, from.URL)]
		if !ok {
			return nil, fmt.Errorf("no message for %s", a.location)
		}
		times = append(times, max(0, at.Sub(a.at))) // the message may overtake the answer
	}
	return times, nil
}

// manyPushed sends every item to a thousand websockets.
func (b *bench) manyPushed(ctx context.Context) error {
	seconds := b.opt.seconds.Seconds()
	n := int(seconds * manyRate)
	if err := calm(ctx, b.opt.seconds+5*time.Second); err != nil {
		return err
	}
	return b.withHub(func(h *hubproc.Hub) error {
		if err := b.channel(h, "bench"); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, b.opt.seconds+2*time.Minute)
		defer cancel()
		before, err := memory(h, "VmRSS")
		if err != nil {
			return err
		}
		all := make([]*socket, manySockets)
		for i := range all {
			if all[i], err = openSocket(ctx, h.Addr, "/channel/bench/ws"); err != nil {
				return err
			}
			defer all[i].conn.Close()
		}
		idle, err := memory(h, "VmRSS")
		if err != nil {
			return err
		}
		answered := make([]atomic.Int64, n)
		var wg sync.WaitGroup
		late := make([][]time.Duration, len(all))
		wrong := make(chan error, len(all))
		var end atomic.Int64
		for i, s := range all {
			wg.Go(func() {
				for item := range n {
					if _, err := s.next(); err != nil {
						wrong <- err
						return
					}
					now := time.Now().UnixNano()
					end.Store(now)
					if at := answered[item].Load(); at > 0 {
						late[i] = append(late[i], time.Duration(now-at))
					} else {
						late[i] = append(late[i], 0)
					}
				}
			})
		}
		begin := time.Now()
		err = b.paced(ctx, h.Addr, 1, manyRate, n, func(i int, at time.Time, _ string) { answered[i].Store(at.UnixNano()) })
		if err != nil {
			cancel()
		}
		wg.Wait()
		select {
		case e := <-wrong:
			err = errors.Join(err, e)
		default:
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		var times []time.Duration
		for _, l := range late {
			times = append(times, l...)
		}
		took := time.Unix(0, end.Load()).Sub(begin).Seconds()
		rate := float64(len(times)) / max(took, seconds)
		p99 := percentile(times, 0.99)
		b.add(result{name: rowPushMany + " (p99 " + p99.Round(100*time.Microsecond).String() + ", " + strconv.Itoa(int((idle-before)*1024/manySockets)) + " KiB of RSS a socket)",
			hub: thousands(rate) + " messages/s", yardstick: "–", value: rate, unit: "/s", must: 0.9 * manySockets * manyRate, aim: 0.95 * manySockets * manyRate})
		return nil
	}, "--set", "app.stable_seconds=auto", "--set", "spoke.sync=interval") // one connection writes, for the order: it must not wait for a disk that others use
}
