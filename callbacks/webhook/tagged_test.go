package webhook

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/hub"
)

const protoBody = `"callbackUrl":"http://printer.example/cb","tagUrl":"http://hub.example/tag/`

func (w *world) proto(name, tag, extra string) *Webhook {
	w.t.Helper()
	return w.mustPut(name, `{`+protoBody+tag+`"`+extra+`}`)
}

func (w *world) want(names ...string) {
	w.t.Helper()
	if got := w.names(); !slices.Equal(got, names) {
		w.t.Errorf("webhooks %v, want %v", got, names)
	}
}

// tagged changes the tags of a channel as the channel service does, and tells of it.
func (w *world) tagged(name string, tags ...string) {
	w.t.Helper()
	before, _ := w.channels.Channel(w.t.Context(), name)
	after := w.channels.add(name, tags...)
	if err := w.svc.ChannelChanged(w.t.Context(), before, after); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) untold(name string) {
	w.t.Helper()
	before, _ := w.channels.Channel(w.t.Context(), name)
	w.channels.drop(name)
	if err := w.svc.ChannelChanged(w.t.Context(), before, nil); err != nil {
		w.t.Fatal(err)
	}
}

func TestInstances(t *testing.T) {
	w := newWorld(t, nil)
	w.channels.add("Orders", "cafe")
	w.channels.add("beans", "cafe", "eu")
	w.channels.add("other", "eu")
	w.proto("p", "cafe", `,"parallelCalls":4,"maxAttempts":3,"secret":"`+key(32)+`","errorChannelUrl":"http://hub.example/channel/e"`)
	w.want("TAGWH_cafe_Orders", "TAGWH_cafe_beans", "p")
	h, err := w.svc.Get(t.Context(), "TAGWH_cafe_Orders")
	if err != nil {
		t.Fatal(err)
	}
	if h.ChannelURL != "http://hub.example/channel/Orders" || h.ManagedByTag != "cafe" || h.ParallelCalls != 4 || h.MaxAttempts != 3 || h.Secret != key(32) ||
		h.TagURL != "" || h.CallbackURL != "http://printer.example/cb" || h.Start != "2021/03/04/05/06/07/089/initial" || h.Born == "" {
		t.Errorf("%+v", h)
	}
	if st := w.status("p"); !st.IsPrototype() || st.LastCompleted != "" {
		t.Errorf("%+v", st)
	}

	// A channel that gets the tag, loses it, is removed.
	w.tagged("new", "cafe")
	w.want("TAGWH_cafe_Orders", "TAGWH_cafe_beans", "TAGWH_cafe_new", "p")
	w.tagged("NEW") // the same channel
	w.want("TAGWH_cafe_Orders", "TAGWH_cafe_beans", "p")
	w.untold("beans")
	w.want("TAGWH_cafe_Orders", "p")
	w.tagged("unrelated", "eu")
	w.want("TAGWH_cafe_Orders", "p")

	// A change of the prototype reaches them, and their place stays.
	w.moved("TAGWH_cafe_Orders", at(7, "x"), State{Last: at(7, "x").String()})
	w.proto("p", "cafe", `,"parallelCalls":9`)
	if st := w.status("TAGWH_cafe_Orders"); st.ParallelCalls != 9 || st.MaxAttempts != 3 || !strings.HasSuffix(st.LastCompleted, "/x") || st.Born != h.Born {
		t.Errorf("%+v", st.Webhook)
	}
	ends, err := w.svc.LastCompleted(t.Context(), "p")
	if err != nil || len(ends) != 1 || ends[0].Name != "TAGWH_cafe_Orders" || !strings.HasSuffix(ends[0].LastCompleted, "/x") {
		t.Errorf("%+v, %v", ends, err)
	}
	if lines, err := w.svc.Errors(t.Context(), "p"); err != nil || len(lines) != 1 || lines[0].Name != "TAGWH_cafe_Orders" {
		t.Errorf("%+v, %v", lines, err)
	}

	// A start moves them all.
	w.proto("p", "cafe", `,"startItem":"http://h/channel/x/2014/01/13/10/42"`)
	if st := w.status("TAGWH_cafe_Orders"); st.LastCompleted != "http://hub.example/channel/Orders/2014/01/13/10/42" {
		t.Errorf("%+v", st)
	}
	if err := w.svc.Delete(t.Context(), "p"); err != nil {
		t.Fatal(err)
	}
	w.want()
}

