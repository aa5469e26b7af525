package user_test

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// FuzzApply folds logs that nobody checked before. Whatever they hold: no panic, the event is left as it was, what has
// no effect changes nothing, an event at the position of one before is stale, of a user's devices at most one is
// primary and at most MaxDevices may connect, and the log twice gives what it gives once.
func FuzzApply(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(eventtest.Script(eventtest.NewWorld(3, rand.New(rand.NewPCG(seed, 7)).IntN).Steps(120)))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		log, once := states{}, states{}
		steps := slices.DeleteFunc(
			eventtest.ParseScript(script),
			func(s eventtest.Step) bool { return s.Event == nil || s.Topic != topic.Users },
		)
		for _, s := range steps {
			once.apply(s)
			was := log[id.UserID(s.Subject)]
			if was == nil {
				was = user.New(id.UserID(s.Subject))
			}
			was = was.Clone()
			given := proto.CloneOf(s.Event.Event)
			v := log.apply(s)
			is := log[id.UserID(s.Subject)]
			if !proto.Equal(given, s.Event.Event) {
				t.Fatalf("%v was changed into %v", given, s.Event)
			}
			if v.Outcome != user.Stale {
				was.Next = s.Position + 1
			}
			if v.Outcome != user.Accepted {
				same(t, "an event without effect", was, is)
			}
			again := is.Clone()
			if v := again.Apply(s.Event, s.Position, s.TimeMS); v.Outcome != user.Stale {
				t.Fatalf("the same event again is %+v", v)
			}
			same(t, "the same event again", is, again)
			active, primary := 0, 0
			for d, dev := range is.Devices {
				if is.Active(d) == nil {
					continue
				}
				active++
				if dev.Primary {
					primary++
				}
			}
			if active > user.MaxDevices || primary > 1 {
				t.Fatalf("%d devices may connect, %d of them primary", active, primary)
			}
			for _, d := range v.Devices {
				if is.Devices[d] == nil {
					t.Fatalf("a verdict on a device that is not there: %v", d)
				}
			}
			for _, d := range v.Revoked {
				if is.Active(d) != nil {
					t.Fatalf("revoked, and may connect: %v", d)
				}
			}
		}
		for _, s := range steps {
			log.apply(s)
		}
		for k, is := range log {
			same(t, "twice", once[k], is)
		}
	})
}

func same(t *testing.T, what string, was, is *user.State) {
	t.Helper()
	if !reflect.DeepEqual(was, is) { // much faster than cmp, and a fuzzer lives on that
		t.Fatalf("%s changed (-was +is):\n%s", what, cmp.Diff(was, is))
	}
}
