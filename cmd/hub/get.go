package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"timehub/hub"
)

func (a *app) getCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "get URL|CHANNEL[/latest|/earliest|/KEY]",
		Short: "Print an item",
		Long: `Print the body of an item: by its address, or as CHANNEL/latest (also just CHANNEL), CHANNEL/earliest, CHANNEL/{year}/…/{hash}.

With --json the answer is an object with key, uri, contentType and the body as json, text or base64.`,
		Args:              args(1, 1),
		ValidArgsFunction: a.channelNames,
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			if scheme, _, ok := strings.Cut(given[0], "://"); ok && !isURL(given[0]) {
				return usage("%s: items are at addresses of http or https, not of %s", given[0], scheme)
			}
			item, err := c.GetURL(cmd.Context(), itemAddress(given[0]))
			if hub.Is(err, hub.NotFound) {
				return hub.E(hub.NotFound, "there is nothing at %s", given[0])
			}
			if err != nil {
				return err
			}
			defer item.Body.Close()
			if a.json {
				body, err := io.ReadAll(item.Body)
				if err != nil {
					return fmt.Errorf("read the item: %w", err)
				}
				r := recordOf(item.Key, item.ContentType, body)
				if channel, _, ok := strings.Cut(given[0], "/"); !isURL(given[0]) {
					if !ok {
						channel = given[0]
					}
					r.URI = itemURL(c, channel, item.Key)
				} else {
					r.URI = given[0]
				}
				return a.printJSON(a.stdout, r)
			}
			return a.writeTo(output, func(w io.Writer) error {
				if _, err := io.Copy(w, item.Body); err != nil {
					return fmt.Errorf("read the item: %w", err)
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write to, instead of standard output")
	return cmd
}

func isURL(s string) bool { return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") }

// itemAddress makes an address of CHANNEL[/…].
func itemAddress(s string) string {
	if isURL(s) {
		return s
	}
	channel, rest, _ := strings.Cut(strings.Trim(s, "/"), "/")
	if rest == "" {
		rest = "latest?stable=false&epoch=ALL"
	} else if rest == "latest" || rest == "earliest" {
		rest += "?stable=false&epoch=ALL"
	}
	return "/channel/" + url.PathEscape(channel) + "/" + rest
}

// writeTo writes standard output, or a file: the whole of it, or none. What is no file, a device or a pipe, is written to as it is.
func (a *app) writeTo(output string, write func(w io.Writer) error) error {
	if output == "" || output == "-" {
		return write(a.stdout)
	}
	if target, err := filepath.EvalSymlinks(output); err == nil {
		output = target // the file is replaced, not the link
	}
	switch info, err := os.Stat(output); {
	case err == nil && info.IsDir():
		return usage("--output: %s is a directory", output)
	case err == nil && !info.Mode().IsRegular():
		return writeInto(output, write)
	}
	f, err := os.CreateTemp(filepath.Dir(output), "."+filepath.Base(output)+".*")
	if err != nil {
		return coded{fmt.Errorf("--output: %w", err), exitUsage}
	}
	defer os.Remove(f.Name()) // it has its new name, or is of no use
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		f.Close()
		return fmt.Errorf("write %s: %w", output, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", output, err)
	}
	if err := os.Rename(f.Name(), output); err != nil {
		return fmt.Errorf("write %s: %w", output, err)
	}
	return nil
}

// writeInto writes to something that is there and cannot be replaced.
func writeInto(output string, write func(w io.Writer) error) error {
	f, err := os.OpenFile(output, os.O_WRONLY, 0)
	if err != nil {
		return coded{fmt.Errorf("--output: %w", err), exitUsage}
	}
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", output, err)
	}
	return nil
}
