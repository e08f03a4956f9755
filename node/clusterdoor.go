package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"timehub/hub"
	"timehub/internalapi"
	"timehub/spoke"
)

var _ internalapi.Cluster = clusterDoor{}

// clusterDoor is what internalapi may see and do of the cluster.
type clusterDoor struct{ *spoke.Node }

// Cluster implements internalapi.Cluster.
func (d clusterDoor) Cluster(ctx context.Context) (internalapi.ClusterState, error) {
	v, err := d.Members(ctx)
	if err != nil {
		return internalapi.ClusterState{}, err
	}
	s := internalapi.ClusterState{Left: v.Left, Detail: v}
	for _, disk := range v.Disks {
		if disk.Leaving {
			s.Leaving = append(s.Leaving, disk.Node)
		} else {
			s.Members = append(s.Members, disk.Node)
		}
	}
	return s, nil
}

// LateItems implements internalapi.Cluster.
func (d clusterDoor) LateItems(_ context.Context, from int64, limit int) (items any, count int, next int64, err error) {
	list, count, next, err := d.Late(from, limit)
	if list == nil {
		list = []spoke.LateItem{}
	}
	return list, count, next, err
}

// maxPage bounds what another node's page may be.
const maxPage = 16 << 20

// fetch asks another node, named as in Hub-Node, for one of its pages, at the address at which nodes reach each other.
func (n *Node) fetch(ctx context.Context, node, path string) (status int, body []byte, err error) {
	address := n.parts.members.address(node)
	if address == "" {
		return 0, nil, hub.E(hub.NotFound, "there is no node %s", node)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("ask %s: %w", node, err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: n.env.Dial, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("ask %s: %w", node, err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxPage))
	return resp.StatusCode, body, err
}

// nodesGroup holds the nodes that are healthy, by the addresses at which they reach each other.
const nodesGroup = "nodes"

// memberNote is what a node says of itself there.
type memberNote struct {
	Node string `json:"node"` // as in Hub-Node
}

// members remembers who was there when the coordinator answered last.
type members struct {
	mu        sync.Mutex        // guards what follows
	addresses map[string]string // by the name in Hub-Node
}

func (m *members) set(addresses map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.addresses = addresses
}

// names are those of Hub-Node, sorted.
func (m *members) names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.addresses {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// others are the addresses of all but one.
func (m *members) others(own string) (list []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, address := range m.addresses {
		if name != own {
			list = append(list, address)
		}
	}
	return list
}

func (m *members) address(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.addresses[name]
}

// runMembership says that this node is healthy, looks who else is, and ends the node when it has been taken off the list.
func (n *Node) runMembership(ctx context.Context, ready func()) error {
	wake, stop := n.parts.coordinator.WatchMembers(nodesGroup)
	defer stop()
	n.parts.members.set(map[string]string{n.name(): n.clusterAddress()})
	n.lookAtMembers(ctx)
	ready()
	every := time.NewTicker(time.Second) // a session from before may hold the name
	defer every.Stop()
	for own := true; ; {
		if own {
			own = n.endTurn(ctx) != nil
		}
		select {
		case <-wake:
		case <-every.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if err := n.parts.coordinator.Leave(last, nodesGroup, n.clusterAddress()); err != nil { // it ends with the session anyway
				n.log.Debug("this node could not be taken off the list of nodes", "err", err)
			}
			return nil
		}
		if n.parts.spoke.Left() {
			return n.left()
		}
		n.lookAtMembers(ctx)
	}
}

// left is why a decommissioned node does not run.
func (n *Node) left() error {
	return hub.E(hub.Conflict, "this node, %s, was decommissioned: the others have everything that it had; POST /internal/cluster/recommission/%s at one of them "+
		"before it is started again", n.clusterAddress(), n.clusterAddress())
}

func (n *Node) lookAtMembers(ctx context.Context) {
	c, address := n.parts.coordinator, n.clusterAddress()
	own, err := json.Marshal(memberNote{n.name()})
	if err != nil {
		return
	}
	list, _, err := c.List(ctx, nodesGroup)
	if err != nil { // those of before stay
		return
	}
	addresses, there := map[string]string{n.name(): address}, false
	for _, m := range list {
		var note memberNote
		if m.Name == address {
			there = string(m.Value) == string(own)
		} else if json.Unmarshal(m.Value, &note) == nil && note.Node != n.name() {
			addresses[note.Node] = m.Name
		}
	}
	n.parts.members.set(addresses)
	if there {
		return
	}
	if err := c.Join(ctx, nodesGroup, address, own); err != nil && ctx.Err() == nil {
		n.log.Debug("this node could not be announced; it is tried again", "err", err)
	}
}
