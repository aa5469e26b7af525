package edge

import (
	"crypto/ed25519"
	"testing"

	"heliograph/schemas/id"
	wirev1 "heliograph/schemas/wire/v1"
)

// Who registers a number again under the id of a device that is in already is not that device: it would keep its history, and the old key.
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
	thief.refused(thief.ask(wirev1.ClientFrame_builder{ListDevices: &wirev1.ListDevices{}}), wirev1.Code_CODE_NOT_AUTHENTICATED)
}

// A device that sends more watermarks than it may is read more slowly; it loses none.
func TestWatermarksAreSlowedDown(t *testing.T) {
	f := start(t, func(c *Config) { c.Session.WatermarkRate, c.Session.WatermarkBurst = 200, 2 })
	a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
	a.ask(direct(a, b, "hi"))
	th := id.DirectThread(a.user, b.user)
	mark := wirev1.Watermark_builder{ThreadId: th[:]}.Build()
	for range 4 {
		b.send(wirev1.ClientFrame_builder{Watermarks: wirev1.Watermarks_builder{Items: []*wirev1.Watermark{mark, mark, mark}}.Build()})
	}
	b.ask(wirev1.ClientFrame_builder{ListDevices: &wirev1.ListDevices{}})
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	if n := len(f.world.marks); n != 12 {
		t.Errorf("%d watermarks were taken, want 12", n)
	}
}
