package eventv1

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// An event type without a class must not come into the log unnoticed: replay would not know what it may do with it.
func TestEveryBodyHasAClass(t *testing.T) {
	bodies := (&Event{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	if bodies.Len() < 20 {
		t.Fatalf("only %d bodies", bodies.Len())
	}
	for i := range bodies.Len() {
		f := bodies.Get(i)
		d, ok := proto.GetExtension(f.Options(), E_Declared).(*Declaration)
		class := d.GetClass()
		if !ok || class == Class_CLASS_UNSPECIFIED || d.GetTopic() == "" {
			t.Errorf("%s has no class or no topic", f.Message().FullName())
		}
		if class != Class_CLASS_REPLAYABLE {
			t.Errorf("%s is in the log, but its class is %v", f.Message().FullName(), class)
		}
	}
}

// Numbers are never reused; these are those that views and tools store.
func TestBodyNumbersAreFrozen(t *testing.T) {
	want := map[protoreflect.Name]protoreflect.FieldNumber{
		"message_sent": 10, "message_edited": 11, "message_deleted": 12, "reaction_set": 13, "thread_created": 14,
		"thread_renamed": 15,
		"member_added":   16, "member_removed": 17, "member_left": 18, "role_changed": 19, "watermarks_moved": 30,
		"user_registered": 50, "device_linked": 51, "device_revoked": 52, "profile_changed": 53, "contact_saved": 54,
		"contact_removed": 55,
		"user_blocked":    56, "user_unblocked": 57, "thread_joined": 58, "thread_left": 59, "presence_changed": 70,
		"quarantined": 80, "log_opened": 90,
	}
	bodies := (&Event{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for name, n := range want {
		if f := bodies.ByName(name); f == nil || f.Number() != n {
			t.Errorf("%s is not number %d", name, n)
		}
	}
}
