package dir

import (
	"strings"
)

// What a name looks like on disk.
//
//   - Segments keep a-z, 0-9 and -_.=+,@~ as they are. An upper case letter is '!' and its lower case form, since file systems exist that do not tell
//     case; every other byte is '%' and two hexadecimal digits in lower case.
//   - The first 7 segments at most are folders; the rest stays together in the name of the file, a slash being ';'. So the items of one second of a
//     channel are the files of one folder: one folder to make and to sync a second, one to read for a page.
//   - A file ends with ".blob". A folder whose segment ends like that has the dot escaped. So a blob "a" can stand beside the folder of "a/b".
//   - Text of more than 200 bytes is cut into pieces of at most 200, never inside an escape; each but the last is a folder that ends with a bare '%'.
//
// Each name has exactly one form on disk, and each form that is read back is checked to be that one.
const (
	suffix     = ".blob"
	more       = "%"
	maxFolders = 7
	maxPiece   = 200
	plain      = "abcdefghijklmnopqrstuvwxyz0123456789-_.=+,@~"
	hexDigits  = "0123456789abcdef"
)

// diskName is where a blob lies below blobs/: its folder and its file.
func diskName(name string) (folder, file string) {
	folders, rest := split(name)
	pieces := cut(escape(rest))
	for _, p := range pieces[:len(pieces)-1] {
		folders = append(folders, p+more)
	}
	return strings.Join(folders, "/"), pieces[len(pieces)-1] + suffix
}

// split returns the folders on disk of a name and the text that is left for its file.
func split(name string) (folders []string, rest string) {
	rest = name
	for range maxFolders {
		segment, after, ok := strings.Cut(rest, "/")
		if !ok {
			break
		}
		folders, rest = appendFolder(folders, segment), after
	}
	return folders, rest
}

func appendFolder(folders []string, segment string) []string {
	e := escape(segment)
	if strings.HasSuffix(e, suffix) {
		e = strings.TrimSuffix(e, suffix) + "%2e" + suffix[1:]
	}
	pieces := cut(e)
	for _, p := range pieces[:len(pieces)-1] {
		folders = append(folders, p+more)
	}
	return append(folders, pieces[len(pieces)-1])
}

func escape(text string) string {
	if strings.Trim(text, plain) == "" {
		return text
	}
	var b strings.Builder
	for _, c := range []byte(text) {
		switch {
		case strings.IndexByte(plain, c) >= 0:
			b.WriteByte(c)
		case c >= 'A' && c <= 'Z':
			b.WriteByte('!')
			b.WriteByte(c | 0x20)
		case c == '/':
			b.WriteByte(';')
		default:
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
	}
	return b.String()
}

// unescape reads a piece; false if it was not written by escape. It does not mind an escaped dot, which only folders have.
func unescape(piece string) (string, bool) {
	if strings.Trim(piece, plain) == "" {
		return piece, true
	}
	out := make([]byte, 0, len(piece))
	for i := 0; i < len(piece); i++ {
		c := piece[i]
		switch {
		case c == '!' && i+1 < len(piece) && piece[i+1] >= 'a' && piece[i+1] <= 'z':
			i++
			c = piece[i] &^ 0x20
		case c == ';':
			c = '/'
		case c == '%' && i+2 < len(piece):
			hi, lo := strings.IndexByte(hexDigits, piece[i+1]), strings.IndexByte(hexDigits, piece[i+2])
			if hi < 0 || lo < 0 {
				return "", false
			}
			i += 2
			c = byte(hi<<4 | lo)
		case strings.IndexByte(plain, c) < 0:
			return "", false
		}
		out = append(out, c)
	}
	return string(out), true
}

// cut divides escaped text into pieces that a file system can hold.
func cut(e string) []string {
	var pieces []string
	for len(e) > maxPiece {
		n := maxPiece
		switch { // not inside "%xx" or "!x"
		case e[n-1] == '%' || e[n-1] == '!':
			n--
		case e[n-2] == '%':
			n -= 2
		}
		pieces = append(pieces, e[:n])
		e = e[n:]
	}
	return append(pieces, e)
}
