package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"timehub/hub"
	"timehub/hub/client"
)

// The exit codes. They are part of the interface: scripts rely on them.
const (
	exitOK          = 0
	exitFailed      = 1   // something that nobody expected
	exitUsage       = 2   // the command line or the configuration is wrong
	exitNotFound    = 3   // no such channel, item or path
	exitRefused     = 4   // the hub refuses: invalid, forbidden, in conflict, too large
	exitUnavailable = 5   // the hub does not answer, or cannot do it now: try again
	exitData        = 6   // the data directory cannot be used
	exitInterrupted = 130 // ended by a signal before it was done
)

const exitText = `Exit codes: 0 done; 1 failed; 2 wrong command line or configuration; 3 not found; 4 refused by the hub;
5 the hub does not answer or cannot do it now; 6 the data directory cannot be used; 130 interrupted.`

// app is one run of the program.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string

	hubURL string // --hub
	json   bool   // --json
}

// coded is an error with an exit code of its own.
type coded struct {
	error
	code int
}

func (c coded) Unwrap() error { return c.error }

func usage(format string, args ...any) error { return coded{fmt.Errorf(format, args...), exitUsage} }

// run executes a command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	a.json = slices.Contains(args, "--json") // errors of the command line itself are told as JSON too
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(ctx, err)
	if errors.Is(err, errSilent) {
		return code
	}
	if a.json {
		a.printJSON(a.stderr, map[string]any{"error": err.Error(), "kind": kindOf(err, code).String(), "exit": code})
		return code
	}
	fmt.Fprintf(a.stderr, "hub: %s\n", strings.ReplaceAll(err.Error(), "\n", "\nhub: "))
	return code
}

// kindOf is the kind of an error that is told as JSON. What is wrong with a command line or a configuration never met a hub and has no kind of its own.
func kindOf(err error, code int) hub.Kind {
	var e *hub.Error
	if code == exitUsage && !errors.As(err, &e) {
		return hub.Invalid
	}
	return hub.KindOf(err)
}

// errSilent is in the chain of errors that have been told already.
var errSilent = errors.New("told already")

func exitCode(ctx context.Context, err error) int {
	var c coded
	if errors.As(err, &c) {
		return c.code
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	var e *hub.Error
	if !errors.As(err, &e) {
		if errors.Is(err, context.DeadlineExceeded) {
			return exitUnavailable
		}
		return exitFailed
	}
	switch e.Kind {
	case hub.NotFound:
		return exitNotFound
	case hub.Internal, hub.Unavailable, hub.Timeout, hub.Full, hub.TooMany, hub.ShuttingDown, hub.Starting:
		return exitUnavailable
	}
	return exitRefused
}

// root builds the tree of commands.
func (a *app) root() *cobra.Command {
	versionAsked := false
	root := &cobra.Command{
		Use:   "hub",
		Short: "A hub of channels: append items, read them back by time",
		Long: `A hub keeps channels of immutable items, each under a key of UTC time and hash, and answers every query by time.

` + "`hub serve`" + ` runs one on this machine; the other commands talk to the one at --hub.

` + exitText,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if versionAsked {
				return a.printVersion()
			}
			return cmd.Help()
		},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("there is no command %q; 'hub --help' lists them", args[0])
			}
			return nil
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%s; '%s --help' lists the flags", err.Error(), cmd.CommandPath())
	})
	root.Flags().BoolVar(&versionAsked, "version", false, "print the version, as 'hub version' does")
	flags := root.PersistentFlags()
	flags.StringVar(&a.hubURL, "hub", a.env("HUB_URL", "http://127.0.0.1:8080"), "base URL of the hub to talk to (environment HUB_URL)")
	flags.BoolVar(&a.json, "json", false, "print results and errors as JSON")
	root.AddCommand(a.serveCommand(), a.configCommand(), a.versionCommand(), a.channelCommand(), a.putCommand(), a.getCommand(), a.lsCommand(),
		a.tailCommand(), a.webhookCommand(), a.nodeCommand(), a.importCommand(), a.exportCommand())
	return root
}

// env looks a variable up.
func (a *app) env(name, otherwise string) string {
	for _, kv := range a.environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok && v != "" {
			return v
		}
	}
	return otherwise
}

// client connects to the hub of --hub.
func (a *app) client() (*client.Client, error) {
	c, err := client.New(client.Options{URL: a.hubURL})
	if err != nil {
		return nil, coded{fmt.Errorf("--hub: %w", err), exitUsage}
	}
	return c, nil
}

// args checks the number of arguments, with a sentence that says what they are.
func args(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) < low || high >= 0 && len(given) > high {
			return usage("%d arguments do not fit: %s", len(given), cmd.UseLine())
		}
		if slices.Contains(given, "") { // as from a variable of the shell that is not set
			return usage("an argument is empty: %s", cmd.UseLine())
		}
		return nil
	}
}

// channelNames completes the name of a channel by asking the hub.
func (a *app) channelNames(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	c, err := client.New(client.Options{URL: a.hubURL, Tries: 1})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	names, err := c.Channels(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// terminal reports whether a stream is one that a person looks at.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
