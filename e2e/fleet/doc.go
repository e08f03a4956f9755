// Package fleet simulates hubs of several nodes that live a bad life, and judges what they say: whole node.Nodes in one process, in a testing/synctest
// bubble, on disks, a network, a bucket and a coordinator in memory, in virtual time. Everybody who uses them does so over HTTP: writers, readers, followers,
// consumers of webhooks, people who make and delete channels. Meanwhile processes die, disks and lines fail, bits flip, sessions end, clocks step, nodes come
// and go.
//
// The judge of items is the Ledger of package sim; hooks.go, follow.go, names.go and limits.go judge callbacks, configurations and what is removed. It knows
// nothing of the inside of the nodes. As there, a seed repeats the workload, the faults and the time, not each interleaving.
//
// The bucket fails in every way but one: its listings never lag, for no hub of this kind survives that (docs/reliability.md).
package fleet
