package chdb

import (
	"bufio"
	"io"
	"net/http"
	"strings"

	chcompress "github.com/ClickHouse/ch-go/compress"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// encodings are the HTTP content encodings that the front knows, the preferred one first.
var encodings = []string{"zstd", "lz4", "gzip"}

// acceptedEncoding picks the encoding of a result, or none.
func acceptedEncoding(h http.Header) string {
	offered := map[string]bool{}
	for _, line := range h.Values("Accept-Encoding") {
		for item := range strings.SplitSeq(line, ",") {
			name, q, _ := strings.Cut(item, ";")
			q = strings.ReplaceAll(q, " ", "")
			offered[strings.ToLower(strings.TrimSpace(name))] = q != "q=0" && q != "q=0.0"
		}
	}
	for _, e := range encodings {
		if offered[e] {
			return e
		}
	}
	return ""
}

// flushCloser is a compressor: what was written reaches the client after Flush.
type flushCloser interface {
	io.WriteCloser
	Flush() error
}

func encoder(name string, w io.Writer) (flushCloser, error) {
	switch name {
	case "zstd":
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	case "lz4":
		return lz4.NewWriter(w), nil
	default:
		return gzip.NewWriterLevel(w, gzip.BestSpeed)
	}
}

// decoder undoes a request's Content-Encoding.
func decoder(name string, r io.Reader) (io.Reader, error) {
	switch name {
	case "", "identity":
		return r, nil
	case "gzip":
		return gzip.NewReader(r)
	case "zstd":
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case "lz4":
		return lz4.NewReader(r), nil
	default:
		return nil, exceptionf(codeUnknownCompression, "Unknown Content-Encoding %s", name)
	}
}

// frameWriter writes ClickHouse's own compressed frames (compress=1), a megabyte of data in each.
type frameWriter struct {
	w   *bufio.Writer
	out io.Writer
	c   *chcompress.Writer
}

func newFrameWriter(out io.Writer, method string) *frameWriter {
	m := chcompress.LZ4
	if strings.EqualFold(method, "ZSTD") {
		m = chcompress.ZSTD
	}
	f := &frameWriter{out: out, c: chcompress.NewWriter(0, m)}
	f.w = bufio.NewWriterSize(rawFrames{f}, 1<<20)
	return f
}

// rawFrames turns each write into one or more frames.
type rawFrames struct{ f *frameWriter }

func (r rawFrames) Write(p []byte) (int, error) {
	n := 0
	for len(p) > 0 {
		part := p[:min(len(p), 1<<20)]
		if err := r.f.c.Compress(part); err != nil {
			return n, err
		}
		if _, err := r.f.out.Write(r.f.c.Data); err != nil {
			return n, err
		}
		n += len(part)
		p = p[len(part):]
	}
	return n, nil
}

func (f *frameWriter) Write(p []byte) (int, error) { return f.w.Write(p) }
func (f *frameWriter) Flush() error                { return f.w.Flush() }
func (f *frameWriter) Close() error                { return f.w.Flush() }
