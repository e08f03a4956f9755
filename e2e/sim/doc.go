// Package sim simulates a hub that lives a bad life, and judges what it says: seeded writers, readers and an archiver use one node on a disk of memdisk, in
// virtual time, while the disk fails, fills and slows down, clocks jump, and the process dies at chosen calls and starts again. It runs inside a
// testing/synctest bubble.
//
// The parts: Ledger is the judge. It is told of every request and of every answer, knows what the promises of the hub (ENGINE §5) make of them, and keeps the
// history. A Flavor starts a Hub on a disk: Spoke alone (store.go), or the whole service. world.go plays one seed: lives, faults, deaths, restarts, and
// the last look. actors.go holds those who use the hub.
//
// A seed repeats the workload, the faults and the time, not each interleaving of goroutines. So the judge asserts promises, never traces, and prints the
// history of a seed that fails.
package sim
