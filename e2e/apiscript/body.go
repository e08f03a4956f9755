package apiscript

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// build puts a body together; plain is what it was before it was encoded.
func (r *Runner) build(pieces []piece) (coded, plain []byte, err error) {
	var b bytes.Buffer
	lines, encoded := 0, false
	for _, p := range pieces {
		text := p.text
		if p.kind == "line" || p.kind == "crlf" || p.kind == "q" || p.kind == "repeat" {
			if text, err = r.expand(text); err != nil {
				return nil, nil, err
			}
		}
		switch p.kind {
		case "line":
			if lines++; lines > 1 {
				b.WriteByte('\n')
			}
			b.WriteString(text)
		case "crlf":
			b.WriteString(text + "\r\n")
		case "q":
			b.WriteString(text)
		case "repeat":
			b.WriteString(strings.Repeat(text, p.n))
		case "bytes":
			b.Write(noise(p.n))
		case "file":
			data, err := os.ReadFile(filepath.Join(r.dir, filepath.FromSlash(text)))
			if err != nil {
				return nil, nil, fmt.Errorf("read body: %w", err)
			}
			b.Write(data)
		default:
			if !encoded {
				plain = bytes.Clone(b.Bytes())
				encoded = true
			}
			out, err := encode(p.kind, b.Bytes())
			if err != nil {
				return nil, nil, err
			}
			b.Reset()
			b.Write(out)
		}
	}
	if !encoded {
		plain = b.Bytes()
	}
	return b.Bytes(), plain, nil
}

// noise is n bytes that do not compress, the same on every run.
func noise(n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(b)
	return b
}

func encode(coding string, data []byte) ([]byte, error) {
	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	case "zstd":
		e, err := zstd.NewWriter(&b)
		if err != nil {
			return nil, fmt.Errorf("encode: %w", err)
		}
		w = e
	}
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return b.Bytes(), nil
}

// decoded undoes a content coding.
func decoded(coding string, data []byte) ([]byte, error) {
	var in io.Reader
	var err error
	switch strings.TrimPrefix(coding, "x-") {
	case "gzip":
		in, err = gzip.NewReader(bytes.NewReader(data))
	case "deflate":
		in, err = zlib.NewReader(bytes.NewReader(data))
	case "zstd":
		d, e := zstd.NewReader(bytes.NewReader(data))
		if e == nil {
			defer d.Close()
		}
		in, err = d, e
	default:
		return nil, fmt.Errorf("answer has Content-Encoding %q", coding)
	}
	if err != nil {
		return nil, fmt.Errorf("answer is not %s: %w", coding, err)
	}
	out, err := io.ReadAll(in)
	if err != nil {
		return nil, fmt.Errorf("answer is not %s: %w", coding, err)
	}
	return out, nil
}
