// Package apiscript reads and runs HTTP scripts: requests and what must be answered, in a form that people can read who write no Go.
// The form is described in e2e/testdata/api/README.md.
//
// It speaks HTTP over plain TCP connections, one for each request, byte for byte what the script says: no path is cleaned, no header is added but
// Host, Content-Length and Connection, no redirect is followed and nothing is decompressed. So a script can also send what no client library would.
// The package knows nothing of the hub; it is given an address.
package apiscript
