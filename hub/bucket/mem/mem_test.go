package mem_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/bucket/buckettest"
	"timehub/hub/bucket/mem"
)

var _ bucket.Bucket = (*mem.Bucket)(nil)

func TestAcceptance(t *testing.T) {
	buckettest.Run(t, func(*testing.T) bucket.Bucket { return mem.New(mem.Options{}) })
}

func put(b *mem.Bucket, name, text string) error {
	_, err := b.Put(context.Background(), name, strings.NewReader(text), -1, bucket.PutOptions{})
	return err
}

func TestFaults(t *testing.T) {
	lost, happened := errors.New("did not persist"), errors.New("persisted")
	var fault mem.Fault
	var last mem.Call
	b := mem.New(mem.Options{Fault: func(c mem.Call) mem.Fault {
		last = c
		return fault
	}})
	fault = mem.Fault{Before: lost}
	if err := put(b, "x", "1"); !errors.Is(err, lost) || len(b.Dump()) != 0 {
		t.Errorf("%v, %v", err, b.Dump())
	}
	if last.Verb != mem.Put || last.Name != "x" || last.Size != 1 {
		t.Errorf("%+v", last)
	}
	fault = mem.Fault{After: happened}
	if err := put(b, "x", "1"); !errors.Is(err, happened) || string(b.Dump()["x"]) != "1" {
		t.Errorf("%v, %v", err, b.Dump())
	}
	fault = mem.Fault{Before: lost}
	if err := b.Delete(context.Background(), "x"); !errors.Is(err, lost) || len(b.Dump()) != 1 {
		t.Errorf("%v, %v", err, b.Dump())
	}
	if _, err := b.List(context.Background(), bucket.ListOptions{}); !errors.Is(err, lost) {
		t.Error(err)
	}
	fault = mem.Fault{}
	if err := put(b, "x", "0123456789"); err != nil {
		t.Fatal(err)
	}
	fault = mem.Fault{Cut: 4}
	body, _, err := b.Get(context.Background(), "x", 0, -1, "")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(body); string(text) != "0123" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", text, err)
	}
	fault = mem.Fault{After: happened}
	if err := b.Delete(context.Background(), "x"); !errors.Is(err, happened) || len(b.Dump()) != 0 {
		t.Errorf("%v, %v", err, b.Dump())
	}
}

func TestDelaysAreVirtualAndDoNotBlockOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mem.New(mem.Options{Fault: func(c mem.Call) mem.Fault {
			if c.Name == "slow" {
				return mem.Fault{Delay: time.Hour, Late: time.Hour}
			}
			return mem.Fault{}
		}})
		start := time.Now()
		done := make(chan error)
		go func() { done <- put(b, "slow", "x") }()
		synctest.Wait()
		if err := put(b, "fast", "x"); err != nil || time.Since(start) != 0 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if err := <-done; err != nil || time.Since(start) != 2*time.Hour {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := b.Stat(ctx, "slow"); !hub.Is(err, hub.Timeout) {
			t.Error(err)
		}
	})
}

func TestImmutable(t *testing.T) {
	var said string
	b := mem.New(mem.Options{
		Immutable: func(name string) bool { return strings.HasPrefix(name, "i/") },
		Complain:  func(s string) { said = s },
	})
	for _, c := range []struct {
		name, text string
		complains  bool
	}{{"i/x", "1", false}, {"i/x", "1", false}, {"m", "1", false}, {"m", "2", false}, {"i/x", "2", true}} {
		said = ""
		if err := put(b, c.name, c.text); err != nil || (said != "") != c.complains {
			t.Errorf("%+v: %v, %q", c, err, said)
		}
	}
}
