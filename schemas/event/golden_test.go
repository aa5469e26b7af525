package event_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/goldentest"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// golden is an event as a released version encoded it, and what it must be read as for ever. The files are made once
// and never made anew; they know nothing of Go, so that every SDK is held to them.
type golden struct {
	Name string `json:"name"`
	// Topic and Subject (hex) say where it lies.
	Topic   topic.Topic `json:"topic"`
	Subject string      `json:"subject"`
	// Bytes of the record's value, in hex.
	Bytes string `json:"bytes"`
	// Event is its JSON form (Protocol Buffers, ProtoJSON).
	Event json.RawMessage `json:"event"`
	// Read is what the decoder says: read, newer, ignorable or malformed.
	Read string `json:"read"`
	// About is the message that it is or is about, and Reply the one that it answers: author, slash, id.
	About string `json:"about,omitempty"`
	Reply string `json:"reply,omitempty"`
	Text  string `json:"text,omitempty"`
	// Verdict of the fold on it, after those before it in the file that have its subject.
	Verdict string `json:"verdict,omitempty"`
}

var write = flag.String("golden", "", "write a new file of this name; a file that exists is never changed")

func ref(r event.MessageRef) string {
	if r.ID == (id.MessageID{}) {
		return ""
	}
	return r.Author.String() + "/" + r.ID.String()
}

// reader reads a file from its beginning.
type reader struct {
	threads map[topic.Subject]*thread.State
	users   map[topic.Subject]*user.State
	at      topic.Position
}

// read says of an event all that a golden says.
func (r *reader) read(g golden, t *testing.T) golden {
	t.Helper()
	raw, err := hex.DecodeString(g.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	subject, err := hex.DecodeString(g.Subject)
	if err != nil || len(subject) != id.Size {
		t.Fatalf("subject %q: %v", g.Subject, err)
	}
	out := golden{Name: g.Name, Topic: g.Topic, Subject: g.Subject, Bytes: g.Bytes}
	var m eventv1.Event
	if proto.Unmarshal(raw, &m) == nil {
		js, err := protojson.Marshal(&m)
		if err != nil {
			t.Fatal(err)
		}
		out.Event = js
	}
	e, err := event.Decode(raw)
	var newer *event.NewerError
	switch {
	case err == nil:
		out.Read = "read"
	case errors.Is(err, event.ErrIgnorable):
		out.Read = "ignorable"
	case errors.As(err, &newer):
		out.Read = "newer"
	case errors.Is(err, event.ErrMalformed):
		out.Read = "malformed"
	}
	if err != nil {
		return out
	}
	out.About, out.Reply, out.Text = ref(e.About), ref(e.Reply), e.Content.Text
	r.at++
	s := topic.Subject(subject)
	switch g.Topic {
	case topic.Threads:
		if r.threads[s] == nil {
			r.threads[s] = thread.New(id.ThreadID(s))
		}
		v := r.threads[s].Apply(e, r.at, int64(r.at))
		out.Verdict = map[thread.Outcome]string{
			thread.Accepted: "accepted", thread.Duplicate: "duplicate", thread.Rejected: "rejected",
		}[v.Outcome]
	case topic.Users:
		if r.users[s] == nil {
			r.users[s] = user.New(id.UserID(s))
		}
		v := r.users[s].Apply(e, r.at, int64(r.at))
		out.Verdict = map[user.Outcome]string{user.Accepted: "accepted", user.Rejected: "rejected"}[v.Outcome]
	}
	return out
}

func newReader() *reader {
	return &reader{threads: map[topic.Subject]*thread.State{}, users: map[topic.Subject]*user.State{}}
}

// same compares JSON by what it says: its blanks are not fixed.
func same(a, b json.RawMessage) bool {
	var x, y eventv1.Event
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	return protojson.Unmarshal(a, &x) == nil && protojson.Unmarshal(b, &y) == nil && proto.Equal(&x, &y)
}

func TestGolden(t *testing.T) {
	goldentest.Frozen(t, "testdata")
	files := goldentest.Read[golden](t, "testdata")
	have := map[protoreflect.Name]bool{}
	for _, f := range slices.Sorted(maps.Keys(files)) {
		r := newReader()
		for _, want := range files[f] {
			got := r.read(want, t)
			if !same(want.Event, got.Event) {
				t.Errorf("%s: %s is decoded as %s, want %s", f, want.Name, got.Event, want.Event)
			}
			got.Event, want.Event = nil, nil
			if want.Read == "newer" && got.Read == "read" && sinceOf(want) > versionOf(t, f) {
				continue // laid down then, and read since
			}
			if a, b := mustJSON(t, got), mustJSON(t, want); a != b {
				t.Errorf("%s: %s is read as\n%s, want\n%s", f, want.Name, a, b)
			}
			raw, _ := hex.DecodeString(want.Bytes)
			var m eventv1.Event
			if proto.Unmarshal(raw, &m) == nil {
				if fd := m.ProtoReflect().WhichOneof(m.ProtoReflect().Descriptor().Oneofs().ByName("body")); fd != nil {
					have[fd.Name()] = true
				}
			}
		}
	}
	bodies := (&eventv1.Event{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range bodies.Len() {
		if n := bodies.Get(i).Name(); !have[n] {
			t.Errorf("no golden event of type %s: write a further file with -golden", n)
		}
	}
}

// sinceOf is the first version that reads an event's type.
func sinceOf(g golden) uint32 {
	raw, _ := hex.DecodeString(g.Bytes)
	var m eventv1.Event
	if proto.Unmarshal(raw, &m) != nil {
		return 0
	}
	d, _ := event.Declared(event.TypeOf(&m))
	return d.Since
}

// versionOf is the reader version that wrote a file.
func versionOf(t *testing.T, file string) (n uint32) {
	t.Helper()
	if _, err := fmt.Sscanf(filepath.Base(file), "reader-%d", &n); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return n
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestWriteGolden writes samples as a file of goldens. It is run by hand when a version is released, with the name of a
// file that is not there yet.
func TestWriteGolden(t *testing.T) {
	if *write == "" {
		return
	}
	r := newReader()
	var out []golden
	for _, s := range samples(t) {
		out = append(out, r.read(s, t))
	}
	goldentest.Create(t, "testdata", *write, out)
}
