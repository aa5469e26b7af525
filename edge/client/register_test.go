package client

import (
	"errors"
	"sync"
	"testing"

	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// TestRegisterAgainIsTheSameDevice: the edge may have used the PIN before the registration failed, and takes it again
// only from the device that it was used by.
func TestRegisterAgainIsTheSameDevice(t *testing.T) {
	var mu sync.Mutex
	var asked []*wirev1.Register // guarded by mu
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		if f.WhichBody() != wirev1.ClientFrame_Register_case {
			return false
		}
		answer := wirev1.ServerFrame_builder{RequestId: f.GetRequestId()}
		mu.Lock()
		defer mu.Unlock()
		if asked = append(asked, f.GetRegister()); len(asked) < 3 {
			answer.Error = wirev1.Error_builder{Code: wirev1.Code_CODE_UNAVAILABLE}.Build()
		} else {
			u, d := id.UserID{1}, f.GetRegister().GetDeviceId()
			answer.Authenticated = wirev1.Authenticated_builder{UserId: u[:], DeviceId: d}.Build()
		}
		p.write(answer.Build())
		return true
	})
	c, _ := start(t, cfg)
	for _, pin := range []string{"111111", "111111"} {
		_, err := c.Register(within(t), Registration{Phone: "+491", Pin: pin})
		if !errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_UNAVAILABLE}) {
			t.Fatalf("got %v", err)
		}
	}
	me, err := c.Register(within(t), Registration{Phone: "+491", Pin: "222222"})
	must(t, err)
	mu.Lock()
	defer mu.Unlock()
	device := func(k int) string { return string(asked[k].GetDeviceId()) + string(asked[k].GetPublicKey()) }
	if device(0) != device(1) {
		t.Error("the second attempt with a PIN is of another device")
	}
	if device(1) == device(2) || string(me.Device[:]) != string(asked[2].GetDeviceId()) {
		t.Error("another PIN is for the same device")
	}
}
