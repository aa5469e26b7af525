package session

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	eventv1 "heliograph/schemas/event/v1"
)

func plain(t testing.TB, contents ...eventv1.Content_builder) *eventv1.Sealed {
	var data []byte
	for _, c := range contents { // one behind the other: what is said twice counts as it is said last
		var err error
		if data, err = (proto.MarshalOptions{}).MarshalAppend(data, c.Build()); err != nil {
			t.Fatal(err)
		}
	}
	return eventv1.Sealed_builder{Data: data}.Build()
}

func TestEmptyContent(t *testing.T) {
	text := func(s string) eventv1.Content_builder { return eventv1.Content_builder{Text: s} }
	part := eventv1.Content_builder{Parts: []*eventv1.Part{{}}}
	blanks := strings.Repeat(" ", 31)
	for _, c := range []struct {
		name string
		of   *eventv1.Sealed
		want bool
	}{
		{"nothing", plain(t), true},
		{"text", plain(t, text("How are you?")), false},
		{"other scripts", plain(t, text("क्या हाल है?")), false},
		{"blanks", plain(t, text(" \t\n\u2060")), true},
		{"blanks, then text", plain(t, text(blanks+blanks+"x")), false},
		{"a character at the end of what is looked at first", plain(t, text(blanks+"\u2060"+blanks)), true},
		{"text, then the same field without", plain(t, text("x"), part), false},
		{"parts alone", plain(t, part), false},
		{"a field that is not known", eventv1.Sealed_builder{Data: []byte{0xa2, 0x06, 0x00}}.Build(), false},
		{"blanks and a field that is not known", eventv1.Sealed_builder{
			Data: append(plain(t, text(" ")).GetData(), 0xa2, 0x06, 0x00)}.Build(), false},
		{"text that was taken back", eventv1.Sealed_builder{
			Data: append(plain(t, text("x")).GetData(), 0x0a, 0x01, ' ')}.Build(), true},
		{"cut", eventv1.Sealed_builder{Data: []byte{0x0a, 0x05, 'x'}}.Build(), false},
		{"sealed", eventv1.Sealed_builder{KeyId: 7}.Build(), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := empty(c.of); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// Ingest decodes each message anyway.
func TestAnOrdinaryTextIsNotDecodedToBeSeen(t *testing.T) {
	for _, s := range []string{"ok", strings.Repeat("How are you? ", 100), strings.Repeat("आप कैसे हैं? ", 50)} {
		of := plain(t, eventv1.Content_builder{Text: s})
		if n := testing.AllocsPerRun(100, func() { _ = empty(of) }); n != 0 {
			t.Errorf("%q makes %v objects", s, n)
		}
	}
}
