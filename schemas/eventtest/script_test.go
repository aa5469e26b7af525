package eventtest_test

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"heliograph/schemas/eventtest"
)

// A script that was written down is read as it was: what the fuzz targets begin with are the logs that the property
// tests know.
func TestScript(t *testing.T) {
	want := eventtest.NewWorld(4, rand.New(rand.NewPCG(1, 2)).IntN).Steps(300)
	if d := cmp.Diff(want, eventtest.ParseScript(eventtest.Script(want)), protocmp.Transform()); d != "" {
		t.Fatal(d)
	}
}
