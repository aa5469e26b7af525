package thread_test

import (
	"errors"
	"testing"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
)

// A limit that is raised without a number of its own would rewrite what old events meant. These are the rules that are
// in logs out there.
func TestRulesAreFrozen(t *testing.T) {
	want := map[uint32]thread.Rules{
		1: {
			MaxMembers: 1024, MaxText: 65_536, MaxSealed: 66_560, MaxNonce: 32, MaxTitle: 256, MaxEmoji: 64,
			MaxPreview: 160,
		},
		2: {
			MaxMembers: 1024, MaxSealed: 66_560, MaxNonce: 32, MaxTitle: 256, MaxEmoji: 64,
			MaxMentions: 64, MaxBlobs: 32, MaxExpire: 31_536_000, MaxPreview: 160,
		},
		3: {
			MaxMembers: 1024, MaxInvited: 256, MaxSealed: 66_560, MaxNonce: 32, MaxTitle: 1024, MaxEmoji: 64,
			MaxMentions: 64, MaxBlobs: 32, MaxExpire: 31_536_000, MaxPreview: 224, Separators: true,
		},
	}
	if len(want) != event.CurrentRules {
		t.Fatalf("rules %d are the current ones: freeze them here", event.CurrentRules)
	}
	for n, w := range want {
		if got := *thread.RulesOf(n); got != w {
			t.Errorf("rules %d are %+v, want %+v", n, got, w)
		}
	}
	now := thread.RulesOf(event.CurrentRules)
	if now.MaxMembers != thread.MaxMembers || now.MaxSealed != thread.MaxSealed || now.MaxTitle != thread.MaxTitle ||
		now.MaxEmoji != thread.MaxEmoji || now.MaxPreview != thread.MaxPreview {
		t.Error("the limits that writers keep to are not those of the current rules")
	}
}

// The public part of a message is judged by rules 2, and by rules 1 not at all: what they let in stays in.
func TestPublicPartOfAMessage(t *testing.T) {
	u, m := user(1), id.NewMessage()
	some := func(n int) (out [][]byte) {
		for range n {
			out = append(out, u[:])
		}
		return out
	}
	long := make([]byte, id.Size+1)
	for name, c := range map[string]struct {
		set   func(*eventv1.MessageSent_builder)
		field string // at fault by rules 2; empty: none
	}{
		"as much as may be": {func(b *eventv1.MessageSent_builder) {
			b.MentionedIds, b.BlobIds, b.ExpireAfterS, b.Commitment = some(64), some(32), 31_536_000, make([]byte, 32)
		}, ""},
		"too many mentions": {func(b *eventv1.MessageSent_builder) { b.MentionedIds = some(65) }, "mentioned_ids"},
		"a short mention":   {func(b *eventv1.MessageSent_builder) { b.MentionedIds = [][]byte{{1}} }, "mentioned_ids"},
		"too many blobs":    {func(b *eventv1.MessageSent_builder) { b.BlobIds = some(33) }, "blob_ids"},
		"a long blob id":    {func(b *eventv1.MessageSent_builder) { b.BlobIds = [][]byte{long} }, "blob_ids"},
		"too late":          {func(b *eventv1.MessageSent_builder) { b.ExpireAfterS = 31_536_001 }, "expire_after_s"},
		"short commitment":  {func(b *eventv1.MessageSent_builder) { b.Commitment = make([]byte, 31) }, "commitment"},
		"short peer":        {func(b *eventv1.MessageSent_builder) { b.DirectPeer = []byte{1} }, "direct_peer"},
	} {
		for rules := range uint32(event.CurrentRules) {
			b := eventv1.MessageSent_builder{MessageId: m[:], Content: eventtest.Text("hi")}
			c.set(&b)
			err := thread.Check(event.Of(eventv1.Event_builder{
				UserId: u[:], Rules: rules + 1, MessageSent: b.Build(),
			}.Build()))
			field := ""
			if bad := (*event.Invalid)(nil); errors.As(err, &bad) {
				field = bad.Field
			}
			want := c.field
			if rules == 0 {
				want = ""
			}
			if field != want {
				t.Errorf("%s, by rules %d: %v, want %q", name, rules+1, err, want)
			}
			edit := eventv1.MessageEdited_builder{
				Message: eventv1.MessageRef_builder{AuthorId: u[:], MessageId: m[:]}.Build(),
				Content: eventtest.Text("hi"), MentionedIds: b.MentionedIds,
				BlobIds: b.BlobIds, Commitment: b.Commitment,
			}.Build()
			err = thread.Check(event.Of(eventv1.Event_builder{
				UserId: u[:], Rules: rules + 1, MessageEdited: edit,
			}.Build()))
			shared := want == "mentioned_ids" || want == "blob_ids" || want == "commitment"
			if (err != nil) != shared {
				t.Errorf("%s, in an edit by rules %d: %v", name, rules+1, err)
			}
		}
	}
}
