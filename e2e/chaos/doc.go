// Package chaos is a stage on which whole hubs are hurt: real hub processes, real ZooKeeper servers and a real S3 server, each in a network namespace of
// its own, clients that write down what they asked and were told, a nemesis that kills, stops, cuts off and starves, and a judge that reads what was
// written down and says whether everything that was promised was kept.
//
// Everything lives in namespaces of network, mounts and processes that are made for one test and go with it (Inside), so nothing of the machine is
// touched, and nothing is left when a test is killed. Histories are lines of JSON (Op) by the monotonic clock of the test alone; the judge knows nothing
// but them (Judge), and can be asked again about a folder of them (Load).
package chaos
