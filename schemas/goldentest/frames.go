package goldentest

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"heliograph/schemas/frame"
	"heliograph/schemas/topic"
)

// What a reader makes of the bytes of a Frame.
const (
	// ReadFrame: it is a frame. One of a kind that the reader does not know has no body and is passed over.
	ReadFrame = "read"
	// ReadNotCanonical: its length is not in its shortest form, for which the readers of the first three versions
	// refused it. It is read now.
	ReadNotCanonical = "not_canonical"
	// ReadTooLarge: its length is above the limit, and nothing of it was read.
	ReadTooLarge = "too_large"
	// ReadCut: the bytes end within it.
	ReadCut = "cut"
	// ReadMalformed: it is not the message that it should be.
	ReadMalformed = "malformed"
)

// Frame is a golden of a frame: its bytes as they stand on a stream, with the length before them.
type Frame struct {
	Name string `json:"name"`
	// Message is the full name of what the frame holds.
	Message string `json:"message"`
	// Limit is the most bytes that the reader takes, where that matters; 0: the protocol's.
	Limit int `json:"limit,omitempty"`
	// Bytes in hex: length and message.
	Bytes string `json:"bytes"`
	// Read is what a reader makes of it: one of the words above.
	Read string `json:"read"`
	// Body is the field of the message that is set, by which the frame's kind is known.
	Body string `json:"body,omitempty"`
	// Frame is the message's JSON form (Protocol Buffers, ProtoJSON).
	Frame json.RawMessage `json:"frame,omitempty"`
	// Canonical: what Frame says is encoded as exactly these bytes, fields in the order of their numbers.
	Canonical bool `json:"canonical,omitempty"`
	// Code is what follows from an Error's code.
	Code *Code `json:"code,omitempty"`
	// Cursors are what the message's cursors say, in their order; a topic at 0 is left out.
	Cursors []map[topic.Topic]topic.Position `json:"cursors,omitempty"`
}

// Code is a row of a protocol's table of codes.
type Code struct {
	Name      string `json:"name"`
	Retriable bool   `json:"retriable"`
	Closes    bool   `json:"closes"`
	Reconnect bool   `json:"reconnect"`
}

// Frames is the corpus of a protocol.
type Frames struct {
	// Dir holds its files.
	Dir string
	// Limits of the messages that its frames hold, in bytes.
	Limits map[proto.Message]int
	// Say fills in what a frame says beyond its JSON form. An error means that its receiver refuses it.
	Say func(m proto.Message, g *Frame) error
}

// Of makes a golden of a message; Check and Write fill in the rest.
func (c Frames) Of(t *testing.T, name string, m proto.Message) Frame {
	t.Helper()
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	b := append(frame.AppendLength(nil, len(body)), body...)
	return Frame{Name: name, Message: string(m.ProtoReflect().Descriptor().FullName()), Bytes: hex.EncodeToString(b)}
}

// Check reads every golden, and fails for each that is not read as it says, for each body of a message that has none,
// and for files that were changed.
func (c Frames) Check(t *testing.T) {
	t.Helper()
	Frozen(t, c.Dir)
	files := Read[Frame](t, c.Dir)
	have := map[string]bool{}
	for _, f := range slices.Sorted(maps.Keys(files)) {
		for _, want := range files[f] {
			if diff := c.differs(t, want); diff != "" {
				t.Errorf("%s: %s", f, diff)
			}
			have[want.Message+"."+want.Body] = true
		}
	}
	for m := range c.Limits {
		d := m.ProtoReflect().Descriptor()
		bodies := d.Oneofs().ByName("body").Fields()
		for i := range bodies.Len() {
			if n := string(d.FullName()) + "." + string(bodies.Get(i).Name()); !have[n] {
				t.Errorf("no golden frame of %s: write a further file with -golden", n)
			}
		}
	}
}

// differs reads a golden and says how it is read otherwise than it says.
func (c Frames) differs(t *testing.T, want Frame) string {
	t.Helper()
	got := c.read(t, want)
	if want.Read == ReadNotCanonical && (got.Read == ReadFrame || got.Read == ReadMalformed) {
		return ""
	}
	if !c.same(want, got) {
		return want.Name + " is decoded as " + string(got.Frame) + ", want " + string(want.Frame)
	}
	got.Frame, want.Frame = nil, nil
	a, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		return want.Name + " is read as\n" + string(a) + ", want\n" + string(b)
	}
	return ""
}

// Write writes samples as a new file.
func (c Frames) Write(t *testing.T, name string, samples []Frame) {
	t.Helper()
	out := make([]Frame, 0, len(samples))
	for _, s := range samples {
		out = append(out, c.read(t, s))
	}
	Create(t, c.Dir, name, out)
}

// of makes a message of the kind that a golden names.
func (c Frames) of(g Frame) (proto.Message, int) {
	for m, limit := range c.Limits {
		if r := m.ProtoReflect(); string(r.Descriptor().FullName()) == g.Message {
			if g.Limit != 0 {
				limit = g.Limit
			}
			return r.New().Interface(), limit
		}
	}
	return nil, 0
}

// read says of a frame all that a golden says.
func (c Frames) read(t *testing.T, g Frame) Frame {
	t.Helper()
	raw, err := hex.DecodeString(g.Bytes)
	if err != nil {
		t.Fatalf("%s: %v", g.Name, err)
	}
	m, limit := c.of(g)
	if m == nil {
		t.Fatalf("%s holds %s", g.Name, g.Message)
	}
	out := Frame{Name: g.Name, Message: g.Message, Limit: g.Limit, Bytes: g.Bytes}
	r := bufio.NewReader(bytes.NewReader(raw))
	body, err := frame.Read(r, nil, limit)
	switch {
	case errors.Is(err, frame.ErrTooLarge):
		out.Read = ReadTooLarge
	case errors.Is(err, io.ErrUnexpectedEOF):
		out.Read = ReadCut
	case err != nil:
		t.Fatalf("%s: %v", g.Name, err)
	}
	if err != nil {
		return out
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Fatalf("%s: something follows the frame", g.Name)
	}
	if proto.Unmarshal(body, m) != nil {
		out.Read = ReadMalformed
		return out
	}
	if out.Frame, err = protojson.Marshal(m); err != nil {
		t.Fatalf("%s: %v", g.Name, err)
	}
	if fd := m.ProtoReflect().WhichOneof(bodyOf(m)); fd != nil {
		out.Body = string(fd.Name())
	}
	again, _ := c.of(g)
	if err := protojson.Unmarshal(out.Frame, again); err != nil {
		t.Fatalf("%s: %v", g.Name, err)
	}
	out.Canonical = c.Of(t, "", again).Bytes == g.Bytes
	out.Read = ReadFrame
	if err := c.Say(m, &out); err != nil {
		out.Read = ReadMalformed
	}
	return out
}

func bodyOf(m proto.Message) protoreflect.OneofDescriptor {
	return m.ProtoReflect().Descriptor().Oneofs().ByName("body")
}

// same compares the JSON forms by what they say: ProtoJSON's blanks are not fixed.
func (c Frames) same(want, got Frame) bool {
	if len(want.Frame) == 0 || len(got.Frame) == 0 {
		return len(want.Frame) == len(got.Frame)
	}
	a, _ := c.of(want)
	b, _ := c.of(want)
	return protojson.Unmarshal(want.Frame, a) == nil && protojson.Unmarshal(got.Frame, b) == nil && proto.Equal(a, b)
}
