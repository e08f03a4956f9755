package rest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

func TestItemsReadAgainAndAgain(t *testing.T) {
	w := newWorld(t, nil)
	w.put("old", `{"mutableTime":"2021-01-01"}`)
	w.put("x", "")
	same := strings.Repeat("the same ", 50)
	paths := map[string]string{w.post("x", same): same, w.post("x", strings.Repeat("b", 20<<10)): strings.Repeat("b", 20<<10)}
	for i := range 600 { // more than there are places
		body := strings.Repeat(fmt.Sprint("item ", i, " "), 30)
		paths[w.post("x", body)] = body
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 3 {
				for path, want := range paths {
					for range 2 {
						if r := w.get(path); r.body != want {
							t.Errorf("%s has the body %.40q, want %.40q", path, r.body, want)
						}
					}
				}
			}
		})
	}
	all.Wait()
	const path = "/channel/old/2020/05/05/01/02/03/004/abc"
	for _, body := range []string{strings.Repeat("first ", 40), strings.Repeat("other ", 40)} {
		w.want(w.do("POST", path, body), 201)
		for range 3 {
			if r := w.get(path); r.body != body {
				t.Errorf("a mutable item has the body %.20q, want %.20q", r.body, body)
			}
			if r := w.get(path, "Range: bytes=0-4"); r.body != body[:5] {
				t.Errorf("range %q", r.body)
			}
		}
	}
}
