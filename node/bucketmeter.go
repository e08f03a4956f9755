package node

import (
	"context"
	"io"
	"strings"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/metrics"
)

// meteredBucket times the calls that carry items (spec 06 §6: s3.put and s3.get, whatever the store is) and counts those that fail for a reason of the
// store's.
type meteredBucket struct {
	bucket.Bucket
	put, get metrics.Timing
	bytes    metrics.Counter
	errors   metrics.Counter
}

func meterBucket(b bucket.Bucket, r metrics.Registry) bucket.Bucket {
	m := &meteredBucket{
		Bucket: b, put: r.Timing(metrics.S3Put, "", "type", "channel"), get: r.Timing(metrics.S3Get, "", "type", "channel"),
		bytes: r.Counter(metrics.S3PutBytes, "", "type", "channel"), errors: r.Counter(metrics.BucketErrors, "", "method"),
	}
	if e, ok := b.(bucket.Expirer); ok {
		return meteredExpirer{m, e}
	}
	return m
}

// meteredExpirer is a meteredBucket in a store that also removes by age.
type meteredExpirer struct {
	*meteredBucket
	expirer bucket.Expirer
}

// SetRules implements bucket.Expirer.
func (b meteredExpirer) SetRules(ctx context.Context, owner string, rules []bucket.Rule) error {
	err := b.expirer.SetRules(ctx, owner, rules)
	if err != nil {
		b.failed("rules", err)
	}
	return err
}

// classify reads the names of spec 04 §4.1. Other names are not those of items.
func classify(name string) (kind, channel string, ok bool) {
	first, rest, _ := strings.Cut(name, "/")
	switch {
	case strings.HasPrefix(first, "."):
		return "", "", false
	case strings.HasSuffix(first, "Batch") && (strings.HasPrefix(rest, "items/") || strings.HasPrefix(rest, "index/")):
		return "batch", strings.TrimSuffix(first, "Batch"), true
	case strings.HasPrefix(rest, "large/"):
		return "large", first, true
	}
	return "single", first, rest != ""
}

func (b *meteredBucket) failed(method string, err error) {
	switch hub.KindOf(err) {
	case hub.NotFound, hub.Conflict, hub.RangeInvalid, hub.Invalid, hub.Canceled: // answers, no failures
	default:
		b.errors.With(method).Add(1)
	}
}

// Put implements bucket.Bucket.
func (b *meteredBucket) Put(ctx context.Context, name string, body io.Reader, size int64, opt bucket.PutOptions) (bucket.Info, error) {
	begin := time.Now()
	info, err := b.Bucket.Put(ctx, name, body, size, opt)
	if err != nil {
		b.failed("put", err)
		return info, err
	}
	if kind, channel, ok := classify(name); ok {
		b.put.With(kind, channel).Observe(time.Since(begin))
		b.bytes.With(kind, channel).Add(info.Size)
	}
	return info, nil
}

// Get implements bucket.Bucket. It times the call, not the reading of the body.
func (b *meteredBucket) Get(ctx context.Context, name string, offset, n int64, ifMatch string) (io.ReadCloser, bucket.Info, error) {
	begin := time.Now()
	body, info, err := b.Bucket.Get(ctx, name, offset, n, ifMatch)
	if err != nil {
		b.failed("get", err)
		return body, info, err
	}
	if kind, channel, ok := classify(name); ok {
		b.get.With(kind, channel).Observe(time.Since(begin))
	}
	return body, info, nil
}

// Stat implements bucket.Bucket.
func (b *meteredBucket) Stat(ctx context.Context, name string) (bucket.Info, error) {
	info, err := b.Bucket.Stat(ctx, name)
	if err != nil {
		b.failed("stat", err)
	}
	return info, err
}

// List implements bucket.Bucket.
func (b *meteredBucket) List(ctx context.Context, opt bucket.ListOptions) (bucket.Listing, error) {
	l, err := b.Bucket.List(ctx, opt)
	if err != nil {
		b.failed("list", err)
	}
	return l, err
}

// Delete implements bucket.Bucket.
func (b *meteredBucket) Delete(ctx context.Context, names ...string) error {
	err := b.Bucket.Delete(ctx, names...)
	if err != nil {
		b.failed("delete", err)
	}
	return err
}
