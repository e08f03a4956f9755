// Package callbacks is the floor of those who tell others of new items: webhooks (callbacks/webhook), websockets and server-sent events
// (callbacks/stream), and the replicas of channels (callbacks/replicate). All of them follow channels by channel/feed; none calls its own hub over HTTP,
// and none imports another. The package itself holds no code.
package callbacks
