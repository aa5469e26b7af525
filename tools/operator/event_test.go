package operator_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/tools/operator"
)

// What messages say is shown when asked for, and only if nobody has sealed it.
func TestShow(t *testing.T) {
	user, group := id.UserID{1}, id.ThreadID{2}
	said := func(s *eventv1.Sealed) *eventv1.Event {
		return eventv1.Event_builder{
			UserId:      user[:],
			MessageSent: eventv1.MessageSent_builder{MessageId: group[:], Content: s}.Build(),
		}.Build()
	}
	renamed := eventv1.Event_builder{ThreadRenamed: eventv1.ThreadRenamed_builder{Title: "x"}.Build()}.Build()
	sealed := eventv1.Sealed_builder{KeyId: 7, Data: []byte("abc")}.Build()
	for name, c := range map[string]struct {
		ev     *eventv1.Event
		bodies bool
		kind   string
		fields map[string]any
	}{
		"hidden": {said(eventtest.Text("hello")), false, "message_sent", map[string]any{
			"content": "5 bytes of text", "message_id": group.String(),
		}},
		"shown": {said(eventtest.Text("hello")), true, "message_sent", map[string]any{
			"content": "hello", "message_id": group.String(),
		}},
		"sealed": {said(sealed), true, "message_sent", map[string]any{
			"content": "3 bytes under key 7", "message_id": group.String(),
		}},
		"another": {renamed, false, "thread_renamed", map[string]any{"title": "x"}},
		"of a type that this version does not know": {&eventv1.Event{}, false, "unknown", nil},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := proto.Marshal(c.ev)
			if err != nil {
				t.Fatal(err)
			}
			got := operator.Show(raw, c.bodies)
			if got.Kind != c.kind || got.Error != "" {
				t.Errorf("got %+v, want the kind %s", got, c.kind)
			}
			if diff := cmp.Diff(c.fields, got.Fields); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
		})
	}
	whole := eventv1.Event_builder{
		UserId: user[:], Rules: 2, MinReader: 3, Producer: "edge-1/1.0", RequestId: []byte{0xa1, 0xb2, 0xc3, 0xd4, 7},
		Cause:     eventv1.Cause_builder{Topic: 1, Slot: 3, Position: 9}.Build(),
		ActorKind: eventv1.ActorKind_ACTOR_KIND_OPERATOR, ThreadLeft: &eventv1.ThreadLeft{},
	}.Build()
	keyed := eventv1.Event_builder{
		RequestId: []byte("order 7"), Cause: eventv1.Cause_builder{Topic: 99}.Build(),
		ThreadLeft: &eventv1.ThreadLeft{},
	}.Build()
	for _, c := range []struct {
		ev   *eventv1.Event
		want operator.Envelope
		line string
	}{
		{renamed, operator.Envelope{}, ""},
		{whole, operator.Envelope{
			Rules: 2, MinReader: 3, Producer: "edge-1/1.0", Request: "a1b2c3d407", Actor: "operator",
			Cause: &operator.Cause{Topic: "helio.threads", Slot: 3, Position: 9},
		}, "rules=2 min_reader=3 actor_kind=operator producer=edge-1/1.0 request_id=a1b2c3d407 " +
			"cause=helio.threads:3:9"},
		{
			keyed, operator.Envelope{Request: "order 7", Cause: &operator.Cause{Topic: "topic 99"}},
			"request_id=order 7 cause=topic 99:0:0",
		},
	} {
		raw, err := proto.Marshal(c.ev)
		if err != nil {
			t.Fatal(err)
		}
		got := operator.Show(raw, false).Envelope
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("envelope (-want +got):\n%s", diff)
		}
		if line := strings.Join(got.Words(), " "); line != c.line {
			t.Errorf("got %q, want %q", line, c.line)
		}
	}
	if got := operator.Show([]byte{0xff}, true); got.Kind != "undecodable" || got.Error == "" {
		t.Errorf("of no event: %+v", got)
	}
}
