package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"timehub/hub"
	"timehub/hub/client"
)

// historical inserts each record at its own instant. Keys follow from the records alone, so a run that is repeated writes the same bytes under the same
// keys.
func (m *importer) historical(ctx context.Context, records iter.Seq2[importRecord, error]) (summary, error) {
	var (
		mu   sync.Mutex // guards done and its keys
		done summary
		low  hub.Key
		high hub.Key
	)
	keys := keyMaker{}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(m.parallel)
	n := int64(0)
	for rec, err := range records {
		if err != nil {
			g.Wait() //nolint:errcheck // the file's error came first
			return done, err
		}
		if ctx.Err() != nil {
			break
		}
		n++
		number, k := n, keys.next(rec.at, rec.body)
		g.Go(func() error {
			u := client.Upload{ContentType: m.contentType, Body: bytes.NewReader(rec.body), Size: int64(len(rec.body))}
			if _, err := m.client.InsertAt(ctx, m.channel, k, u); err != nil {
				return fmt.Errorf("record %d: %w", number, err)
			}
			mu.Lock()
			defer mu.Unlock()
			done.Items++
			done.Bytes += int64(len(rec.body))
			if low.IsZero() || k.Less(low) {
				low = k
			}
			if high.Less(k) || high.IsZero() {
				high = k
			}
			return nil
		})
	}
	err := g.Wait()
	if !low.IsZero() {
		done.First, done.Last = low.String(), high.String()
	}
	return done, err
}

// keyMaker gives records their keys: the instant, and 6 characters from the record's digest and the number of its occurrence. Two records of one file
// never get the same key.
type keyMaker map[hub.Key]uint64 // keys given, with the number of occurrences that began there

func (m keyMaker) next(at time.Time, body []byte) hub.Key {
	digest := sha256.Sum256(body)
	base := hub.NewKey(at, hashOf(digest, 0))
	n, again := m[base]
	k := base
	for again {
		n++
		k = hub.NewKey(at, hashOf(digest, n))
		_, again = m[k]
	}
	m[base] = n
	if k != base {
		m[k] = 0
	}
	return k
}

func hashOf(digest [sha256.Size]byte, occurrence uint64) string {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(digest[:], occurrence))
	v := binary.BigEndian.Uint64(sum[:])
	var h [6]byte
	for i := range h {
		h[i] = hub.Alphabet[v%62]
		v /= 62
	}
	return string(h[:])
}
