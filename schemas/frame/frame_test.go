package frame

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func reader(b []byte) *bufio.Reader { return bufio.NewReader(bytes.NewReader(b)) }

func TestLengths(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 16383, 16384, 1<<30 - 1, 1 << 30, 1 << 40} {
		b := AppendLength(nil, n)
		_, err := Read(reader(b), nil, 0)
		switch {
		case n == 0 && err != nil:
			t.Errorf("an empty frame: %v", err)
		case n > 0 && !errors.Is(err, ErrTooLarge):
			t.Errorf("length %d encoded as %x: %v, want ErrTooLarge", n, b, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		in   []byte
		want error
	}{
		"clean end":                {nil, io.EOF},
		"cut length":               {[]byte{0x80, 0}, io.ErrUnexpectedEOF},
		"cut body":                 {[]byte{3, 1, 2}, io.ErrUnexpectedEOF},
		"no body":                  {[]byte{1}, io.ErrUnexpectedEOF},
		"8 bytes for 101":          {[]byte{0xc0, 0, 0, 0, 0, 0, 0, 101}, ErrTooLarge},
		"4 GiB":                    {[]byte{0xc0, 0, 0, 1, 0, 0, 0, 0}, ErrTooLarge},
		"the largest of all":       {[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, ErrTooLarge},
		"one more than the limit":  {append([]byte{0x40, 101}, make([]byte, 101)...), ErrTooLarge},
		"as much as the limit has": {append([]byte{0x40, 100}, make([]byte, 100)...), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Read(reader(c.in), nil, 100); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// asked is a reader that keeps how much it was asked for at once.
type asked struct {
	*bytes.Reader
	most int
}

func (a *asked) Read(b []byte) (int, error) {
	a.most = max(a.most, len(b))
	return a.Reader.Read(b)
}

// Who says that a long frame comes, and sends none of it, makes nobody hold room for it.
func TestALengthAloneTakesNoRoom(t *testing.T) {
	const n = 128 << 10
	r := &asked{Reader: bytes.NewReader(AppendLength(nil, n))}
	if _, err := Read(r, nil, n); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("got %v", err)
	}
	if r.most > ahead {
		t.Errorf("room for %d bytes was made, at most %d should be", r.most, ahead)
	}
	for _, size := range []int{ahead - 1, ahead, ahead + 1, 2 * ahead, 3*ahead + 1, n} {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(i * 7)
		}
		in := append(AppendLength(nil, size), body...)
		for _, buf := range [][]byte{nil, make([]byte, 0, 100), make([]byte, n)} {
			if got, err := Read(&asked{Reader: bytes.NewReader(in)}, buf, n); err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d bytes into %d: %d, %v", size, cap(buf), len(got), err)
			}
		}
	}
}

// A length counts in whatever encoding it comes (RFC 9000 section 16).
func TestLongLengths(t *testing.T) {
	body := bytes.Repeat([]byte{7}, 5)
	for _, length := range [][]byte{{5}, {0x40, 5}, {0x80, 0, 0, 5}, {0xc0, 0, 0, 0, 0, 0, 0, 5}} {
		r := reader(append(length, body...))
		if got, err := Read(r, nil, 5); err != nil || !bytes.Equal(got, body) {
			t.Errorf("length %x: %x, %v", length, got, err)
		}
		if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("length %x: something is left", length)
		}
	}
}

func TestNothingIsAllocatedForALie(t *testing.T) {
	in := []byte{0xc0, 0, 0, 1, 0, 0, 0, 0}
	var b bytes.Reader
	br := bufio.NewReader(&b)
	got := testing.AllocsPerRun(10, func() {
		b.Reset(in)
		br.Reset(&b)
		_, _ = Read(br, nil, 1<<20)
	})
	if got > 5 { // the error's text
		t.Errorf("%v allocations", got)
	}
}

func TestAppendAndRead(t *testing.T) {
	var stream []byte
	var want []*wrapperspb.BytesValue
	for _, n := range []int{0, 1, 60, 61, 62, 63, 64, 100, 16380, 16384, 70000} {
		m := wrapperspb.Bytes(bytes.Repeat([]byte{7}, n))
		want = append(want, m)
		var err error
		if stream, err = Append(stream, m); err != nil {
			t.Fatal(err)
		}
	}
	r, buf := reader(stream), []byte(nil)
	for i, w := range want {
		var err error
		if buf, err = Read(r, buf, 1<<20); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		var m wrapperspb.BytesValue
		if err := proto.Unmarshal(buf, &m); err != nil || !proto.Equal(&m, w) {
			t.Fatalf("frame %d is another: %v", i, err)
		}
	}
	if _, err := Read(r, buf, 1<<20); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{2, 1, 2, 0})
	f.Add([]byte{0x40, 64, 1})
	f.Add([]byte{0xc0, 0, 0, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		const limit = 1 << 12
		r := reader(in)
		var again, buf []byte
		var bodies [][]byte
		for {
			var err error
			buf, err = Read(r, buf, limit)
			if err != nil {
				break
			}
			if len(buf) > limit {
				t.Fatalf("a frame of %d bytes", len(buf))
			}
			bodies = append(bodies, bytes.Clone(buf))
			again = append(AppendLength(again, len(buf)), buf...)
		}
		if len(again) > len(in) { // the shortest encodings
			t.Fatalf("%x was read as %x", in, again)
		}
		r = reader(again)
		for _, want := range bodies {
			if got, err := Read(r, nil, limit); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%x of %x came back as %x, %v", want, in, got, err)
			}
		}
	})
}
