package goldentest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	wirev1 "heliograph/schemas/wire/v1"
)

// A file of goldens that was changed, added by hand or taken away is noticed.
func TestFrozen(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(dir string) error
		want   string
	}{
		{"nothing", func(string) error { return nil }, ""},
		{"changed", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "one.json"), []byte("[]\n"), 0o644)
		}, "one.json was changed"},
		{"added by hand", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "three.json"), []byte("[]\n"), 0o644)
		}, "three.json is not in SHA256SUMS"},
		{"taken away", func(dir string) error {
			return os.Remove(filepath.Join(dir, "two.json"))
		}, "two.json is in SHA256SUMS and gone"},
		{"no sums", func(dir string) error { return os.Remove(filepath.Join(dir, sums)) }, "no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			Create(t, dir, "one.json", []int{1})
			Create(t, dir, "two.json", []int{2})
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			got := strings.Join(faults(dir), "\n")
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A golden that says one thing and holds another differs, whichever of the two was changed.
func TestDiffers(t *testing.T) {
	c := Frames{
		Limits: map[proto.Message]int{(*wirev1.ClientFrame)(nil): 100},
		Say:    func(proto.Message, *Frame) error { return nil },
	}
	good := c.read(t, c.Of(t, "leave", wirev1.ClientFrame_builder{
		RequestId: 7, LeaveThread: wirev1.LeaveThread_builder{ThreadId: []byte{1, 2}}.Build(),
	}.Build()))
	if good.Bytes != "08"+"0807"+"62040a020102" || !good.Canonical || good.Body != "leave_thread" {
		t.Fatalf("the golden is %+v", good)
	}
	for _, x := range []struct {
		name   string
		change func(*Frame)
	}{
		{"", func(*Frame) {}},
		{"bytes", func(g *Frame) { g.Bytes = "08" + "0807" + "62040a020103" }},
		{"bytes in another order", func(g *Frame) { g.Bytes = "08" + "62040a020102" + "0807" }},
		{"what they say", func(g *Frame) {
			g.Frame = json.RawMessage(`{"requestId":"7","leaveThread":{"threadId":"AQM="}}`)
		}},
		{"nothing said", func(g *Frame) { g.Frame = nil }},
		{"what is read", func(g *Frame) { g.Read = ReadMalformed }},
		{"body", func(g *Frame) { g.Body = "add_members" }},
		{"canonical", func(g *Frame) { g.Canonical = false }},
		{"limit", func(g *Frame) { g.Limit = 7 }},
	} {
		g := good
		x.change(&g)
		if diff := c.differs(t, g); (diff == "") != (x.name == "") {
			t.Errorf("changed %q: %q", x.name, diff)
		}
	}
}
