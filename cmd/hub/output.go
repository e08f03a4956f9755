package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"timehub/hub"
	"timehub/hub/client"
)

// printJSON prints a value as indented JSON.
func (a *app) printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// jsonLine is a value as one line of JSON.
func jsonLine(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// lines prints texts, one a line, or as a JSON array.
func (a *app) lines(texts []string) error {
	if a.json {
		if texts == nil {
			texts = []string{}
		}
		return a.printJSON(a.stdout, texts)
	}
	for _, t := range texts {
		if _, err := fmt.Fprintln(a.stdout, t); err != nil {
			return err
		}
	}
	return nil
}

// table prints rows in columns.
func (a *app) table(rows [][]string) error {
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

// printDocument shows the members of a document, in the order in which the hub sent them, without its links.
func (a *app) printDocument(document json.RawMessage) error {
	if a.json {
		return a.printJSON(a.stdout, document)
	}
	d := json.NewDecoder(bytes.NewReader(document))
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	var rows [][]string
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		if name == "_links" {
			continue
		}
		for i, text := range valueTexts(value) {
			if i > 0 {
				name = ""
			}
			rows = append(rows, []string{fmt.Sprint(name), orDash(text)})
		}
	}
	return a.table(rows)
}

// valueTexts is a value for people, in one line or more.
func valueTexts(value json.RawMessage) []string {
	var s string
	var list []string
	var moment struct{ ISO8601 string }
	switch {
	case string(value) == "null":
		return []string{""}
	case json.Unmarshal(value, &s) == nil:
		return []string{s}
	case json.Unmarshal(value, &list) == nil:
		if strings.ContainsAny(strings.Join(list, ""), " /") && len(list) > 0 {
			return list
		}
		return []string{strings.Join(list, ",")}
	case json.Unmarshal(value, &moment) == nil && moment.ISO8601 != "":
		return []string{moment.ISO8601}
	}
	return []string{string(value)}
}

// itemURL is the address of an item.
func itemURL(c *client.Client, channel string, k hub.Key) string {
	return c.URL() + "/channel/" + url.PathEscape(channel) + "/" + keyPath(k)
}

// record is an item as a line of JSON: exactly one of JSON, Text and Base64 is there.
type record struct {
	Key         string          `json:"key"`
	URI         string          `json:"uri,omitempty"`
	ContentType string          `json:"contentType,omitempty"`
	JSON        json.RawMessage `json:"json,omitempty"`
	Text        *string         `json:"text,omitempty"`
	Base64      []byte          `json:"base64,omitempty"`
}

// recordOf describes an item: its body is JSON where its type says so and it is, text where it is UTF-8, base64 otherwise.
// White space of JSON is not kept.
func recordOf(k hub.Key, contentType string, body []byte) record {
	r := record{Key: k.String(), ContentType: contentType}
	main, _, _ := strings.Cut(contentType, ";")
	main = strings.TrimSpace(main)
	switch {
	case (strings.EqualFold(main, "application/json") || strings.HasSuffix(main, "+json")) && json.Valid(body):
		r.JSON = body
	case utf8.Valid(body):
		text := string(body)
		r.Text = &text
	default:
		r.Base64 = body
	}
	return r
}
