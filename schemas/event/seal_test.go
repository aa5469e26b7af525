package event_test

import (
	"encoding/hex"
	"testing"

	"heliograph/schemas/event"
	"heliograph/schemas/id"
)

// What a seal authenticates is part of the format: other SDKs compute the same bytes.
func TestAssociatedData(t *testing.T) {
	th, m := id.ThreadID(v7(10)), event.MessageRef{Author: id.UserID(v7(1)), ID: id.MessageID(v7(20))}
	const place = "0193456789ab7cde8f0123456789ab0a" + "0193456789ab7cde8f0123456789ab01" +
		"0193456789ab7cde8f0123456789ab14"
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"sealed": {event.AssociatedData(th, m), "68656c696f2f7365616c65642f3100" + place},
		"stored": {event.StoredAssociatedData(th, m), "68656c696f2f73746f7265642f3100" + place},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
