// Package dir is the default bucket: a folder of a disk.Disk. It needs nothing but a file system, and several processes may share one (a NAS mount).
//
// Layout below Options.Folder:
//
//	blobs/…      one file per blob; the folders are the segments of its name
//	tmp/ID/…     bodies on their way in, ID being one open Bucket
//	tmp/ID.lock  held while that Bucket is open, so that others know whose leavings may go
//	lock         held while a name changes what it stands for
//
// Blobs and everything else lie in different folders, so no name of a blob can be taken for a temporary file or the lock. What a name looks like on disk is
// said in escape.go, why a Put is durable and atomic in durable.go, how a listing finds its way in walk.go.
//
// A version is made of the file's identity, size and time; content is never read for it. Meta and ContentType are dropped.
package dir
