package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"timehub/hub"
	"timehub/hub/bucket"
)

// storeRules is how many lifecycle rules S3 lets a bucket have.
const storeRules = 1000

// SetRules implements bucket.Expirer. The store keeps all rules in one document, which has no version: two hubs that change the rules of one bucket in the same
// moment can undo each other's change, until they set them again.
func (b *Bucket) SetRules(ctx context.Context, owner string, rules []bucket.Rule) error {
	var all []types.LifecycleRule
	var least types.TransitionDefaultMinimumObjectSize // a setting of the document that is not ours either
	had := false
	out, err := b.client.GetBucketLifecycleConfiguration(ctx, &awss3.GetBucketLifecycleConfigurationInput{Bucket: &b.opt.Bucket})
	var api smithy.APIError
	switch {
	case err == nil:
		least, had = out.TransitionDefaultMinimumObjectSize, len(out.Rules) > 0
		for _, r := range out.Rules {
			if !strings.HasPrefix(aws.ToString(r.ID), owner) {
				all = append(all, r)
			}
		}
	case !errors.As(err, &api) || api.ErrorCode() != "NoSuchLifecycleConfiguration":
		return failed(ctx, "read the lifecycle rules of", b.opt.Bucket, err)
	}
	for _, r := range rules {
		if !strings.HasPrefix(r.ID, owner) {
			return hub.E(hub.Invalid, "the rule %q does not belong to %q", r.ID, owner)
		}
		all = append(all, types.LifecycleRule{
			ID: aws.String(r.ID), Status: types.ExpirationStatusEnabled, Filter: &types.LifecycleRuleFilter{Prefix: aws.String(r.Prefix)},
			Expiration: &types.LifecycleExpiration{Days: aws.Int32(int32(r.Days))},
		})
	}
	if len(all) > storeRules {
		return hub.E(hub.Invalid, "the bucket %s would have %d lifecycle rules, of which %d are of others; it takes %d: allow this hub fewer (s3.maxRules)",
			b.opt.Bucket, len(all), len(all)-len(rules), storeRules)
	}
	if len(all) == 0 && !had {
		return nil
	}
	if len(all) == 0 { // a document without rules is none
		_, err = b.client.DeleteBucketLifecycle(ctx, &awss3.DeleteBucketLifecycleInput{Bucket: &b.opt.Bucket})
		return failed(ctx, "remove the lifecycle rules of", b.opt.Bucket, err)
	}
	_, err = b.client.PutBucketLifecycleConfiguration(ctx, &awss3.PutBucketLifecycleConfigurationInput{
		Bucket: &b.opt.Bucket, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: all}, TransitionDefaultMinimumObjectSize: least,
	})
	return failed(ctx, "set the lifecycle rules of", b.opt.Bucket, err)
}

// Probe makes sure that the bucket can be written, read and listed, and that the store honours both conditions of a put (ENGINE §6). It uses names below
// prefix, such as .hub/probe/, and leaves nothing there. An error of kind Unsupported names what the store does not do; any other says that it could not be
// found out now.
func (b *Bucket) Probe(ctx context.Context, prefix string) error {
	name := prefix + strings.ToLower(rand.Text())
	put := func(text string, opt bucket.PutOptions) (bucket.Info, error) {
		return b.Put(ctx, name, strings.NewReader(text), int64(len(text)), opt)
	}
	first, err := put("one", bucket.PutOptions{IfAbsent: true})
	if hub.Is(err, hub.Conflict) { // nobody else knows the name
		return unclear(err)
	}
	if err != nil {
		return fmt.Errorf("write to the bucket %s: %w", b.opt.Bucket, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTidy)
		defer cancel()
		_ = b.Delete(ctx, name)
	}()
	if _, err := put("two", bucket.PutOptions{IfAbsent: true}); !hub.Is(err, hub.Conflict) {
		return ignores("If-None-Match: *", err)
	}
	second, err := put("three", bucket.PutOptions{IfMatch: first.Version})
	if hub.Is(err, hub.Conflict) {
		return unclear(err)
	}
	if err != nil {
		return ignores("If-Match", err)
	}
	if _, err := put("four", bucket.PutOptions{IfMatch: first.Version}); !hub.Is(err, hub.Conflict) {
		return ignores("If-Match", err)
	}
	found, err := b.Stat(ctx, name)
	if err != nil {
		return fmt.Errorf("read from the bucket %s: %w", b.opt.Bucket, err)
	}
	if found.Version != second.Version {
		return hub.E(hub.Unsupported, "the store in which the bucket %s lies does not show a write at once: it cannot be used", b.opt.Bucket)
	}
	page, err := b.List(ctx, bucket.ListOptions{Prefix: name})
	if err != nil {
		return fmt.Errorf("list the bucket %s: %w", b.opt.Bucket, err)
	}
	if len(page.Blobs) != 1 {
		return hub.E(hub.Unsupported, "the store in which the bucket %s lies does not list a write at once: it cannot be used", b.opt.Bucket)
	}
	return nil
}

// probeTidy is how long what a probe has written is tried to be removed.
const probeTidy = 5 * time.Second

// unclear: a put whose answer was lost was sent again and met itself.
func unclear(err error) error {
	return hub.E(hub.Unavailable, "the answer of the store to a conditional put got lost: %v", err).Because(err)
}

// ignores reads the outcome of a put that should have been refused, or done, because of a header. A store that fails has not ignored it.
func ignores(header string, err error) error {
	if err != nil && !hub.Is(err, hub.Unsupported) {
		return fmt.Errorf("find out whether the store honours %s: %w", header, err)
	}
	return hub.E(hub.Unsupported, "the store does not honour %s of a put, so two hubs could overwrite each other: use one that does", header).Because(err)
}
