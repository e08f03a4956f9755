package spoke

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"timehub/hub"
	"timehub/hub/web"
	"timehub/spoke/roster"
)

// reachPath is where a node that is to join asks a member whether it can be reached under its own address.
const reachPath = "/internal/spoke/reach"

// reachAnswer is what the member found there.
type reachAnswer struct {
	Disk string `json:"disk"`          // of the node that answered
	Why  string `json:"why,omitempty"` // nobody did
}

// serveReach calls the node that asks at the address that it says it has.
func (c *cluster) serveReach(w http.ResponseWriter, r *http.Request) error {
	node := r.URL.Query().Get("node")
	if node == "" {
		return hub.E(hub.Invalid, "node must be the host:port of the node that is to be reached")
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTime/2) // the one who asks waits no longer than callTime
	defer cancel()
	state, err := c.stateOf(ctx, node)
	if err != nil {
		return web.JSON(w, http.StatusOK, reachAnswer{Why: err.Error()})
	}
	return web.JSON(w, http.StatusOK, reachAnswer{Disk: state.Disk})
}

// reached reports whether a disk that is not on the list may ask to be taken up: not while members answer, and none of them finds this disk at this node's
// address. One with a wrong address would count as a member, without a copy of anything. What is wrong is told by Join.
func (c *cluster) reached(ctx context.Context, rec roster.Roster) bool {
	n := c.n
	n.mu.Lock()
	own, known := n.identity.ID, c.isReached
	n.mu.Unlock()
	if known || len(rec.Disks) == 0 || slices.ContainsFunc(rec.Disks, func(d roster.Disk) bool { return d.ID == own }) {
		return true
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // guards what follows
	found, wrong := false, []string{}
	var wg sync.WaitGroup
	for _, node := range listed(rec) {
		if node == c.opt.Node {
			continue
		}
		wg.Go(func() {
			var a reachAnswer
			if c.ask(ctx, http.MethodGet, node, reachPath, url.Values{"node": {c.opt.Node}}, nil, &a) != nil {
				return // it is gone, or knows no such question: it says nothing
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case a.Disk == own:
				found = true
				cancel()
			case a.Why != "":
				wrong = append(wrong, fmt.Sprintf("%s: %s", node, a.Why))
			default:
				wrong = append(wrong, fmt.Sprintf("%s finds another node there", node))
			}
		})
	}
	wg.Wait()
	may := found || len(wrong) == 0
	why := ""
	if !may {
		slices.Sort(wrong)
		why = fmt.Sprintf("no member reaches this node at its address %s (cluster.address): %s", c.opt.Node, strings.Join(wrong, "; "))
	}
	n.mu.Lock()
	c.isReached, c.notReached = found, why
	n.mu.Unlock()
	return may
}
