package disk

import (
	"io/fs"
	"strings"
)

// CheckName returns nil if name is one that a Disk takes: slash-separated, relative, without empty, "." and ".." elements, without NUL, in UTF-8. The
// root itself, ".", is a folder, so it is a name for SyncDir, List, Stat and MkdirAll only (dir). The error is an *fs.PathError whose chain holds
// fs.ErrInvalid. Every implementation calls it first, so that none is more lenient than another.
func CheckName(op, name string, dir bool) error {
	if !fs.ValidPath(name) || strings.IndexByte(name, 0) >= 0 || name == "." && !dir {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return nil
}

// parents returns the prefixes of a name from the top down, the name itself last: "a/b" gives "a", "a/b".
func parents(name string) []string {
	var all []string
	for i := range len(name) {
		if name[i] == '/' {
			all = append(all, name[:i])
		}
	}
	return append(all, name)
}