// TestInstanceNames: tags with a colon, several prototypes, names that can be read in two ways, names of 48 characters and more.
func TestInstanceNames(t *testing.T) {
	w := newWorld(t, nil)
	w.channels.add("c", "a:b")
	w.proto("p1", "a:b", "")
	w.proto("p2", "a:b", "")
	w.want("TAGWH_a_b_c", "TAGWH_a_b_c_p2", "p1", "p2")
	w.tagged("d", "a:b")
	w.want("TAGWH_a_b_c", "TAGWH_a_b_c_p2", "TAGWH_a_b_d", "TAGWH_a_b_d_p2", "p1", "p2")

	w.tagged("b_c", "a") // TAGWH_a_b_c too
	w.proto("p3", "a", "")
	w.want("TAGWH_a_b_c", "TAGWH_a_b_c_p2", "TAGWH_a_b_c_p3", "TAGWH_a_b_d", "TAGWH_a_b_d_p2", "p1", "p2", "p3")
	if err := w.svc.Delete(t.Context(), "p1"); err != nil {
		t.Fatal(err)
	}
	w.want("TAGWH_a_b_c_p2", "TAGWH_a_b_c_p3", "TAGWH_a_b_d_p2", "p2", "p3")
	w.proto("p2", "a:b", `,"maxAttempts":2`) // they keep their names
	w.want("TAGWH_a_b_c_p2", "TAGWH_a_b_c_p3", "TAGWH_a_b_d_p2", "p2", "p3")

	w.tagged("e", "a:b") // the name of a further prototype's instance does not depend on whether the first is still there
	w.want("TAGWH_a_b_c_p2", "TAGWH_a_b_c_p3", "TAGWH_a_b_d_p2", "TAGWH_a_b_e_p2", "p2", "p3")

	long := strings.Repeat("x", 48)
	w.tagged(long, long)
	w.proto(strings.Repeat("y", 128), long, "")
	w.proto("z"+strings.Repeat("y", 127), long, "")
	if name := "TAGWH_" + long + "_" + long + "_z" + strings.Repeat("y", 127); !slices.Contains(w.names(), name) {
		t.Errorf("no webhook of the name %s: %v", name, w.names())
	}
}

// TestTakenNames: a webhook that a person has made is not taken for an instance, nor one instance for another.
func TestTakenNames(t *testing.T) {
	w := newWorld(t, nil)
	w.channels.add("x_p", "a")
	w.mustPut("TAGWH_a_x", `{"callbackUrl":"http://mine.example/","channelUrl":"http://hub.example/channel/x"}`)
	w.proto("p", "a", "")
	w.tagged("x", "a") // its plain name is a person's, the one with the prototype's name that of x_p
	w.want("TAGWH_a_x", "TAGWH_a_x_p", "TAGWH_a_x_p_2", "p")
	if h := w.status("TAGWH_a_x"); h.CallbackURL != "http://mine.example/" || h.Prototype != "" {
		t.Errorf("%+v", h.Webhook)
	}
	if a, b := w.status("TAGWH_a_x_p").ChannelName(), w.status("TAGWH_a_x_p_2").ChannelName(); a != "x_p" || b != "x" {
		t.Errorf("channels %s, %s", a, b)
	}
	if err := w.svc.Delete(t.Context(), "p"); err != nil {
		t.Fatal(err)
	}
	w.want("TAGWH_a_x")
}

