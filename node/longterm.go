package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/magiconair/properties"

	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/bucket/dir"
	"timehub/hub/bucket/s3"
	"timehub/hub/disk"
)

const (
	probePrefix = ".hub/probe/"
	ownerBlob   = ".hub/owner"
)

// openBucket opens long-term storage as storage.type says.
func (n *Node) openBucket(ctx context.Context) (bucket.Bucket, error) {
	if n.env.Bucket != nil {
		return n.env.Bucket, nil
	}
	if n.cfg.Text("storage.type") == "s3" {
		return n.openS3(ctx)
	}
	on := n.disk
	if folder := n.cfg.Text("storage.directory"); folder != "" {
		d, err := disk.OpenDir(folder)
		if err != nil {
			return nil, fmt.Errorf("storage.directory: %w", err)
		}
		n.parts.closers = append(n.parts.closers, d)
		on = d
	}
	b, err := dir.New(dir.Options{Disk: on, Folder: bucketDir})
	if err != nil {
		return nil, fmt.Errorf("open long-term storage: %w", err)
	}
	n.parts.closers = append(n.parts.closers, b)
	return b, nil
}

// onOwnDisk reports whether long-term storage takes room beside the log.
func (n *Node) onOwnDisk() bool {
	return n.env.Bucket == nil && n.cfg.Text("storage.type") != "s3" && n.cfg.Text("storage.directory") == ""
}

// openS3 reads how to reach the store; nobody talks to it yet.
func (n *Node) openS3(ctx context.Context) (bucket.Bucket, error) {
	c := n.cfg
	opt := s3.Options{
		Bucket: c.Text("s3.bucket_name"), Region: c.Text("aws.signing_region"), Endpoint: c.Text("s3.endpoint"), PathStyle: c.Bool("s3.pathStyleAccessEnable"),
		Encrypt: c.Bool("app.encrypted"), MaxConnections: int(c.Int("s3.maxConnections")), Parallel: int(c.Int("s3.large.threads")),
		ConnectTimeout: time.Duration(c.Int("s3.connectionTimeout")) * time.Millisecond, SilenceTimeout: time.Duration(c.Int("s3.socketTimeout")) * time.Millisecond,
		MaxPart: max(c.Int("s3.maxChunkMB"), 5) << 20, PageSize: int(c.Int("s3.maxQueryItems")), MaxPause: time.Duration(c.Int("aws.retry.max.delay.millis")) * time.Millisecond,
	}
	if opt.Bucket == "" {
		opt.Bucket = c.Text("app.name") + "-" + c.Text("s3.environment")
	}
	if !strings.Contains(opt.Endpoint, "://") {
		opt.Endpoint = strings.ToLower(c.Text("aws.protocol")) + "://" + opt.Endpoint
	}
	if u, err := url.Parse(opt.Endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, hub.E(hub.Invalid, "s3.endpoint is %q: it must be a host, host:port, or a URL with http or https", c.Text("s3.endpoint"))
	}
	if file := c.Text("aws.credentials"); c.setting("aws.credentials").Explicit() {
		p, err := properties.LoadFile(file, properties.UTF8)
		if err != nil {
			return nil, fmt.Errorf("read aws.credentials: %w", err)
		}
		opt.AccessKey, opt.SecretKey = p.GetString("accessKey", ""), p.GetString("secretKey", "")
		if opt.AccessKey == "" || opt.SecretKey == "" {
			return nil, fmt.Errorf("aws.credentials: %s must hold accessKey and secretKey", file)
		}
	}
	return s3.New(ctx, opt)
}

// own makes sure that no other hub keeps its items in the bucket: two that do not agree through a coordinator would give out the same keys. The nodes of a
// cluster own it as one. What lies in a directory of data.dir cannot be somebody else's.
func (n *Node) own(ctx context.Context, disk string) error {
	if n.onOwnDisk() || n.env.Bucket != nil || n.cfg.Bool("hub.read.only") {
		return nil
	}
	me := "the disk " + disk
	mark := disk
	if n.cfg.Cluster() {
		id, err := n.clusterID(ctx)
		if err != nil {
			return err
		}
		me, mark = "the cluster "+id, "cluster "+id
	}
	_, err := n.parts.bucket.Put(ctx, ownerBlob, strings.NewReader(mark), int64(len(mark)), bucket.PutOptions{IfAbsent: true, ContentType: "text/plain"})
	if !hub.Is(err, hub.Conflict) {
		return err
	}
	body, _, err := n.parts.bucket.Get(ctx, ownerBlob, 0, -1, "")
	if err != nil {
		return fmt.Errorf("find the owner of the bucket: %w", err)
	}
	owner, err := io.ReadAll(io.LimitReader(body, 1<<10))
	if err = errors.Join(err, body.Close()); err != nil {
		return fmt.Errorf("find the owner of the bucket: %w", err)
	}
	if string(owner) != mark {
		return fmt.Errorf("the bucket belongs to the hub with %s, this one is %s: two hubs would give out the same keys; "+
			"if the other one is gone for good, delete the object %s", ownerText(string(owner)), me, ownerBlob)
	}
	return nil
}

func ownerText(mark string) string {
	if strings.HasPrefix(mark, "cluster ") {
		return "the " + mark
	}
	return "the disk " + mark
}
