package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// load is a closed loop: each connection sends its next request when the last one was answered. It is kept lean, because it shares the machine with
// what it measures: requests are built once, answers are read without being taken apart more than needed.
type load struct {
	addr     string
	conns    int
	request  []byte        // the bytes of every request
	next     func() []byte // instead of request: the bytes of the next one; called by many goroutines
	status   int           // what every answer must be
	warm     time.Duration // not counted
	duration time.Duration // counted
	requests int           // instead of duration: stop after so many
	count    *atomic.Int64 // if set, counts answers as they come
}

// outcome is what a load has seen.
type outcome struct {
	requests int64
	bytes    int64 // of bodies
	elapsed  time.Duration
	times    []time.Duration // one for each request, in no order; only when there are few
	location string          // of the last answer that had one
}

func (o outcome) perSecond() float64 { return float64(o.requests) / o.elapsed.Seconds() }

const manyTimes = 200_000 // beyond so many a connection keeps no more times

func (l load) run(ctx context.Context) (outcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begin := time.Now().Add(l.warm)
	end := begin.Add(l.duration)
	if l.requests > 0 {
		end = begin.Add(time.Hour)
	}
	var left atomic.Int64
	left.Store(int64(l.requests))
	outs := make([]outcome, l.conns)
	var group sync.WaitGroup
	for i := range l.conns {
		group.Go(func() {
			if err := l.one(ctx, begin, end, &left, &outs[i]); err != nil {
				cancel(err)
			}
		})
	}
	group.Wait()
	if err := context.Cause(ctx); err != nil {
		return outcome{}, err
	}
	sum := outcome{elapsed: min(time.Since(begin), end.Sub(begin))}
	for _, o := range outs {
		sum.requests += o.requests
		sum.bytes += o.bytes
		sum.times = append(sum.times, o.times...)
		if o.location != "" {
			sum.location = o.location
		}
	}
	return sum, nil
}

// one is one connection's loop.
func (l load) one(ctx context.Context, begin, end time.Time, left *atomic.Int64, out *outcome) error {
	conn, err := net.Dial("tcp", l.addr)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	in := bufio.NewReaderSize(conn, 64<<10)
	request := l.request
	for {
		if l.requests > 0 && left.Add(-1) < 0 {
			return nil
		}
		if l.next != nil {
			request = l.next()
		}
		start := time.Now()
		if !start.Before(end) {
			return nil
		}
		if _, err := conn.Write(request); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		n, err := readAnswer(in, l.status, &out.location)
		if err != nil {
			return err
		}
		done := time.Now()
		if l.count != nil {
			l.count.Add(1)
		}
		if start.Before(begin) || done.After(end) {
			continue
		}
		out.requests++
		out.bytes += n
		if len(out.times) < manyTimes {
			out.times = append(out.times, done.Sub(start))
		}
	}
}

// readAnswer reads one answer to its end and returns the length of its body.
func readAnswer(in *bufio.Reader, status int, location *string) (int64, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return 0, fmt.Errorf("read answer: %w", err)
	}
	if len(line) < 12 || string(line[9:12]) != strconv.Itoa(status) {
		rest, _ := in.Peek(min(in.Buffered(), 800))
		return 0, fmt.Errorf("answer %q, want %d: %s", bytes.TrimSpace(line), status, rest)
	}
	length, chunked := int64(-1), false
	for {
		if line, err = in.ReadSlice('\n'); err != nil {
			return 0, fmt.Errorf("read answer: %w", err)
		}
		if len(line) <= 2 {
			break
		}
		switch {
		case hasName(line, "content-length:"):
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(line[15:])), 10, 64); err != nil {
				return 0, fmt.Errorf("read answer: %w", err)
			}
		case hasName(line, "transfer-encoding:"):
			chunked = true
		case hasName(line, "location:") && len(*location) == 0:
			*location = string(bytes.TrimSpace(line[9:]))
		}
	}
	switch {
	case chunked:
		return discardChunks(in)
	case length < 0:
		return 0, fmt.Errorf("answer without a length")
	}
	if _, err := in.Discard(int(length)); err != nil {
		return 0, fmt.Errorf("read answer: %w", err)
	}
	return length, nil
}

func discardChunks(in *bufio.Reader) (sum int64, err error) {
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, fmt.Errorf("read chunk: %w", err)
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 64)
		if err != nil {
			return 0, fmt.Errorf("read chunk: %w", err)
		}
		if _, err := io.CopyN(io.Discard, in, n+2); err != nil {
			return 0, fmt.Errorf("read chunk: %w", err)
		}
		if sum += n; n == 0 {
			return sum, nil
		}
	}
}

// hasName compares the begin of a header line with a name in lower case.
func hasName(line []byte, name string) bool {
	if len(line) < len(name) {
		return false
	}
	for i := range len(name) {
		c := line[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != name[i] {
			return false
		}
	}
	return true
}

// post builds a request.
func post(addr, path, contentType string, body []byte) []byte {
	return append(fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", path, addr, contentType, len(body)), body...)
}

func get(addr, path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, addr)
}
