package s3

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"timehub/hub"
	"timehub/hub/bucket"
)

// highest follows every other character in byte order, so that a name with it ends a group of names.
const highest = "\U0010FFFF"

// List implements bucket.Bucket.
func (b *Bucket) List(ctx context.Context, opt bucket.ListOptions) (bucket.Listing, error) {
	opt, err := opt.Normal()
	if err != nil {
		return bucket.Listing{}, err
	}
	if strings.HasPrefix(opt.Prefix, "/") || strings.Contains(opt.Prefix, "//") {
		return bucket.Listing{}, nil // no name begins like this, and some stores drop the slash
	}
	in := &awss3.ListObjectsV2Input{
		Bucket: &b.opt.Bucket, Prefix: text(opt.Prefix), Delimiter: text(opt.Delimiter), MaxKeys: aws.Int32(int32(min(opt.Max, b.opt.PageSize))),
		StartAfter: text(startAfter(opt)),
	}
	for {
		out, err := b.client.ListObjectsV2(ctx, in)
		if err != nil {
			return bucket.Listing{}, failed(ctx, "list", opt.Prefix, err)
		}
		page := asked(out, opt)
		more := aws.ToBool(out.IsTruncated)
		if more && len(page.Blobs)+len(page.Prefixes) == 0 && aws.ToString(out.NextContinuationToken) != "" {
			in.ContinuationToken = out.NextContinuationToken
			continue
		}
		if more {
			page.Next = last(page)
		}
		return page, nil
	}
}

// startAfter lets a listing begin behind a whole rolled up prefix: the store would roll up the names that follow it once more.
func startAfter(opt bucket.ListOptions) string {
	if opt.After == "" || opt.Delimiter == "" || !strings.HasPrefix(opt.After, opt.Prefix) {
		return opt.After
	}
	rest := opt.After[len(opt.Prefix):]
	if i := strings.Index(rest, opt.Delimiter); i >= 0 {
		return opt.After[:len(opt.Prefix)+i+1] + highest
	}
	return opt.After
}

// asked is the page as the contract wants it: sorted, and nothing at or below After, whatever the store thinks of that.
func asked(out *awss3.ListObjectsV2Output, opt bucket.ListOptions) bucket.Listing {
	var page bucket.Listing
	for _, o := range out.Contents {
		if name := aws.ToString(o.Key); name > opt.After && !strings.HasSuffix(name, "/") {
			page.Blobs = append(page.Blobs, bucket.Info{
				Name: name, Size: aws.ToInt64(o.Size), Version: aws.ToString(o.ETag), Modified: aws.ToTime(o.LastModified),
			})
		}
	}
	for _, p := range out.CommonPrefixes {
		if name := aws.ToString(p.Prefix); name > opt.After {
			page.Prefixes = append(page.Prefixes, name)
		}
	}
	slices.SortFunc(page.Blobs, func(a, b bucket.Info) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(page.Prefixes)
	return page
}

func last(page bucket.Listing) string {
	var name string
	if n := len(page.Blobs); n > 0 {
		name = page.Blobs[n-1].Name
	}
	if n := len(page.Prefixes); n > 0 {
		name = max(name, page.Prefixes[n-1])
	}
	return name
}

// Delete implements bucket.Bucket. It asks for 1,000 names at once.
func (b *Bucket) Delete(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := bucket.CheckName(name); err != nil {
			return err
		}
	}
	if len(names) == 1 {
		_, err := b.client.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: &b.opt.Bucket, Key: &names[0]})
		if err = failed(ctx, "delete", names[0], err); hub.Is(err, hub.NotFound) {
			return nil
		}
		return err
	}
	for chunk := range slices.Chunk(names, bucket.MaxPage) {
		if err := b.deleteSome(ctx, chunk); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (b *Bucket) deleteSome(ctx context.Context, names []string) error {
	ids := make([]types.ObjectIdentifier, len(names))
	for i := range names {
		ids[i].Key = &names[i]
	}
	out, err := b.client.DeleteObjects(ctx, &awss3.DeleteObjectsInput{Bucket: &b.opt.Bucket, Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)}})
	if err != nil {
		return failed(ctx, fmt.Sprintf("delete %d names from", len(names)), names[0], err)
	}
	for _, e := range out.Errors {
		if kind, why := meaning(aws.ToString(e.Code), 0); kind != hub.NotFound {
			return hub.E(kind, "delete %s: %s", aws.ToString(e.Key), why).Because(fmt.Errorf("%s: %s", aws.ToString(e.Code), aws.ToString(e.Message)))
		}
	}
	return nil
}
