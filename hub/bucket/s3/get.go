package s3

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"timehub/hub"
	"timehub/hub/bucket"
)

// resumes is how often one read is taken up again without a byte in between.
const resumes = 3

// Get implements bucket.Bucket.
func (b *Bucket) Get(ctx context.Context, name string, offset, n int64, ifMatch string) (io.ReadCloser, bucket.Info, error) {
	if err := bucket.CheckName(name); err != nil {
		return nil, bucket.Info{}, err
	}
	if offset < 0 || n == 0 {
		return b.nothing(ctx, name, offset, n, ifMatch)
	}
	body, found, err := b.open(ctx, name, offset, n, ifMatch)
	if hub.Is(err, hub.RangeInvalid) && offset == 0 {
		return b.nothing(ctx, name, offset, n, ifMatch) // an empty blob has no range at all
	}
	if err != nil {
		return nil, bucket.Info{}, err
	}
	length, err := bucket.Section(name, offset, n, found.Size)
	if err != nil {
		_ = body.Close()
		return nil, bucket.Info{}, err
	}
	return &reader{ctx: ctx, b: b, name: name, version: found.Version, at: offset, end: offset + length, body: body}, found, nil
}

// nothing answers a read of no bytes, which the protocol cannot ask for.
func (b *Bucket) nothing(ctx context.Context, name string, offset, n int64, ifMatch string) (io.ReadCloser, bucket.Info, error) {
	found, err := b.Stat(ctx, name)
	if err != nil {
		return nil, bucket.Info{}, err
	}
	if ifMatch != "" && found.Version != ifMatch {
		return nil, bucket.Info{}, hub.E(hub.Conflict, "%s is not there in version %s", name, ifMatch)
	}
	length, err := bucket.Section(name, offset, n, found.Size)
	if err != nil {
		return nil, bucket.Info{}, err
	}
	if length > 0 { // it was replaced by a longer one in between
		return nil, bucket.Info{}, hub.E(hub.Unavailable, "%s was replaced while it was read: try again", name)
	}
	return http.NoBody, found, nil
}

// open asks for n bytes (n < 0: the rest) from offset.
func (b *Bucket) open(ctx context.Context, name string, offset, n int64, ifMatch string) (io.ReadCloser, bucket.Info, error) {
	in := &awss3.GetObjectInput{Bucket: &b.opt.Bucket, Key: &name, IfMatch: text(ifMatch)}
	switch {
	case n > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+n-1))
	case offset > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", offset))
	}
	out, err := b.client.GetObject(ctx, in)
	if err != nil {
		return nil, bucket.Info{}, failed(ctx, "read", name, err)
	}
	found := bucket.Info{
		Name: name, Size: aws.ToInt64(out.ContentLength), Version: aws.ToString(out.ETag), Modified: aws.ToTime(out.LastModified), Meta: readMeta(out.Metadata),
	}
	if ifMatch != "" && found.Version != ifMatch { // not every store honours If-Match here
		_ = out.Body.Close()
		return nil, bucket.Info{}, hub.E(hub.Conflict, "%s is not there in version %s", name, ifMatch)
	}
	if in.Range != nil && out.ContentRange != nil {
		_, total, _ := strings.Cut(*out.ContentRange, "/")
		if found.Size, err = strconv.ParseInt(total, 10, 64); err != nil {
			_ = out.Body.Close()
			return nil, bucket.Info{}, hub.E(hub.Unavailable, "read %s: long-term storage answered with the range %q", name, *out.ContentRange)
		}
	} else if offset > 0 {
		_ = out.Body.Close()
		return nil, bucket.Info{}, hub.E(hub.Unavailable, "read %s: long-term storage did not answer with the range that was asked for", name)
	}
	return out.Body, found, nil
}

// Stat implements bucket.Bucket.
func (b *Bucket) Stat(ctx context.Context, name string) (bucket.Info, error) {
	if err := bucket.CheckName(name); err != nil {
		return bucket.Info{}, err
	}
	out, err := b.client.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: &b.opt.Bucket, Key: &name})
	if err != nil {
		return bucket.Info{}, failed(ctx, "look at", name, err)
	}
	return bucket.Info{
		Name: name, Size: aws.ToInt64(out.ContentLength), Version: aws.ToString(out.ETag), Modified: aws.ToTime(out.LastModified), Meta: readMeta(out.Metadata),
	}, nil
}

// reader is a body that is taken up where it broke.
type reader struct {
	ctx     context.Context
	b       *Bucket
	name    string
	version string
	at, end int64
	body    io.ReadCloser
	tries   int
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, context.Cause(r.ctx)
	}
	if r.at >= r.end {
		return 0, io.EOF
	}
	n, err := r.body.Read(p[:min(int64(len(p)), r.end-r.at)])
	r.at += int64(n)
	switch {
	case n > 0:
		r.tries = 0
		return n, nil
	case err == nil:
		return 0, nil
	}
	return 0, r.resume(err)
}

// resume asks for the rest of the same version.
func (r *reader) resume(why error) error {
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	if r.tries++; r.tries > resumes {
		return hub.E(hub.Unavailable, "read %s: long-term storage broke off at byte %d", r.name, r.at).Because(why)
	}
	if err := pause(r.ctx, r.tries); err != nil {
		return err
	}
	body, _, err := r.b.open(r.ctx, r.name, r.at, r.end-r.at, r.version)
	if err != nil {
		return err
	}
	_ = r.body.Close()
	r.body = body
	return nil
}

func (r *reader) Close() error { return r.body.Close() }
