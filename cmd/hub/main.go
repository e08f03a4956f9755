// Command hub is the whole product in one binary: `hub serve` runs a hub; the other commands talk to one over HTTP. There is one file per command;
// what they share (streams, the client, exit codes, printing) is in app.go and output.go.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	unhook := context.AfterFunc(ctx, stop) // a second signal ends the process at once
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ()}
	code := a.run(ctx, os.Args[1:])
	unhook()
	stop()
	os.Exit(code)
}
