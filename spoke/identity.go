package spoke

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"timehub/hub"
	"timehub/hub/disk"
)

const identityFile = "disk"

// Identity is what makes a data directory a disk of a cluster (ENGINE §4): acknowledgements belong to it, not to the node that runs on it.
type Identity struct {
	Version     int    `json:"version"`
	ID          string `json:"id"`          // drawn at the first start
	Ordinal     uint16 `json:"ordinal"`     // 0 is the single hub
	Incarnation uint32 `json:"incarnation"` // rises with every start
}

// begin reads the identity of a disk, or makes one, and takes the next incarnation. What it returns is durable.
func begin(d disk.Disk) (Identity, error) {
	id := Identity{Version: 1}
	text, err := readFile(d, identityFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		var b [12]byte
		rand.Read(b[:])
		id.ID = hex.EncodeToString(b[:])
	case err != nil:
		return id, fmt.Errorf("read the identity of the disk: %w", err)
	default:
		if err := json.Unmarshal(text, &id); err != nil || id.ID == "" {
			return id, hub.E(hub.Invalid, "%s does not hold the identity of a disk: restore it, or start with an empty data directory", d.Path(identityFile))
		}
		if id.Version != 1 {
			return id, hub.E(hub.Invalid, "%s is of version %d, this hub knows version 1: use the newer hub that wrote it", d.Path(identityFile), id.Version)
		}
	}
	id.Incarnation++
	text, err = json.Marshal(id)
	if err != nil {
		return id, err
	}
	return id, replaceFile(d, identityFile, text)
}

func readFile(d disk.Disk, name string) ([]byte, error) {
	f, err := d.Open(name, false)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	text := make([]byte, min(size, 1<<20))
	if n, err := f.ReadAt(text, 0); n < len(text) {
		return nil, err
	}
	return text, nil
}

// replaceFile puts text under a name of the root: the old text or the new one survives a crash, never a mixture.
func replaceFile(d disk.Disk, name string, text []byte) error {
	temp := name + ".new"
	if err := d.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	f, err := d.Create(temp)
	if err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = d.Rename(temp, name)
	}
	if err == nil {
		err = d.SyncDir(".")
	}
	if err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	return nil
}
