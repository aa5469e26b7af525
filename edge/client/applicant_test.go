package client

import (
	"context"
	"sync"
	"testing"

	"heliograph/schemas/id"
	wirev1 "heliograph/schemas/wire/v1"
)

// TestAPinIsForTheKeyThatAsked: a device asks for its PIN with the key that it registers with, also when it was
// restarted between.
func TestAPinIsForTheKeyThatAsked(t *testing.T) {
	var mu sync.Mutex
	var asked, registered []byte // guarded by mu
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		answer := wirev1.ServerFrame_builder{RequestId: f.GetRequestId()}
		mu.Lock()
		defer mu.Unlock()
		switch f.WhichBody() {
		case wirev1.ClientFrame_RequestPin_case:
			asked = f.GetRequestPin().GetPublicKey()
			answer.PinRequested = wirev1.PinRequested_builder{ExpiresInMs: 1}.Build()
		case wirev1.ClientFrame_Register_case:
			registered = f.GetRegister().GetPublicKey()
			u, d := id.UserID{1}, f.GetRegister().GetDeviceId()
			answer.Authenticated = wirev1.Authenticated_builder{UserId: u[:], DeviceId: d}.Build()
		default:
			return false
		}
		p.write(answer.Build())
		return true
	})
	path := t.TempDir() + "/device"
	run := func(do func(c *Client)) {
		t.Helper()
		store, err := OpenFileStore(path)
		must(t, err)
		mine := cfg
		mine.Store = store
		c, err := New(mine)
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		do(c)
		cancel()
		must(t, <-done)
		must(t, store.Close())
	}
	run(func(c *Client) {
		_, _, err := c.RequestPin(within(t), "+491")
		must(t, err)
	})
	run(func(c *Client) {
		_, err := c.Register(within(t), Registration{Phone: "+491", Pin: "222222"})
		must(t, err)
	})
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != 32 || string(asked) != string(registered) {
		t.Errorf("asked with %x, registered with %x", asked, registered)
	}
}
