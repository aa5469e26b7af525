package wire_test

import (
	"flag"
	"testing"

	"google.golang.org/protobuf/proto"

	"heliograph/schemas/goldentest"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

var write = flag.String("golden", "", "write a new file of this name; a file that exists is never changed")

// corpus is what each released version wrote on a device's connection.
var corpus = goldentest.Frames{
	Dir: "testdata",
	Limits: map[proto.Message]int{
		(*wirev1.ClientFrame)(nil): wire.MaxFrame, (*wirev1.ServerFrame)(nil): wire.MaxServerFrame,
	},
	Say: func(m proto.Message, g *goldentest.Frame) error {
		if f, ok := m.(*wirev1.ServerFrame); ok && f.HasError() {
			row := wire.Lookup(f.GetError().GetCode())
			g.Code = &goldentest.Code{
				Name: row.Name, Retriable: row.Retriable, Closes: row.Closes, Reconnect: row.Reconnect,
			}
		}
		return nil
	},
}

// TestGolden: what any version wrote is read as it was, by every kind of frame and every code.
func TestGolden(t *testing.T) {
	corpus.Check(t)
	have := map[string]bool{}
	for _, list := range goldentest.Read[goldentest.Frame](t, corpus.Dir) {
		for _, g := range list {
			if g.Code != nil {
				have[g.Code.Name] = true
			}
		}
	}
	codes := wirev1.Code(0).Descriptor().Values()
	for i := range codes.Len() {
		if row := wire.Lookup(wirev1.Code(codes.Get(i).Number())); !have[row.Name] {
			t.Errorf("no golden frame with the code %s: write a further file with -golden", row.Name)
		}
	}
}

// TestWriteGolden writes samples as a file of goldens. It is run by hand when a version is released, with the name of a
// file that is not there yet.
func TestWriteGolden(t *testing.T) {
	if *write != "" {
		corpus.Write(t, *write, samples(t))
	}
}