// TestPrototypeTag: another tag, other instances.
func TestPrototypeTag(t *testing.T) {
	w := newWorld(t, nil)
	w.channels.add("both", "a", "b")
	w.channels.add("onlya", "a")
	w.proto("p", "a", "")
	w.want("TAGWH_a_both", "TAGWH_a_onlya", "p")
	w.proto("p", "b", "")
	w.want("TAGWH_b_both", "p")
	for _, body := range []string{`{"tagUrl":null,"channelUrl":"http://hub.example/channel/both"}`, `{"tagUrl":"","channelUrl":"http://hub.example/channel/both"}`} {
		if _, _, err := w.put("p", body); !hub.Is(err, hub.Conflict) {
			t.Errorf("%s: %v", body, err)
		}
	}
	if _, _, err := w.put("TAGWH_b_both", `{"tagUrl":"http://hub.example/tag/b"}`); !hub.Is(err, hub.Invalid) {
		t.Errorf("an instance became a prototype: %v", err)
	}
}

// TestPausedInstances: a pause of one instance lasts until a person ends it, on it or on the prototype.
func TestPausedInstances(t *testing.T) {
	w := newWorld(t, nil)
	w.channels.add("c", "a")
	w.channels.add("d", "a")
	w.proto("p", "a", "")
	h, _ := w.svc.Get(t.Context(), "TAGWH_a_c")
	if err := w.svc.PauseByHub(t.Context(), "TAGWH_a_c", h.Born, "410"); err != nil {
		t.Fatal(err)
	}
	paused := func(want string) {
		t.Helper()
		got := fmt.Sprint(w.status("TAGWH_a_c").Paused, w.status("TAGWH_a_d").Paused)
		if got != want {
			t.Errorf("paused %s, want %s", got, want)
		}
	}
	w.proto("p", "a", `,"maxAttempts":4`)
	paused("true false")
	if err := w.svc.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	paused("true false")
	w.proto("p", "a", `,"paused":false`)
	paused("false false")
	w.proto("p", "a", `,"paused":true`)
	paused("true true")
	w.tagged("e", "a")
	if !w.status("TAGWH_a_e").Paused {
		t.Error("an instance that is new is not paused as its prototype is")
	}
}

// TestHeal: whatever a process that died in between has left undone is done at the next look.
func TestHeal(t *testing.T) {
	heal := func(t *testing.T, w *world, names ...string) {
		t.Helper()
		w.node(nil)
		if err := w.svc.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.want(names...)
		writes := len(w.diary.removed) + len(w.runs.stopped)
		if err := w.svc.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		if now := len(w.diary.removed) + len(w.runs.stopped); now != writes {
			t.Error("the second look did something")
		}
	}
	t.Run("channel tagged", func(t *testing.T) {
		w := newWorld(t, nil)
		w.proto("p", "a", "")
		w.channels.add("c", "a")
		heal(t, w, "TAGWH_a_c", "p")
	})
	t.Run("channel untagged and removed", func(t *testing.T) {
		w := newWorld(t, nil)
		w.channels.add("c", "a")
		w.channels.add("d", "a")
		w.channels.add("e", "a")
		w.proto("p", "a", "")
		w.channels.add("c", "b")
		w.channels.drop("d")
		heal(t, w, "TAGWH_a_e", "p")
	})
	t.Run("prototype made, changed, removed", func(t *testing.T) {
		w := newWorld(t, nil)
		w.channels.fail = errTest // nothing but the prototype is written
		if _, _, err := w.put("p", `{`+protoBody+`a"}`); err == nil {
			t.Fatal("no error")
		}
		w.channels.fail = nil
		w.channels.add("c", "a")
		w.want("p")
		heal(t, w, "TAGWH_a_c", "p")

		w.channels.fail = errTest
		if _, _, err := w.put("p", `{"maxAttempts":5}`); err == nil {
			t.Fatal("no error")
		}
		w.channels.fail = nil
		heal(t, w, "TAGWH_a_c", "p")
		if got := w.status("TAGWH_a_c").MaxAttempts; got != 5 {
			t.Errorf("maxAttempts %d", got)
		}

		if _, err := w.catalog.Update(t.Context(), "p", func(*Webhook) (*Webhook, error) { return nil, nil }); err != nil {
			t.Fatal(err)
		}
		heal(t, w)
	})
	t.Run("prototype of another tag", func(t *testing.T) {
		w := newWorld(t, nil)
		w.channels.add("c", "a", "b")
		w.proto("p", "a", "")
		w.channels.fail = errTest
		if _, _, err := w.put("p", `{`+protoBody+`b"}`); err == nil {
			t.Fatal("no error")
		}
		w.channels.fail = nil
		heal(t, w, "TAGWH_b_c", "p")
	})
	t.Run("made twice", func(t *testing.T) {
		w := newWorld(t, nil)
		w.channels.add("c", "a")
		w.proto("p", "a", "")
		h, err := w.svc.Get(t.Context(), "TAGWH_a_c")
		if err != nil {
			t.Fatal(err)
		}
		twin := *h
		twin.Name += "_p"
		if err := w.catalog.Create(t.Context(), twin.Name, &twin); err != nil {
			t.Fatal(err)
		}
		heal(t, w, "TAGWH_a_c", "p")
	})
	t.Run("instance removed by a person", func(t *testing.T) {
		w := newWorld(t, nil)
		w.channels.add("c", "a")
		w.proto("p", "a", "")
		if err := w.svc.Delete(t.Context(), "TAGWH_a_c"); err != nil {
			t.Fatal(err)
		}
		heal(t, w, "TAGWH_a_c", "p")
	})
	t.Run("a store that fails removes nothing", func(t *testing.T) {
		w := newWorld(t, nil)
		w.channels.add("c", "a")
		w.proto("p", "a", "")
		w.channels.fail = errTest
		if err := w.svc.Reconcile(t.Context()); err == nil {
			t.Error("no error")
		}
		w.want("TAGWH_a_c", "p")
	})
}

