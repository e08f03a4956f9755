package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"timehub/e2e/hubproc"
	"timehub/e2e/loopdisk"
)

// powerCuts is how often the power of the whole cluster is cut: 3 in CI, more by `make chaos`.
var powerCuts = flag.Int("cluster.cuts", 3, "power cuts of a whole cluster")

// startOnDisks is startCluster with the data directory of each node on a file system of its own.
func startOnDisks(t *testing.T, flags ...string) (*hubCluster, []*loopdisk.Disk) {
	t.Helper()
	var disks []*loopdisk.Disk
	for range 3 {
		disks = append(disks, loopdisk.New(t, loopdisk.Options{}))
	}
	c := startClusterOf(t, func(i int, flags []string) *hubproc.Hub {
		return prepareWith(t, &hubBinary, hubproc.Options{Flags: flags, Dir: filepath.Join(disks[i].Dir, "data")})
	}, append([]string{"--set", "storage.directory=" + filepath.Join(t.TempDir(), "shared"), "--set", "app.stable_seconds=auto"}, flags...)...)
	return c, disks
}

// make makes a channel that all nodes know.
func (c *hubCluster) make(t *testing.T, channel string) {
	t.Helper()
	putChannel(t, c.hubs[0].URL, channel, `{}`)
	for _, h := range c.hubs {
		waitChannel(t, h.URL, channel, patience)
	}
}

// TestClusterPowerCut cuts the power of all three nodes at the same instant under load, again and again: what was acknowledged is there afterwards, on all
// nodes, in one order, and what was stable stays.
func TestClusterPowerCut(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	t.Parallel()
	rng := seeded(t)
	c, disks := startOnDisks(t)
	var crowds []*crowd
	acked := 0
	const rounds = 10 // with one channel: each check reads all of it
	for cut := range *powerCuts {
		if cut%rounds == 0 {
			channel := fmt.Sprint("power-", cut)
			c.make(t, channel)
			crowds = append(crowds, c.gather(channel))
		}
		w := crowds[len(crowds)-1]
		w.run(t)
		time.Sleep(time.Duration(200+rng.IntN(800)) * time.Millisecond)
		c.cutPower(t, disks, w)
		c.start(t)
		w.check(t)
		if t.Failed() {
			t.Fatalf("power cut %d", cut)
		}
		if cut%rounds == rounds-1 || cut == *powerCuts-1 {
			acked += len(w.acked())
			t.Logf("%d power cuts, %d items acknowledged", cut+1, acked)
		}
	}
	for _, w := range crowds {
		w.samples = nil // checked already
		w.check(t)
	}
	t.Logf("%d power cuts of all three nodes, %d items acknowledged, all there", *powerCuts, acked)
}

// cutPower cuts the power under load, and ends what ran on it. The crowd stops.
func (c *hubCluster) cutPower(t *testing.T, disks []*loopdisk.Disk, w *crowd) {
	t.Helper()
	took, err := loopdisk.PowerCut(disks...)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range c.hubs {
		h.Kill()
	}
	w.stop()
	t.Logf("the power was cut before %s, within %v", time.Now().Format("05.000000"), took)
	client.CloseIdleConnections()
	for _, one := range w.writers { // a node without a disk may say so in any way
		one.wrong = nil
	}
	for _, d := range disks {
		if err := d.Restore(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestClusterDiskFull fills the disk of one node: it says 507 and goes on reading, the clients of the others notice nothing, and when there is room again it
// takes items without anybody's help.
func TestClusterDiskFull(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	t.Parallel()
	c, disks := startOnDisks(t, unhurried...)
	c.make(t, "full")
	c.make(t, "full-probe")
	w := c.gather("full")
	for _, leave := range []int64{100 << 20, 0} { // below the limit at which it stops, and not a byte
		w.stay()
		w.run(t)
		time.Sleep(500 * time.Millisecond)
		if err := disks[1].Fill(leave); err != nil {
			t.Fatal(err)
		}
		refused := func() bool {
			r, err := call(t.Context(), "POST", c.hubs[1].URL+"/channel/full", []byte(fmt.Sprint("probe ", rand.Uint64())), "Content-Type", "text/plain")
			return err == nil && r.status == 507 && r.header.Get("Retry-After") != ""
		}
		eventually(t, "the full node says so", refused)
		if r := must(t, 200, "GET", c.hubs[1].URL+"/health", nil); !bytes.Contains(r.body, []byte("disk")) {
			t.Errorf("/health says nothing of the disk: %s", r.body)
		}
		w.stop()
		w.stay()
		w.run(t)
		time.Sleep(1500 * time.Millisecond)
		for range 10 { // it reads, what the others take too
			key := untilWritten(t, c.hubs[0].URL+"/channel/full-probe", time.Minute)
			waitItem(t, c.hubs[1].URL+"/channel/full-probe/"+key, patience)
		}
		w.stop()
		for _, node := range []int{0, 2} {
			got := w.got(node)
			if got["201"] < 5 || len(got) > 1 {
				t.Errorf("%d bytes left on another node: the clients of node %d were told %v", leave, node, got)
			}
		}
		if got := w.got(1); got["507 later"] == 0 || len(got) > 1 {
			t.Errorf("%d bytes left: the clients of the full node were told %v", leave, got)
		}
		if err := disks[1].Empty(); err != nil {
			t.Fatal(err)
		}
		untilWritten(t, c.hubs[1].URL+"/channel/full-probe", time.Minute)
		w.check(t)
	}
}

// TestClusterBadSyncs: one node whose syncs fail, or take long, keeps nobody from writing to the others. Healed, it comes back.
func TestClusterBadSyncs(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	t.Parallel()
	c, _ := startOnDisks(t, unhurried...)
	c.make(t, "syncs")
	w := c.gather("syncs")
	for _, syncs := range []loopdisk.Syncs{{Error: "EIO"}, {Delay: time.Second}} {
		w.stay()
		w.run(t)
		time.Sleep(300 * time.Millisecond)
		heal := loopdisk.Spoil(t, c.hubs[1].PID(), syncs)
		time.Sleep(3 * time.Second)
		w.stop()
		heal()
		for _, node := range []int{0, 2} {
			if got := w.got(node); got["201"] < 5 || len(got) > 1 {
				t.Errorf("%+v on another node: the clients of node %d were told %v", syncs, node, got)
			}
		}
		t.Logf("%+v: the clients of the node were told %v", syncs, w.got(1))
		if syncs.Error != "" && !strings.Contains(c.hubs[1].Log(), "input/output error") {
			t.Error("the log of the node says nothing of it")
		}
		w.stay()
		w.run(t)
		eventually(t, "the node takes items again", func() bool {
			r, err := call(t.Context(), "POST", c.hubs[1].URL+"/channel/syncs", []byte(fmt.Sprint("probe ", rand.Uint64())), "Content-Type", "text/plain")
			return err == nil && r.status == 201
		})
		time.Sleep(300 * time.Millisecond)
		w.stop()
		w.check(t)
	}
}
