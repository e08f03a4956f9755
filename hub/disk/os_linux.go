package disk

import (
	"io/fs"
	"math"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dataSync is fdatasync: content and length, but not the times, which would cost a second write.
func dataSync(fd int) error { return unix.Fdatasync(fd) }

func freeBytes(fd int) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return 0, err
	}
	size := uint64(st.Bsize)
	if st.Frsize > 0 { // what the blocks are really counted in
		size = uint64(st.Frsize)
	}
	if size > 0 && st.Bavail > math.MaxInt64/size {
		return math.MaxInt64, nil
	}
	return int64(st.Bavail * size), nil
}

func infoOf(name string, st *unix.Stat_t) Info {
	return Info{
		Name:    name,
		Size:    st.Size,
		Dir:     st.Mode&unix.S_IFMT == unix.S_IFDIR,
		ModTime: time.Unix(st.Mtim.Unix()),
		ID:      identity(st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()),
	}
}

func (d *Dir) info(name string, fi fs.FileInfo) Info {
	i := Info{Name: name, Size: fi.Size(), Dir: fi.IsDir(), ModTime: fi.ModTime()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		i.ID = identity(st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
	}
	return i
}
