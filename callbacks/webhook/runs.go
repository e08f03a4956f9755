package webhook

import (
	"context"

	"timehub/hub"
)

// Runs is what the Service needs of those who deliver; run.Manager is it. They learn of webhooks from the catalog (its Watch): a webhook that is new there is
// begun, one that has changed goes on with the new settings, one that is gone or paused is stopped. The Service tells them nothing but this:
type Runs interface {
	// Live is where a webhook stands now, by the word of the node that leads it; false if it does not run or its leader does not answer: then what the cursor
	// says is the best there is.
	Live(ctx context.Context, name string) (Live, bool)
	// Replay lets the leader deliver r once more, beside what is new, and returns how many deliveries that is at least. It is durable when it returns nil;
	// what is paused is replayed when it goes on. The keys of r are sorted and belong to the webhook's channel.
	Replay(ctx context.Context, name string, r Range) (queued int, err error)
	// Stop returns when no loop runs any more that was begun for another life (Born) of the webhook than the one the catalog has now, if any, or when ctx
	// ends. Calls on their way are broken off. It does not keep a loop for the present life from running.
	Stop(ctx context.Context, name string) error
}

// Live is where a running webhook stands.
type Live struct {
	Born   string // the life that this is about
	Cursor hub.Key
	State  State
}
