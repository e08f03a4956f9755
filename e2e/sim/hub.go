package sim

import (
	"context"
	"time"

	"timehub/hub"
)

// Fate is what a writer was told.
type Fate uint8

// The fates.
const (
	Open         Fate = iota // not answered yet
	Acknowledged             // 201
	Doubtful                 // 503: it may show up later, if the process dies before the failure is on record
	Refused                  // an error that promises that nothing was stored
	Unknown                  // nothing was heard
)

func (f Fate) String() string {
	return [...]string{"open", "acknowledged", "doubtful", "refused", "unknown"}[f]
}

// Kind is a kind of question about a channel.
type Kind uint8

// The kinds. Range has From and To; Next and Previous have Key and N; Latest and Earliest have N.
const (
	Range Kind = iota
	Next
	Previous
	Latest
	Earliest
)

func (k Kind) String() string {
	return [...]string{"range", "next", "previous", "latest", "earliest"}[k]
}

// Ask is one question.
type Ask struct {
	Channel  string
	Kind     Kind
	From, To hub.Key // Range: From ≤ key < To; of Window, if that is not zero
	Window   hub.Window
	Key      hub.Key
	N        int // Range: 0 is no limit
	Stable   bool
	Bodies   bool
	Tier     hub.Tier
	Node     string  // who is asked, of several
	Seen     hub.Key // the horizon that the client says it has seen
}

// query is what the question means.
func (a Ask) query() hub.Query {
	q := hub.Query{Channel: a.Channel, From: hub.MinKey, To: hub.MaxKey, Limit: a.N, Stable: a.Stable, Epoch: hub.AllEpochs, Tier: a.Tier}
	switch a.Kind {
	case Range:
		q.From, q.To = a.From, a.To
	case Next:
		q.From = a.Key.After()
	case Previous:
		q.To, q.Reverse = a.Key, true
	case Latest:
		q.Reverse = true
	}
	return q
}

// Answer is what a hub said. Keys are in the order of the search: newest first for Previous and Latest.
type Answer struct {
	Keys   []hub.Key
	Bodies [][]byte // with Ask.Bodies, one for each key
	// Horizon is a horizon that the answer had at least, Top one that it had at most; equal if the hub says it.
	Horizon, Top hub.Key
	// Silent: the hub says that something may be missing, as too few nodes answered.
	Silent bool
	// Floor was asked after the answer: what lies below it and was archived may be missing.
	Floor hub.Key
}

// Hub is one life of a hub under test.
type Hub interface {
	Service
	// Run serves until ctx ends. Look, called when it serves, and before it is stopped, looks for what nobody can see from outside.
	Run(ctx context.Context, ready func()) error
	Look() error
	Close() error
}

// Service is what people use.
type Service interface {
	Put(ctx context.Context, channel string, body []byte) (hub.Key, Fate, error)
	PutBulk(ctx context.Context, channel string, bodies [][]byte) (hub.Key, Fate, error)
	// Get returns an error of kind NotFound if there is no such item; floor is as in Answer.
	Get(ctx context.Context, channel string, key hub.Key) (body []byte, floor hub.Key, err error)
	Ask(ctx context.Context, a Ask) (Answer, error)
	Horizon(ctx context.Context) (hub.Key, error)
}

// Keyed is a Hub that takes items under keys of their own.
type Keyed interface {
	PutKeyed(ctx context.Context, channel string, key hub.Key, body []byte) (Fate, error)
}

// settled is how long a hub whose disk has become good may take until it works again.
const settled = 20 * time.Second
