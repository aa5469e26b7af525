// Package frame is the framing of both protocols of Heliograph, device to edge and edge to delivery: a length as QUIC
// varint (RFC 9000 section 16), then that many bytes of protobuf.
//
// Promise: a reader never allocates before it has checked the length against its limit, nor much more than has come, so
// that a length alone costs nothing; takes a length in any of its encodings (wire 1.4), and tells a clean end (io.EOF
// between frames) from a cut one (io.ErrUnexpectedEOF).
//
// Non-obvious:
//   - A frame may be empty: protobuf encodes a message without fields in 0 bytes.
package frame

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/protobuf/proto"
)

// ErrTooLarge is returned for a frame whose declared length is above the limit; nothing of it was read.
var ErrTooLarge = errors.New("frame is larger than the limit")

// Reader is what frames are read from; bufio.Reader is one.
type Reader interface {
	io.Reader
	io.ByteReader
}

// Read reads one frame of at most limit bytes into buf, growing it when it must, and returns the frame.
func Read(r Reader, buf []byte, limit int) ([]byte, error) {
	first, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	size := 1 << (first >> 6)
	n := uint64(first & 0x3f)
	for range size - 1 {
		b, err := r.ReadByte()
		if err != nil {
			return nil, unexpected(err)
		}
		n = n<<8 | uint64(b)
	}
	if n > uint64(limit) {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, n, limit)
	}
	buf = buf[:0]
	for len(buf) < int(n) {
		have := len(buf)
		more := min(int(n), max(cap(buf), 2*have, ahead)) - have
		buf = slices.Grow(buf, more)[:have+more]
		if _, err := io.ReadFull(r, buf[have:]); err != nil {
			return nil, unexpected(err)
		}
	}
	return buf, nil
}

// ahead is how many bytes of a frame room is made for before one of them has come. Nearly all frames are shorter.
const ahead = 8 << 10

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

const maxLength = 8 // bytes of the longest frame length

// AppendLength appends the varint of a frame length. Panics above 2^62-1, which no frame reaches.
func AppendLength(dst []byte, n int) []byte {
	switch {
	case n < 1<<6:
		return append(dst, byte(n))
	case n < 1<<14:
		return append(dst, byte(n>>8)|0x40, byte(n))
	case n < 1<<30:
		return append(dst, byte(n>>24)|0x80, byte(n>>16), byte(n>>8), byte(n))
	case uint64(n) < 1<<62:
		u := uint64(n)
		return append(dst,
			byte(u>>56)|0xc0, byte(u>>48), byte(u>>40), byte(u>>32), byte(u>>24), byte(u>>16), byte(u>>8), byte(u))
	}
	panic("frame: length beyond a varint")
}

// Append appends a message as one frame. Errors come only from protobuf: a string that is not UTF-8.
func Append(dst []byte, m proto.Message) ([]byte, error) {
	opts := proto.MarshalOptions{UseCachedSize: true}
	n := proto.Size(m)
	dst = AppendLength(slices.Grow(dst, n+maxLength), n)
	out, err := opts.MarshalAppend(dst, m)
	if err != nil {
		return dst, fmt.Errorf("encode frame: %w", err)
	}
	return out, nil
}
