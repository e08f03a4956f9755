package disk

import (
	"io/fs"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dataSync is fsync. The hub is run on Linux; this file is for those who develop it elsewhere.
func dataSync(fd int) error { return unix.Fsync(fd) }

func freeBytes(fd int) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return 0, err
	}
	return int64(uint64(st.Bavail) * uint64(st.Bsize)), nil
}

func infoOf(name string, st *unix.Stat_t) Info {
	return Info{
		Name:    name,
		Size:    st.Size,
		Dir:     st.Mode&unix.S_IFMT == unix.S_IFDIR,
		ModTime: time.Unix(st.Mtim.Unix()),
		ID:      identity(uint64(st.Ino), st.Size, st.Mtim.Nano(), st.Ctim.Nano()),
	}
}

func (d *Dir) info(name string, fi fs.FileInfo) Info {
	i := Info{Name: name, Size: fi.Size(), Dir: fi.IsDir(), ModTime: fi.ModTime()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		i.ID = identity(st.Ino, st.Size, st.Mtimespec.Nano(), st.Ctimespec.Nano())
	}
	return i
}
