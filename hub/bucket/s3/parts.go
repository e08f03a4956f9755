package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"timehub/hub/bucket"
)

const abortTimeout = 10 * time.Second

// partSize is the size of part i (from 1): small ones first, so that a body of some megabytes needs little memory (spec 04 §4.1).
func (b *Bucket) partSize(i int32) int64 {
	size := int64(15 << 20)
	switch {
	case i <= 2:
		size = minPart
	case i <= 5:
		size = 10 << 20
	case i > 8:
		size = 40 << 20
	}
	return min(size, b.opt.MaxPart)
}

// upload is one body that travels in parts.
type upload struct {
	b    *Bucket
	name string
	id   *string
	done []*types.CompletedPart // part i at i-1; whole when send has returned
}

// putParts stores a body that begins with first. Nothing is there, not even a part, when it fails before the end.
func (b *Bucket) putParts(ctx context.Context, name string, first []byte, rest io.Reader, size int64, opt bucket.PutOptions) (bucket.Info, error) {
	in := &awss3.CreateMultipartUploadInput{Bucket: &b.opt.Bucket, Key: &name, ContentType: text(opt.ContentType), Metadata: meta(opt.Meta)}
	if b.opt.Encrypt {
		in.ServerSideEncryption = types.ServerSideEncryptionAes256
	}
	made, err := b.client.CreateMultipartUpload(ctx, in)
	if err != nil {
		return bucket.Info{}, failed(ctx, "store", name, err)
	}
	u := &upload{b: b, name: name, id: made.UploadId}
	total, err := u.send(ctx, first, rest)
	if err == nil && size >= 0 && total != size {
		err = short(name, size)
	}
	if err != nil {
		u.abort(ctx)
		return bucket.Info{}, err
	}
	return u.complete(ctx, total, opt)
}

// send reads the body and stores its parts, several at the same time.
func (u *upload) send(ctx context.Context, first []byte, rest io.Reader) (total int64, err error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(u.b.opt.Parallel)
	buf, number := first, int32(1)
	for len(buf) > 0 && ctx.Err() == nil {
		total += int64(len(buf))
		body, part := buf, &types.CompletedPart{PartNumber: aws.Int32(number)}
		u.done = append(u.done, part)
		g.Go(func() error {
			out, err := u.b.client.UploadPart(ctx, &awss3.UploadPartInput{
				Bucket: &u.b.opt.Bucket, Key: &u.name, UploadId: u.id, PartNumber: part.PartNumber,
				Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body))),
			})
			if err != nil {
				return failed(ctx, "store a part of", u.name, err)
			}
			part.ETag = out.ETag
			return nil
		})
		number++
		if buf, err = read(rest, u.b.partSize(number), u.name); err != nil {
			return total, errors.Join(err, g.Wait())
		}
	}
	return total, g.Wait()
}

// read returns up to n bytes; none at the end.
func read(r io.Reader, n int64, name string) ([]byte, error) {
	var buf bytes.Buffer
	buf.Grow(int(min(n, minPart)))
	if _, err := io.Copy(&buf, io.LimitReader(r, n)); err != nil {
		return nil, fmt.Errorf("read the body of %s: %w", name, err)
	}
	return buf.Bytes(), nil
}

// complete makes the blob of its parts, in one step.
func (u *upload) complete(ctx context.Context, total int64, opt bucket.PutOptions) (bucket.Info, error) {
	parts := make([]types.CompletedPart, len(u.done))
	for i, p := range u.done {
		parts[i] = *p
	}
	in := &awss3.CompleteMultipartUploadInput{
		Bucket: &u.b.opt.Bucket, Key: &u.name, UploadId: u.id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}, IfMatch: text(opt.IfMatch),
	}
	if opt.IfAbsent {
		in.IfNoneMatch = aws.String("*")
	}
	for try := 1; ; try++ {
		out, err := u.b.client.CompleteMultipartUpload(ctx, in)
		if err == nil {
			return info(u.name, total, out.ETag, opt.Meta), nil
		}
		if raced(err) && try < races {
			if err := pause(ctx, try); err != nil {
				return bucket.Info{}, err
			}
			continue
		}
		why := failed(ctx, "store", u.name, err)
		if !vanished(err) { // else an earlier try may have done it: nothing is known, and nothing is left to be removed
			u.abort(ctx)
		}
		return bucket.Info{}, unmet(opt, why)
	}
}

// abort removes the parts. If that fails, a lifecycle rule for incomplete uploads has to.
func (u *upload) abort(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	_, _ = u.b.client.AbortMultipartUpload(ctx, &awss3.AbortMultipartUploadInput{Bucket: &u.b.opt.Bucket, Key: &u.name, UploadId: u.id})
}
