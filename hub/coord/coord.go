// Package coord is the contract of agreement between nodes: who is a member, who holds a lease, small versioned values, and cursors. coord/local does
// it in one process, persisted with bbolt or in memory; coord/zk does it through ZooKeeper. Each is finished when coordtest passes.
//
// Names are slash-separated paths of segments that hold letters, digits, and any of "._-:@[]". An error of kind Unavailable means that nothing is known
// about what happened; Conflict, that a version or fence did not hold.
package coord

import (
	"context"
	"errors"
	"strings"

	"timehub/hub"
)

// MaxValue is the greatest size of a register's or member's value in bytes.
const MaxValue = 512 << 10

// ErrLeaseLost is the cause of a context that ended because a lease was lost.
var ErrLeaseLost = errors.New("lease lost")

// Coordinator is one node's session with the others.
type Coordinator interface {
	Members
	Leases
	Registers
	// Run keeps the session until ctx ends; then it gives up leases and membership. Other methods may be called before and while it runs.
	Run(ctx context.Context) error
}

// Members are the nodes that have a session.
type Members interface {
	// Join announces this node under a name, with a value that others can read, for as long as the session lives: at the start of a new one every watch
	// wakes, and the node joins again. Joining again under the same name replaces the value; a name that another session holds is a Conflict.
	Join(ctx context.Context, group, name string, value []byte) error
	// Replace is Join under a name that another session may hold still, with exactly the value old: what a process of this node has left behind of which this one
	// knows that it is dead. Conflict: nobody holds the name, or the value is another one by now. The end of the other session changes nothing any more.
	Replace(ctx context.Context, group, name string, old, value []byte) error
	Leave(ctx context.Context, group, name string) error
	// List returns the members of a group by name, and an epoch that rises with every change.
	List(ctx context.Context, group string) (members []Member, epoch uint64, err error)
	// WatchMembers wakes whenever the group may have changed; the channel holds one token. stop ends the watch.
	WatchMembers(group string) (wake <-chan struct{}, stop func())
}

// Member is one node of a group.
type Member struct {
	Name  string
	Value []byte
}

// Leases are rights to do a named job, held by one node at a time.
type Leases interface {
	// Acquire waits until this node holds the lease, or ctx ends.
	Acquire(ctx context.Context, name string) (Lease, error)
}

// Lease is held until released or lost.
type Lease interface {
	Lost() <-chan struct{} // closed when it may no longer be ours
	Fence() uint64         // rises with every holder of this name, over restarts too
	Release(ctx context.Context) error
}

// Registers are small values (up to 512 KiB) with versions. A Set that returned nil is durable.
type Registers interface {
	// Get returns NotFound if there is no value. Versions rise with every change of the name, also over a Delete.
	Get(ctx context.Context, name string) (value []byte, version uint64, err error)
	// Set writes if the version is still the given one; 0 means: there is no value. Conflict otherwise.
	Set(ctx context.Context, name string, value []byte, version uint64) (newVersion uint64, err error)
	// Update writes several values at once, all or none, and returns their new versions in the order of changes. A name may occur once.
	Update(ctx context.Context, changes []Change) (versions []uint64, err error)
	// Delete removes the value if the version is still the given one; Conflict otherwise.
	Delete(ctx context.Context, name string, version uint64) error
	// Names lists the full names of the registers below a prefix (whole segments; "" is all), sorted.
	Names(ctx context.Context, prefix string) ([]string, error)
	// Watch wakes whenever the register, or one below it, may have changed, and once at the start of every session. The channel holds one token.
	Watch(name string) (wake <-chan struct{}, stop func())
}

// Change is one write of an Update: see Registers.Set.
type Change struct {
	Name    string
	Value   []byte // nil: delete
	Version uint64
	Any     bool // write whatever the version is
}

// CheckName returns an error of kind Invalid unless name is one that every implementation can hold: up to 512 bytes of segments that hold letters,
// digits and "._-:@[]", none of them "." or "..".
func CheckName(name string) error {
	if len(name) > 512 {
		return hub.E(hub.Invalid, "a name in the coordinator has %d bytes: at most 512 are allowed", len(name))
	}
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "" || segment == "." || segment == ".." || strings.ContainsFunc(segment, forbidden) {
			return hub.E(hub.Invalid, "%q is no name in the coordinator: want segments of letters, digits and ._-:@[]", name)
		}
	}
	return nil
}

func forbidden(r rune) bool {
	switch {
	case r >= '0' && r <= '9', r >= 'A' && r <= 'Z', r >= 'a' && r <= 'z':
		return false
	}
	return !strings.ContainsRune("._-:@[]", r)
}
