package edge

import (
	"crypto/ed25519"
	"slices"
	"testing"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	wirev1 "heliograph/schemas/wire/v1"
)

// Who registers a number again under the id of a device that is in already is not that device: it would keep its
// history, and the old key.
func TestDeviceIDIsUsedOnce(t *testing.T) {
	f := start(t, nil)
	a := f.dial(t).register("+491").sync()
	thief := f.dial(t).hello()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	thief.key, thief.id = key, a.id
	thief.refused(thief.ask(thief.registration("+491", public)), wirev1.Code_CODE_AUTHENTICATION_FAILED)
	thief.refused(
		thief.ask(wirev1.ClientFrame_builder{ListDevices: &wirev1.ListDevices{}}), wirev1.Code_CODE_NOT_AUTHENTICATED,
	)
}

// A device that sends more watermarks than it may is read more slowly; it loses none.
func TestWatermarksAreSlowedDown(t *testing.T) {
	f := start(t, func(c *Config) { c.Session.WatermarkRate, c.Session.WatermarkBurst = 200, 2 })
	a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
	a.ask(direct(a, b, "hi"))
	th := id.DirectThread(a.user, b.user)
	mark := wirev1.Watermark_builder{ThreadId: th[:], DeliveredOrdinal: 1}.Build()
	for range 4 {
		b.tell(wirev1.ClientFrame_builder{
			Watermarks: wirev1.Watermarks_builder{Items: []*wirev1.Watermark{mark, mark, mark}}.Build(),
		})
	}
	b.ask(wirev1.ClientFrame_builder{ListDevices: &wirev1.ListDevices{}})
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	if n := len(f.world.marks); n != 12 {
		t.Errorf("%d watermarks were taken, want 12", n)
	}
}

// What a device says again and again is in the log once: 1,000 watermarks that raise nothing are no record.
func TestUnchangedWatermarksAreNotAppended(t *testing.T) {
	f := start(t, nil)
	a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
	a.ask(direct(a, b, "hi"))
	a.ask(direct(a, b, "hi"))
	th := id.DirectThread(a.user, b.user)
	say := func(times int, delivered, read int64) (marks []mark) {
		t.Helper()
		items := make([]*wirev1.Watermark, times)
		for k := range items {
			items[k] = wirev1.Watermark_builder{
				ThreadId: th[:], DeliveredPosition: delivered - 1, DeliveredOrdinal: delivered, ReadOrdinal: read,
			}.Build()
		}
		got := b.ask(wirev1.ClientFrame_builder{Watermarks: wirev1.Watermarks_builder{Items: items}.Build()})
		if !got.HasDone() {
			t.Fatalf("got %v", got)
		}
		f.world.mu.Lock()
		defer f.world.mu.Unlock()
		return slices.Clone(f.world.marks)
	}
	logged := func(th id.ThreadID, w thread.Watermark, at topic.Position) {
		t.Helper()
		f.world.mu.Lock()
		defer f.world.mu.Unlock()
		for s := range f.world.sessions {
			if s.User() == b.user {
				s.Logged(th, at, w)
			}
		}
	}
	if n := len(say(1000, 0, 0)); n != 0 {
		t.Errorf("%d records of nothing", n)
	}
	first := say(1, 1, 0)
	if len(first) != 1 {
		t.Fatalf("%d records of the first message", len(first))
	}
	if n := len(say(1, 1, 0)); n != 2 {
		t.Errorf("%d records before the log is known to have the first, want 2: it may have been dropped", n)
	}
	logged(th, first[0].w, 1)
	if n := len(say(1000, 1, 0)); n != 2 {
		t.Errorf("%d records, want 2", n)
	}
	read := say(1, 1, 1)
	if len(read) != 3 {
		t.Fatalf("%d records once the message was read, want 3", len(read))
	}
	logged(th, read[2].w, 2)
	if n := len(say(1000, 1, 0)); n != 3 {
		t.Errorf("%d records of what is lower, want 3", n)
	}
	for other := range user.MaxThreads - 1 { // who is in many threads is no exception
		logged(id.ThreadID{1, byte(other >> 8), byte(other)}, read[2].w, 3)
	}
	if n := len(say(1000, 1, 1)); n != 3 {
		t.Errorf("%d records once the device has as many threads as there may be, want 3", n)
	}
}

// Putting users into groups costs an event for each: a device that does it without end is told to wait.
func TestJoinsAreLimited(t *testing.T) {
	f := start(t, func(c *Config) { c.Session.JoinRate, c.Session.JoinBurst = 1, thread.MaxMembers })
	a := f.dial(t).register("+491").sync()
	var raw [][]byte
	f.world.mu.Lock()
	for n := range thread.MaxMembers - 1 {
		u := id.UserID{1, byte(n >> 8), byte(n)}
		f.world.users[u] = true
		raw = append(raw, u[:])
	}
	f.world.mu.Unlock()
	create := func() *wirev1.ServerFrame {
		g := id.NewGroup()
		return a.ask(wirev1.ClientFrame_builder{
			CreateGroup: wirev1.CreateGroup_builder{ThreadId: g[:], Title: "all", MemberIds: raw}.Build(),
		})
	}
	if got := create(); !got.HasAck() {
		t.Fatalf("got %v, want an ack", got)
	}
	n := len(f.world.log())
	got := create()
	a.refused(got, wirev1.Code_CODE_RATE_LIMITED)
	if got.GetError().GetRetryAfterMs() == 0 || len(f.world.log()) != n {
		t.Errorf("refused without a time to wait, or something was appended: %v", got)
	}
}
