package event_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
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
		"edited": {event.EditAssociatedData(th, m), "68656c696f2f6564697465642f3100" + place},
		"stored": {event.StoredAssociatedData(th, m), "68656c696f2f73746f7265642f3100" + place},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// What is committed to, signed and keyed by is part of the format too.
func TestLaidDownBytes(t *testing.T) {
	th, m := id.ThreadID(v7(10)), event.MessageRef{Author: id.UserID(v7(1)), ID: id.MessageID(v7(20))}
	ad, content := event.AssociatedData(th, m), []byte("an encoded Content")
	sum := sha256.Sum256(slices.Concat([]byte("helio/commitment/1\x00"), ad, content))
	if got := event.Commitment(ad, content); got != sum {
		t.Errorf("commitment %x, want %x", got, sum)
	}
	const want = "68656c696f2f31206c696e6b00" + "0193456789ab7cde8f0123456789ab01" +
		"0193456789ab7cde8f0123456789ab02" + "6b31" + "0193456789ab7cde8f0123456789ab03" + "6b32"
	got := event.Approval(id.UserID(v7(1)), id.DeviceID(v7(2)), []byte("k1"), id.DeviceID(v7(3)), []byte("k2"))
	if hex.EncodeToString(got) != want {
		t.Errorf("approval %x, want %s", got, want)
	}
	if s := event.DeploymentSubject(); hex.EncodeToString(s[:]) != "a3bbdd2d9fae8fb78a8ad22e14bbc212" {
		t.Errorf("the deployment's subject is %x", s)
	}
}

// An ignorable event is passed over by a version that knows its type too.
func TestIgnorableIsPassedOverByAll(t *testing.T) {
	raw, err := proto.Marshal(eventv1.Event_builder{Ignorable: true, MemberLeft: &eventv1.MemberLeft{}}.Build())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := event.Decode(raw); !errors.Is(err, event.ErrIgnorable) {
		t.Errorf("got %v", err)
	}
}
