// Package webhook is what a webhook is: its configuration and rules, what it keeps beside its cursor, and the Service that makes, changes, shows and
// removes webhooks and keeps the instances of tag prototypes (spec 03 §1, §4).
//
// The packages below it do the work: run follows channels and delivers, on one node per webhook; deliver makes one call; attempts remembers the last calls;
// rest is the HTTP face. None of them calls its own hub over HTTP.
package webhook
