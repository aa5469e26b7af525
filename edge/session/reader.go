package session

import (
	"io"
	"sync"

	"heliograph/schemas/frame"
)

// readBuffer is what a reader borrows while there is something to read.
type readBuffer struct {
	in    [4096]byte
	frame []byte
}

const keepFrame = 8 << 10 // a longer frame buffer is left to the garbage collector

var readBuffers = sync.Pool{New: func() any { return &readBuffer{frame: make([]byte, 0, 512)} }}

// reader reads frames from a stream. While it waits for the first byte of a frame with nothing read ahead it holds no
// buffer.
type reader struct {
	src  io.Reader
	one  [1]byte
	got  bool // one holds a byte that was not used yet
	buf  *readBuffer
	r, w int
}

// next reads one frame of at most limit bytes. It is valid until release.
func (r *reader) next(limit int) ([]byte, error) {
	if r.r == r.w && !r.got {
		for {
			n, err := r.src.Read(r.one[:])
			if n == 1 {
				break
			}
			if err != nil {
				return nil, err
			}
		}
		r.got = true
	}
	if r.buf == nil {
		r.buf = readBuffers.Get().(*readBuffer)
	}
	f, err := frame.Read(r, r.buf.frame, limit)
	if err == nil && cap(f) <= keepFrame {
		r.buf.frame = f[:0]
	}
	return f, err
}

// release ends the use of the last frame, and gives the buffer back when everything in it was used.
func (r *reader) release() {
	if r.buf != nil && r.r == r.w && !r.got {
		readBuffers.Put(r.buf)
		r.buf, r.r, r.w = nil, 0, 0
	}
}

// ReadByte implements io.ByteReader.
func (r *reader) ReadByte() (byte, error) {
	if r.got {
		r.got = false
		return r.one[0], nil
	}
	if r.r == r.w {
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	b := r.buf.in[r.r]
	r.r++
	return b, nil
}

// Read implements io.Reader. It is called only within a frame, when there is a buffer.
func (r *reader) Read(p []byte) (int, error) {
	if r.r == r.w {
		if len(p) >= len(r.buf.in) {
			return r.src.Read(p)
		}
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.buf.in[r.r:r.w])
	r.r += n
	return n, nil
}

func (r *reader) fill() error {
	for {
		n, err := r.src.Read(r.buf.in[:])
		if n > 0 {
			r.r, r.w = 0, n
			return nil
		}
		if err != nil {
			r.r, r.w = 0, 0
			return err
		}
	}
}
