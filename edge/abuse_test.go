package edge

import (
	"crypto/ed25519"
	"testing"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
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
	mark := wirev1.Watermark_builder{ThreadId: th[:]}.Build()
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