// TestRun: the looks come by themselves, and stop.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.proto("p", "a", "")
		ended := make(chan error, 1)
		ctx, stop := context.WithCancel(t.Context())
		go func() { ended <- w.svc.Run(ctx) }()
		synctest.Wait()
		w.channels.add("c", "a")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		w.want("TAGWH_a_c", "p")
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestPrototypesInACrowd: prototypes, also one that is called like an instance, channels and looks at the same time, on two nodes. Nobody waits for ever, and after
// a last look there is exactly what there should be.
func TestPrototypesInACrowd(t *testing.T) {
	w := newWorld(t, nil)
	first := w.svc
	nodes := []*Service{first, w.node(nil)}
	protos := []string{"p", "q", "TAGWH_a_c1"}
	var wg sync.WaitGroup
	for i := range 12 {
		svc, rng := nodes[i%2], rand.New(rand.NewPCG(uint64(i), 1))
		wg.Go(func() {
			for range 25 {
				name, channel := protos[rng.IntN(len(protos))], fmt.Sprint("c", rng.IntN(4))
				var err error
				switch rng.IntN(5) {
				case 0:
					p, perr := ParsePatch([]byte(`{` + protoBody + `a","errorChannelUrl":"http://h/channel/` + channel + `"}`))
					if perr != nil {
						t.Error(perr)
					}
					_, _, err = svc.Put(t.Context(), name, p)
				case 1:
					err = svc.Delete(t.Context(), name)
				case 2:
					err = svc.ChannelChanged(t.Context(), nil, w.channels.add(channel, "a"))
				case 3:
					gone := &hub.Channel{Name: channel}
					w.channels.drop(channel)
					err = svc.ChannelChanged(t.Context(), gone, nil)
				case 4:
					err = svc.Reconcile(t.Context())
				}
				// A name that is another's is refused: Invalid or Conflict. Nothing else may fail.
				if err != nil && !hub.Is(err, hub.NotFound) && !hub.Is(err, hub.Conflict) && !hub.Is(err, hub.Invalid) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	w.channels.add("c1", "a")
	w.channels.add("c2", "a")
	for range 2 {
		if err := w.svc.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	all, err := w.svc.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	channels, _ := w.channels.TagChannels(t.Context(), "a")
	count := map[string]int{}
	for _, h := range all {
		if h.Prototype != "" {
			count[h.Prototype]++
		}
	}
	for _, h := range all {
		if h.IsPrototype() {
			if count[h.Name] != len(channels) {
				t.Errorf("prototype %s has %d instances of %d channels: %v", h.Name, count[h.Name], len(channels), w.names())
			}
			delete(count, h.Name)
		}
	}
	if len(count) > 0 {
		t.Errorf("instances without a prototype: %v of %v", count, w.names())
	}
}
