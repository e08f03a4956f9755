// Package fleet simulates hubs of several nodes that live a bad life, and judges what they say: whole node.Nodes in one process, in a testing/synctest
// bubble, on disks, a network, a bucket and a coordinator in memory, in virtual time. Everybody who uses them does so over HTTP: writers, readers, followers,
// consumers of webhooks, people who make and delete channels. Meanwhile processes die, disks and lines fail, sessions end, clocks step, nodes come and go.
//
// The judge of items is the Ledger of package sim; hooks.go, follow.go and names.go judge callbacks and configurations. It knows nothing of the inside of
// the nodes. As there, a seed repeats the workload, the faults and the time, not each interleaving.
package fleet
