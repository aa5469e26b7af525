package wire_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	"heliograph/schemas/event"
	"heliograph/schemas/wire"
)

// Every SDK names its requests as the log does.
func TestRequestID(t *testing.T) {
	nonce := bytes.Repeat([]byte{0xa1, 0xb2, 0xc3, 0xd4}, wire.NonceSize/4)
	for _, c := range []struct {
		request uint64
		want    string
	}{
		{0, ""}, {1, "a1b2c3d401"}, {127, "a1b2c3d47f"}, {128, "a1b2c3d48001"}, {300, "a1b2c3d4ac02"},
		{1<<64 - 1, "a1b2c3d4ffffffffffffffffff01"},
	} {
		got := wire.RequestID(nonce, c.request)
		if hex.EncodeToString(got) != c.want || len(got) > event.MaxRequestID {
			t.Errorf("request %d is %x, want %s", c.request, got, c.want)
		}
	}
	if got := wire.RequestID(nil, 1); got != nil {
		t.Errorf("a request before Welcome is %x", got)
	}
}
