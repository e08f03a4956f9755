package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/itchyny/gojq"
)

// importRecord is one item to be stored.
type importRecord struct {
	body []byte
	at   time.Time // zero without --time
}

// records reads the file and applies the expressions. Expressions and the format are checked at once, the content as it is read; an error of the content
// names the record, counted from 1, and ends the iteration.
func (m *importer) records(r io.Reader) (iter.Seq2[importRecord, error], error) {
	format := m.format
	if format == "" {
		format = map[string]string{".ndjson": "ndjson", ".jsonl": "ndjson", ".csv": "csv"}[strings.ToLower(filepath.Ext(m.file))]
	}
	var values iter.Seq2[any, error]
	expression := m.items
	switch format {
	case "", "json":
		values = jsonValues(r)
		if expression == "" {
			expression = `if type == "array" then .[] else . end`
		}
	case "ndjson":
		values = jsonValues(r)
	case "csv":
		values = csvValues(r)
	default:
		return nil, usage("--format is %q: it must be json, ndjson or csv", m.format)
	}
	if expression == "" {
		expression = "."
	}
	items, err := compile("--items", expression)
	if err != nil {
		return nil, err
	}
	var instant *gojq.Code
	if m.time != "" {
		if instant, err = compile("--time", m.time); err != nil {
			return nil, err
		}
	}
	return func(yield func(importRecord, error) bool) {
		n := int64(0)
		for v, err := range values {
			if err != nil {
				yield(importRecord{}, errRecord(n+1, err))
				return
			}
			for out := items.Run(v); ; {
				item, ok := out.Next()
				if !ok {
					break
				}
				n++
				rec, err := m.record(item, instant)
				if err != nil {
					yield(rec, errRecord(n, err))
					return
				}
				if !yield(rec, nil) {
					return
				}
			}
		}
	}, nil
}

// record makes an item of what an expression yielded.
func (m *importer) record(item any, instant *gojq.Code) (importRecord, error) {
	var rec importRecord
	if err, failed := item.(error); failed {
		return rec, fmt.Errorf("--items: %w", err)
	}
	if s, is := item.(string); is && m.raw {
		rec.body = []byte(s)
	} else {
		body, err := gojq.Marshal(item)
		if err != nil {
			return rec, fmt.Errorf("--items: %w", err)
		}
		rec.body = body
	}
	if instant == nil {
		if len(rec.body) == 0 {
			return rec, errors.New("it is empty, and a bulk insert drops empty items")
		}
		return rec, nil
	}
	v, ok := instant.Run(item).Next()
	if !ok {
		return rec, errors.New("--time yields nothing")
	}
	var err error
	rec.at, err = instantOf(v)
	if err != nil {
		return rec, fmt.Errorf("--time: %w", err)
	}
	return rec, nil
}

// instantOf reads what --time yielded: ISO text or epoch milliseconds.
func instantOf(v any) (time.Time, error) {
	switch v := v.(type) {
	case error:
		return time.Time{}, v
	case string:
		return parseInstant(v)
	case int:
		return time.UnixMilli(int64(v)).UTC(), nil
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return time.UnixMilli(n).UTC(), nil
		}
		if f, err := v.Float64(); err == nil {
			return instantOf(f)
		}
	case float64:
		if math.Abs(v) < 1e15 {
			return time.UnixMilli(int64(math.Floor(v))).UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%v is neither ISO 8601 text nor epoch milliseconds", v)
}

func compile(flag, expression string) (*gojq.Code, error) {
	q, err := gojq.Parse(expression)
	if err != nil {
		return nil, usage("%s %s: %v", flag, expression, err)
	}
	code, err := gojq.Compile(q)
	if err != nil {
		return nil, usage("%s %s: %v", flag, expression, err)
	}
	return code, nil
}

// jsonValues reads JSON values one after the other: one document, or one a line. Numbers keep their digits.
func jsonValues(r io.Reader) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		d := json.NewDecoder(&textReader{r: skipBOM(r), json: true})
		d.UseNumber()
		for {
			var v any
			err := d.Decode(&v)
			if err == io.EOF {
				return
			}
			var syntax *json.SyntaxError
			if errors.As(err, &syntax) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("invalid JSON near byte %d: %w", d.InputOffset(), err)
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// csvValues reads rows as objects of strings, by the names of the first row.
func csvValues(r io.Reader) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		c := csv.NewReader(&textReader{r: skipBOM(r)})
		c.ReuseRecord = true
		head, err := c.Read()
		if err == io.EOF {
			return
		}
		if err != nil {
			yield(nil, err)
			return
		}
		names := append([]string(nil), head...)
		for i, name := range names {
			if slices.Contains(names[:i], name) {
				yield(nil, fmt.Errorf("the first line has the name %q twice: an object can have it once only", name))
				return
			}
		}
		for {
			row, err := c.Read()
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
			object := make(map[string]any, len(names))
			for i, name := range names {
				object[name] = row[i] // a row with another number of fields is an error of the reader
			}
			if !yield(object, nil) {
				return
			}
		}
	}
}

// skipBOM drops the mark that some editors put before UTF-8.
func skipBOM(r io.Reader) io.Reader {
	b := bufio.NewReader(r)
	if mark, err := b.Peek(3); err == nil && bytes.Equal(mark, []byte("\ufeff")) {
		b.Discard(3) //nolint:errcheck // they were peeked
	}
	return b
}
