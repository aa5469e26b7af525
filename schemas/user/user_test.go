package user_test

import (
	"crypto/sha256"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

type states map[id.UserID]*user.State

func (s states) apply(st eventtest.Step) user.Verdict {
	u := id.UserID(st.Subject)
	if s[u] == nil {
		s[u] = user.New(u)
	}
	return s[u].Apply(st.Event, st.Position, st.TimeMS)
}

func steps(t *rapid.T) []eventtest.Step {
	w := eventtest.NewWorld(3, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "pick") })
	var out []eventtest.Step
	for _, s := range w.Steps(rapid.IntRange(0, 200).Draw(t, "steps")) {
		if s.Topic == topic.Users {
			out = append(out, s)
		}
	}
	return out
}

func TestReplayCutAndInterleaving(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := steps(t)
		once, twice, cut, alone := states{}, states{}, states{}, states{}
		byUser := map[topic.Subject][]eventtest.Step{}
		ignoreOrder := cmpopts.SortSlices(func(a, b id.DeviceID) bool { return a.String() < b.String() })
		for _, s := range log {
			want := once.apply(s)
			twice.apply(s)
			if d := cmp.Diff(want, cut.apply(s), ignoreOrder); d != "" {
				t.Fatal(d)
			}
			if rapid.IntRange(0, 3).Draw(t, "cut") == 0 {
				for k, st := range cut {
					cut[k] = st.Clone()
				}
			}
			byUser[s.Subject] = append(byUser[s.Subject], s)
		}
		for _, s := range log {
			if v := twice.apply(s); v.Outcome != user.Stale {
				t.Fatalf("position %d came again and was %v", s.Position, v.Outcome)
			}
		}
		for _, own := range byUser {
			for _, s := range own {
				alone.apply(s)
			}
		}
		for name, other := range map[string]states{"twice": twice, "cut": cut, "alone": alone} {
			if d := cmp.Diff(once, other); d != "" {
				t.Fatalf("%s: %s", name, d)
			}
		}
	})
}

type account struct {
	t  *testing.T
	s  *user.State
	at topic.Position
}

func (a *account) do(b eventv1.Event_builder) user.Verdict {
	a.t.Helper()
	a.at++
	return a.s.Apply(event.Of(b.Build()), a.at, int64(a.at)*1000)
}

func (a *account) register(d id.DeviceID, generation uint32) user.Verdict {
	key := sha256.Sum256(d[:])
	hash := [16]byte{1}
	return a.do(eventv1.Event_builder{UserRegistered: eventv1.UserRegistered_builder{
		PhoneHash: hash[:], Generation: generation, DeviceId: d[:], PublicKey: key[:], DeviceName: "phone",
	}.Build()})
}

func (a *account) link(by, d id.DeviceID) user.Verdict {
	key := sha256.Sum256(d[:])
	return a.do(eventv1.Event_builder{
		DeviceId:     by[:],
		DeviceLinked: eventv1.DeviceLinked_builder{DeviceId: d[:], PublicKey: key[:]}.Build(),
	})
}

func TestRegisteringAgainRevokesEveryOtherDevice(t *testing.T) {
	a := &account{t: t, s: user.New(id.UserID{1})}
	d1, d2, d3 := id.NewDevice(), id.NewDevice(), id.NewDevice()
	if v := a.link(d1, d2); v.Outcome != user.Rejected {
		t.Fatal("a device linked itself to nobody")
	}
	if v := a.register(d1, 1); v.Outcome != user.Accepted || len(v.Revoked) != 0 {
		t.Fatalf("%+v", v)
	}
	if v := a.link(d1, d2); v.Outcome != user.Accepted {
		t.Fatalf("%+v", v)
	}
	if a.s.Devices[d2].SinceMS != a.s.Devices[d1].SinceMS {
		t.Error("a linked device sees another history than the one that approved it")
	}
	v := a.register(d3, 1)
	if v.Outcome != user.Accepted || len(v.Revoked) != 2 || a.s.Active(d1) != nil || a.s.Active(d2) != nil ||
		a.s.Active(d3) == nil {
		t.Fatalf("%+v", v)
	}
	if v := a.link(d1, id.NewDevice()); v.Outcome != user.Rejected {
		t.Error("a revoked device approved another")
	}
	if v := a.register(d1, 1); v.Outcome != user.Rejected {
		t.Error("a revoked device id came back")
	}
	if a.s.RegisteredMS != 2000 {
		t.Errorf("registered at %d: registering again in a generation keeps the first time", a.s.RegisteredMS)
	}
	a.register(id.NewDevice(), 2)
	if a.s.Generation != 2 || a.s.RegisteredMS != int64(a.at)*1000 {
		t.Errorf("generation %d, registered at %d", a.s.Generation, a.s.RegisteredMS)
	}
	if v := a.register(id.NewDevice(), 1); v.Outcome != user.Rejected {
		t.Error("an older generation registered")
	}
}

func TestMaxDevices(t *testing.T) {
	a := &account{t: t, s: user.New(id.UserID{1})}
	first := id.NewDevice()
	a.register(first, 1)
	var last id.DeviceID
	for range user.MaxDevices - 1 {
		last = id.NewDevice()
		if v := a.link(first, last); v.Outcome != user.Accepted {
			t.Fatalf("%+v", v)
		}
	}
	if v := a.link(first, id.NewDevice()); v.Outcome != user.Rejected {
		t.Error("one device too many")
	}
	revoked := eventv1.DeviceRevoked_builder{DeviceId: last[:]}.Build()
	if v := a.do(eventv1.Event_builder{DeviceRevoked: revoked}); len(v.Revoked) != 1 {
		t.Errorf("%+v", v)
	}
	if v := a.link(first, id.NewDevice()); v.Outcome != user.Accepted {
		t.Error("a revoked device still counts")
	}
}
