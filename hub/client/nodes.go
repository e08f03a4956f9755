package client

import (
	"context"
	"encoding/json"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Cluster is how the nodes stand that are one hub, as one of them sees it.
type Cluster struct {
	Members []string // host:port, sorted
	Leaving []string // being decommissioned
	Left    []string // must be called back before they start
	Nodes   []Node   // what is known of each; empty on a hub that is alone
	Raw     json.RawMessage
}

// Node is one of them, with its disk.
type Node struct {
	Node    string `json:"node"`
	Disk    string `json:"id"`
	Session bool   `json:"session"` // it has one with the coordinator
	Answers bool   `json:"answers"`
	Whole   bool   `json:"whole"` // it has caught up with everything
	Joining bool   `json:"joining"`
	Leaving bool   `json:"leaving"`
	Skew    int64  `json:"skew"` // of its clock, in ms
	Lag     int64  `json:"lag"`  // ms from the clock back to its horizon
	Late    int    `json:"late"` // items that it knows to be late: see LateItems
	Error   string `json:"error"`
}

const clusterPath = "/internal/cluster"

// Cluster asks for the members.
func (c *Client) Cluster(ctx context.Context) (Cluster, error) {
	type server struct{ Server string }
	var d struct {
		SpokeCluster   []server
		Decommissioned struct{ WithinSpokeTTL, DoNotStart []server }
		Detail         json.RawMessage
	}
	if _, err := c.document(ctx, request{method: http.MethodGet, path: clusterPath, again: true}, &d); err != nil {
		return Cluster{}, err
	}
	names := func(list []server) []string {
		out := []string{}
		for _, s := range list {
			out = append(out, s.Server)
		}
		return out
	}
	cl := Cluster{Members: names(d.SpokeCluster), Leaving: names(d.Decommissioned.WithinSpokeTTL), Left: names(d.Decommissioned.DoNotStart), Raw: d.Detail}
	if len(d.Detail) == 0 {
		return cl, nil
	}
	var detail struct{ Disks []Node }
	if err := json.Unmarshal(d.Detail, &detail); err != nil {
		return cl, err
	}
	cl.Nodes = detail.Disks
	return cl, nil
}

// RemoveNode begins to decommission a node; "" is the one that is asked. A hub takes it from callers on its own machine only, and so do the next two.
func (c *Client) RemoveNode(ctx context.Context, node string) error {
	r := request{method: http.MethodPost, path: clusterPath + "/decommission", host: c.local()}
	if node != "" {
		r.query = url.Values{"node": {node}}
	}
	_, err := c.document(ctx, r, nil)
	return err
}

// ReturnNode lets a node that was decommissioned be started again.
func (c *Client) ReturnNode(ctx context.Context, node string) error {
	_, err := c.document(ctx, request{method: http.MethodPost, path: clusterPath + "/recommission/" + url.PathEscape(node), host: c.local()}, nil)
	return err
}

// CloseNode closes now what a node that is gone (host:port), or an incarnation (ordinal.number), has left open. With force, half of the nodes close it if no
// more answer; what the others have then comes late.
func (c *Client) CloseNode(ctx context.Context, what string, force bool) error {
	r := request{method: http.MethodPost, path: clusterPath + "/close/" + url.PathEscape(what), host: c.local()}
	if force {
		r.query = url.Values{"force": {"true"}}
	}
	_, err := c.document(ctx, r, nil)
	return err
}

// LateItem is an item in which answers of the nodes may have differed for a while, because half of them closed by force what others had left open.
type LateItem struct {
	Channel string    `json:"channel"`
	Key     string    `json:"key"`
	Stream  string    `json:"incarnation"` // that was closed: ordinal.number
	Why     string    `json:"why"`         // outside, passed or given-up: see docs/operations.md
	Node    string    `json:"node"`        // that found it
	Found   time.Time `json:"found"`
}

// LateItems are all late items as the asked node knows them, in the order in which it learned of them.
func (c *Client) LateItems(ctx context.Context) iter.Seq2[LateItem, error] {
	return func(yield func(LateItem, error) bool) {
		for from := int64(0); ; {
			var d struct {
				Items []LateItem
				Next  int64
			}
			r := request{method: http.MethodGet, path: clusterPath + "/late", query: url.Values{"from": {strconv.FormatInt(from, 10)}}, again: true}
			if _, err := c.document(ctx, r, &d); err != nil {
				yield(LateItem{}, err)
				return
			}
			for _, i := range d.Items {
				if !yield(i, nil) {
					return
				}
			}
			if from = d.Next; from == 0 {
				return
			}
		}
	}
}

// local is how a caller on the hub's machine has to name the hub, wherever on the loopback network it listens; "": it is none.
func (c *Client) local() string {
	u, err := url.Parse(c.base)
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(u.Hostname()); ip == nil || !ip.IsLoopback() {
		return ""
	}
	if u.Port() == "" {
		return "localhost"
	}
	return net.JoinHostPort("localhost", u.Port())
}
