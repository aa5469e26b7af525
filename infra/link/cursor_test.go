package link

import (
	"encoding/hex"
	"testing"

	"google.golang.org/protobuf/proto"

	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

// Cursors as they stand on a link, of the first version and of later ones.
func TestCursorsOfEveryVersion(t *testing.T) {
	for _, c := range []struct {
		name, bytes string
		want        topic.Cursor
	}{
		{"the beginning", "", topic.Cursor{}},
		{"first version", "08ac02100518f403", topic.Cursor{300, 5, 500}},
		{"first version, at 0 in two topics", "1007", topic.Cursor{0, 7, 0}},
		{"both forms", "08ac02100518f403" + "220508011" + "0ac02" + "220408021005" + "2205080310f403",
			topic.Cursor{300, 5, 500}},
		{"entries alone", "2205080110ac02" + "220408021005", topic.Cursor{300, 5, 0}},
		{"a topic that is not folded and one that is not known", "220408041009" + "220408631008" + "220408021005",
			topic.Cursor{0, 5, 0}},
		{"a further field", "08ac02" + "2801", topic.Cursor{300, 0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw, err := hex.DecodeString(c.bytes)
			if err != nil {
				t.Fatal(err)
			}
			var m linkv1.Cursor
			if err := proto.Unmarshal(raw, &m); err != nil {
				t.Fatal(err)
			}
			if err := checkCursor(&m); err != nil {
				t.Errorf("refused: %v", err)
			}
			if got := DecodeCursor(&m); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// What this version writes is read by the first version, which knows the fields 1 to 3 alone.
func TestTheFirstVersionReadsWhatIsWritten(t *testing.T) {
	want := topic.Cursor{300, 5, 500}
	raw, err := proto.Marshal(EncodeCursor(want))
	if err != nil {
		t.Fatal(err)
	}
	var m linkv1.Cursor
	if err := proto.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	if got := DecodeCursor(&m); got != want {
		t.Errorf("this version reads %v, want %v", got, want)
	}
	m.SetEntries(nil)
	if got := DecodeCursor(&m); got != want {
		t.Errorf("the first version reads %v, want %v", got, want)
	}
}

func TestCursorsThatNobodyWrites(t *testing.T) {
	entry := func(n int32, at int64) *linkv1.CursorEntry {
		return linkv1.CursorEntry_builder{Topic: n, Position: at}.Build()
	}
	var many []*linkv1.CursorEntry
	for n := range int32(maxEntries + 1) {
		many = append(many, entry(n, 1))
	}
	for name, m := range map[string]linkv1.Cursor_builder{
		"a negative position":          {Receipts: -1},
		"a negative position in entry": {Entries: []*linkv1.CursorEntry{entry(1, -1)}},
		"a topic twice":                {Entries: []*linkv1.CursorEntry{entry(1, 1), entry(2, 1), entry(1, 2)}},
		"too many entries":             {Entries: many},
	} {
		if checkCursor(m.Build()) == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// A delivery instance of a later version may push a topic that this one does not know: the frame is the reader's to
// pass over, and no reason to end the link.
func TestEventsOfTopicsThatAreNotKnown(t *testing.T) {
	for n, want := range map[int32]bool{99: true, 1: true, 0: false, -1: false} {
		raw, err := proto.Marshal(linkv1.ToEdge_builder{Events: linkv1.Events_builder{Topic: n}.Build()}.Build())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeToEdge(raw); (err == nil) != want {
			t.Errorf("topic %d: %v", n, err)
		}
	}
}
