package event_test

import (
	"encoding/hex"
	"testing"

	"google.golang.org/protobuf/proto"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// v7 makes an id of the shape of a UUIDv7 whose last byte is n.
func v7(n byte) (out [id.Size]byte) {
	copy(out[:], []byte{0x01, 0x93, 0x45, 0x67, 0x89, 0xab, 0x7c, 0xde, 0x8f, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, n})
	return out
}

func content(t *testing.T, c eventv1.Content_builder) *eventv1.Sealed {
	t.Helper()
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.Build())
	if err != nil {
		t.Fatal(err)
	}
	return eventv1.Sealed_builder{Data: data}.Build()
}

// samples are events of every type, with every field set somewhere.
func samples(t *testing.T) []golden {
	t.Helper()
	ann, bob := id.User([]byte("golden"), "+491510000001", 1), id.User([]byte("golden"), "+491510000002", 1)
	phone, laptop, tablet := v7(1), v7(2), v7(3)
	hash := id.PhoneHash([]byte("golden"), "+491510000001")
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i)
	}
	direct, group := topic.Subject(id.DirectThread(ann, bob)), topic.Subject(v7(10))
	m1, m2, m3, m4 := v7(20), v7(21), v7(22), v7(23)
	stored := eventv1.Stored_builder{DataKeyId: 3, Nonce: key[:12], Data: key}.Build()
	name := func(author id.UserID, m [id.Size]byte) *eventv1.MessageRef {
		return event.MessageRef{Author: author, ID: m}.Proto()
	}
	hello := content(t, eventv1.Content_builder{Text: "hello"})
	policy := eventv1.ThreadPolicy_builder{
		EditWindowS: 900, DeleteWindowS: 3600, Writers: eventv1.Role_ROLE_ADMIN, RetentionS: 86400,
		History: eventv1.HistoryVisibility_HISTORY_VISIBILITY_ALL,
	}.Build()
	var out []golden
	add := func(what string, tp topic.Topic, s topic.Subject, b eventv1.Event_builder, more ...byte) {
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(b.Build())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, golden{
			Name: what, Topic: tp, Subject: hex.EncodeToString(s[:]), Bytes: hex.EncodeToString(append(raw, more...)),
		})
	}
	by := func(b eventv1.Event_builder) eventv1.Event_builder {
		b.UserId, b.DeviceId, b.Rules, b.Producer = ann[:], phone[:], event.CurrentRules, "edge-1/1.0"
		return b
	}
	me := topic.Subject(ann)
	add("registered", topic.Users, me, by(eventv1.Event_builder{UserRegistered: eventv1.UserRegistered_builder{
		PhoneHash: hash[:], Generation: 1, DeviceId: phone[:], PublicKey: key, DeviceName: "phone",
	}.Build()}))
	add("registered by a token", topic.Users, topic.Subject(bob), by(eventv1.Event_builder{
		UserRegistered: eventv1.UserRegistered_builder{
			IdentityHash: hash[:], Generation: 1, DeviceId: laptop[:], PublicKey: key, DeviceName: "browser",
		}.Build(),
	}))
	add("linked", topic.Users, me, by(eventv1.Event_builder{DeviceLinked: eventv1.DeviceLinked_builder{
		DeviceId: laptop[:], PublicKey: key, DeviceName: "laptop", Approval: make([]byte, 64),
	}.Build()}))
	add("linked by nobody", topic.Users, me, eventv1.Event_builder{DeviceLinked: eventv1.DeviceLinked_builder{
		DeviceId: tablet[:], PublicKey: key,
	}.Build()})
	add("revoked", topic.Users, me, by(eventv1.Event_builder{
		DeviceRevoked: eventv1.DeviceRevoked_builder{DeviceId: laptop[:]}.Build(),
	}))
	add("profile", topic.Users, me, by(eventv1.Event_builder{
		ProfileChanged: eventv1.ProfileChanged_builder{Name: "Änne"}.Build(),
	}))
	add("contact", topic.Users, me, by(eventv1.Event_builder{
		ContactSaved: eventv1.ContactSaved_builder{PhoneHash: hash[:], Name: "myself"}.Build(),
	}))
	add("contact removed", topic.Users, me, by(eventv1.Event_builder{
		ContactRemoved: eventv1.ContactRemoved_builder{PhoneHash: hash[:]}.Build(),
	}))
	add("blocked", topic.Users, me, by(eventv1.Event_builder{
		UserBlocked: eventv1.UserBlocked_builder{BlockedId: bob[:]}.Build(),
	}))
	add("unblocked", topic.Users, me, by(eventv1.Event_builder{
		UserUnblocked: eventv1.UserUnblocked_builder{BlockedId: bob[:]}.Build(),
	}))
	add("joined", topic.Users, me, by(eventv1.Event_builder{
		ThreadJoined: eventv1.ThreadJoined_builder{ThreadId: group[:], NewThread: true, SincePosition: 7}.Build(),
	}))
	add("left the list", topic.Users, me, by(eventv1.Event_builder{
		ThreadLeft: eventv1.ThreadLeft_builder{ThreadId: group[:]}.Build(),
		Cause:      eventv1.Cause_builder{Topic: 1, Slot: 3, Position: 9}.Build(),
	}))
	add("who may add", topic.Users, me, by(eventv1.Event_builder{
		MayAddChanged: eventv1.MayAddChanged_builder{MayAdd: eventv1.MayAdd_MAY_ADD_NOBODY}.Build(),
	}))
	invited := by(eventv1.Event_builder{
		ThreadInvited: eventv1.ThreadInvited_builder{ThreadId: group[:], Title: "walk"}.Build(),
		Cause:         eventv1.Cause_builder{Topic: 1, Slot: 3, Position: 8}.Build(),
	})
	add("invited by himself", topic.Users, me, invited)
	invited.UserId = bob[:]
	add("invited", topic.Users, me, invited)
	add("invitation ended", topic.Users, me, by(eventv1.Event_builder{
		ThreadInvitationEnded: eventv1.ThreadInvitationEnded_builder{ThreadId: group[:]}.Build(),
	}))
	add("policy of the deployment", topic.Users, event.DeploymentSubject(), by(eventv1.Event_builder{
		DeploymentPolicyChanged: eventv1.DeploymentPolicyChanged_builder{Threads: policy}.Build(),
		ActorKind:               eventv1.ActorKind_ACTOR_KIND_OPERATOR,
	}))

	add("message", topic.Threads, direct, by(eventv1.Event_builder{MessageSent: eventv1.MessageSent_builder{
		MessageId: m1[:], Content: hello, DirectPeer: bob[:], ClientTimeMs: 1_790_000_000_000,
	}.Build()}))
	add("message of a version before rules", topic.Threads, direct, eventv1.Event_builder{
		UserId: bob[:], DeviceId: laptop[:],
		MessageSent: eventv1.MessageSent_builder{MessageId: m2[:], Content: hello, ReplyTo: m1[:]}.Build(),
	})
	add("message again", topic.Threads, direct, by(eventv1.Event_builder{
		MessageSent: eventv1.MessageSent_builder{MessageId: m1[:], Content: hello}.Build(),
	}))
	add("message with all that stands beside it", topic.Threads, direct, by(eventv1.Event_builder{
		RequestId: []byte("request 1"), ActorKind: eventv1.ActorKind_ACTOR_KIND_BOT,
		MessageSent: eventv1.MessageSent_builder{
			MessageId: m3[:], Reply: name(bob, m2), MentionedIds: [][]byte{bob[:]}, BlobIds: [][]byte{key[:16]},
			ExpireAfterS: 3600, Silent: true, Commitment: key,
			Content: content(t, eventv1.Content_builder{Text: "a picture", Parts: []*eventv1.Part{
				eventv1.Part_builder{
					Text: eventv1.TextPart_builder{Text: "*look*", MediaType: "text/markdown"}.Build(),
				}.Build(),
				eventv1.Part_builder{Media: eventv1.MediaPart_builder{
					BlobId: key[:16], MediaType: "image/jpeg", FileName: "a.jpg", SizeBytes: 9, Thumbnail: []byte{1},
					Width: 4, Height: 3, DurationMs: 1, Key: key, Digest: key,
				}.Build()}.Build(),
				eventv1.Part_builder{
					Location: eventv1.LocationPart_builder{Latitude: 48.5, Longitude: 9, Name: "home"}.Build(),
				}.Build(),
			}}),
		}.Build(),
	}))
	sealed := eventv1.Sealed_builder{
		KeyId: 7, Nonce: key[:12], Data: key, Scheme: eventv1.Scheme_SCHEME_AES_256_GCM,
	}.Build()
	m5, m6 := v7(24), v7(25)
	add("sealed message", topic.Threads, direct, by(eventv1.Event_builder{
		MessageSent: eventv1.MessageSent_builder{MessageId: m4[:], Content: sealed}.Build(),
	}))
	add("plain content that cannot be read, by rules 2", topic.Threads, direct, by(eventv1.Event_builder{
		MessageSent: eventv1.MessageSent_builder{
			MessageId: m5[:], Content: eventv1.Sealed_builder{Data: []byte{0xff}}.Build(),
		}.Build(),
	}))
	add("plain content that cannot be read, by rules 1", topic.Threads, direct, eventv1.Event_builder{
		UserId: ann[:],
		MessageSent: eventv1.MessageSent_builder{
			MessageId: m6[:], Content: eventv1.Sealed_builder{Data: []byte{0xff}}.Build(),
		}.Build(),
	})
	add("content encrypted at rest", topic.Threads, direct, by(eventv1.Event_builder{
		MessageSent: eventv1.MessageSent_builder{
			MessageId:     m6[:],
			StoredContent: stored,
		}.Build(),
	}))
	add("edit", topic.Threads, direct, by(eventv1.Event_builder{
		MessageEdited: eventv1.MessageEdited_builder{Message: name(ann, m1), Content: hello}.Build(),
	}))
	committed := content(t, eventv1.Content_builder{Text: "hello again", Nonce: key})
	beside := event.EditAssociatedData(id.ThreadID(direct), event.MessageRef{Author: ann, ID: id.MessageID(m1)})
	edited := event.Commitment(beside, committed.GetData())
	add("edit with all that stands beside it", topic.Threads, direct, by(eventv1.Event_builder{
		MessageEdited: eventv1.MessageEdited_builder{
			Message: name(ann, m1), Content: committed, MentionedIds: [][]byte{bob[:]}, BlobIds: [][]byte{key[:16]},
			Commitment: edited[:],
		}.Build(),
	}))
	add("edit encrypted at rest", topic.Threads, direct, by(eventv1.Event_builder{
		MessageEdited: eventv1.MessageEdited_builder{
			Message: name(ann, m1), StoredContent: stored,
		}.Build(),
	}))
	add("edit of another's message", topic.Threads, direct, by(eventv1.Event_builder{
		MessageEdited: eventv1.MessageEdited_builder{Message: name(bob, m2), Content: hello}.Build(),
	}))
	add("edit of a version before MessageRef", topic.Threads, direct, eventv1.Event_builder{
		UserId: ann[:], MessageEdited: eventv1.MessageEdited_builder{MessageId: m1[:], Content: hello}.Build(),
	})
	add("deletion", topic.Threads, direct, by(eventv1.Event_builder{
		MessageDeleted: eventv1.MessageDeleted_builder{Message: name(ann, m1)}.Build(),
	}))
	add("deletion of a version before MessageRef", topic.Threads, direct, eventv1.Event_builder{
		UserId: ann[:], MessageDeleted: eventv1.MessageDeleted_builder{MessageId: m2[:], AuthorId: bob[:]}.Build(),
	})
	add("reaction", topic.Threads, direct, by(eventv1.Event_builder{
		ReactionSet: eventv1.ReactionSet_builder{Message: name(bob, m2), Emoji: "👍"}.Build(),
	}))
	add("reaction of a version before MessageRef", topic.Threads, direct, eventv1.Event_builder{
		UserId:      ann[:],
		ReactionSet: eventv1.ReactionSet_builder{MessageId: m2[:], AuthorId: bob[:], Emoji: "👍"}.Build(),
	})

	add("group", topic.Threads, group, by(eventv1.Event_builder{
		ThreadCreated: eventv1.ThreadCreated_builder{
			Title: "walk", MemberIds: [][]byte{bob[:]}, Policy: policy,
		}.Build(),
	}))
	add("renamed", topic.Threads, group, by(eventv1.Event_builder{
		ThreadRenamed: eventv1.ThreadRenamed_builder{Title: "run"}.Build(),
	}))
	carol := id.User([]byte("golden"), "+491510000003", 1)
	add("added", topic.Threads, group, by(eventv1.Event_builder{
		MemberAdded: eventv1.MemberAdded_builder{MemberIds: [][]byte{carol[:]}}.Build(),
	}))
	add("role", topic.Threads, group, by(eventv1.Event_builder{
		RoleChanged: eventv1.RoleChanged_builder{MemberId: bob[:], Role: eventv1.Role_ROLE_ADMIN}.Build(),
	}))
	add("removed", topic.Threads, group, by(eventv1.Event_builder{
		MemberRemoved: eventv1.MemberRemoved_builder{MemberId: carol[:]}.Build(),
	}))
	as := func(u id.UserID, b eventv1.Event_builder) eventv1.Event_builder {
		b = by(b)
		b.UserId = u[:]
		return b
	}
	invite := eventv1.Event_builder{
		MemberInvited: eventv1.MemberInvited_builder{MemberIds: [][]byte{carol[:]}}.Build(),
	}
	add("members invited", topic.Threads, group, by(invite))
	add("invitation declined", topic.Threads, group, as(carol, eventv1.Event_builder{
		InvitationDeclined: &eventv1.InvitationDeclined{},
	}))
	add("members invited again", topic.Threads, group, by(invite))
	add("invitation withdrawn", topic.Threads, group, by(eventv1.Event_builder{
		InvitationWithdrawn: eventv1.InvitationWithdrawn_builder{MemberId: carol[:]}.Build(),
	}))
	add("invitation accepted that is none any more", topic.Threads, group, as(carol, eventv1.Event_builder{
		InvitationAccepted: &eventv1.InvitationAccepted{},
	}))
	add("members invited for good", topic.Threads, group, by(invite))
	add("invitation accepted", topic.Threads, group, as(carol, eventv1.Event_builder{
		InvitationAccepted: &eventv1.InvitationAccepted{},
	}))
	add("left", topic.Threads, group, by(eventv1.Event_builder{MemberLeft: &eventv1.MemberLeft{}}))
	add("imported", topic.Threads, group, by(eventv1.Event_builder{
		MessageImported: eventv1.MessageImported_builder{
			Message: name(bob, m2), Content: hello, SentTimeMs: 1_500_000_000_000, Source: "slack", SourceId: "C1/1.5",
			Reply: name(ann, m1), MentionedIds: [][]byte{bob[:]}, BlobIds: [][]byte{key[:16]},
		}.Build(),
		ActorKind: eventv1.ActorKind_ACTOR_KIND_SYSTEM,
	}))
	add("message with the policy of its direct thread", topic.Threads, direct, by(eventv1.Event_builder{
		MessageSent: eventv1.MessageSent_builder{
			MessageId: m4[:], Content: hello, DirectPeer: bob[:], Policy: policy,
		}.Build(),
	}))
	add("an event that is passed over", topic.Threads, group, by(eventv1.Event_builder{
		MemberLeft: &eventv1.MemberLeft{}, Ignorable: true,
	}))
	add("policy of a thread", topic.Threads, group, by(eventv1.Event_builder{
		ThreadPolicyChanged: eventv1.ThreadPolicyChanged_builder{Policy: policy}.Build(),
	}))
	add("report", topic.Threads, group, by(eventv1.Event_builder{
		AbuseReported: eventv1.AbuseReported_builder{
			Message: name(bob, m2), Reason: "spam", Note: "again", Opening: []byte{1},
		}.Build(),
	}))
	add("of a newer version", topic.Threads, group, by(eventv1.Event_builder{
		MinReader: 200, MemberLeft: &eventv1.MemberLeft{},
	}))
	add("by newer rules", topic.Threads, group, eventv1.Event_builder{
		UserId: ann[:], Rules: 200, MemberLeft: &eventv1.MemberLeft{},
	})
	// Field 999 of Event, a message of no bytes.
	add("of an unknown type", topic.Threads, group, eventv1.Event_builder{UserId: ann[:]}, 0xba, 0x3e, 0)
	add("of an unknown type that may be passed over", topic.Threads, group, eventv1.Event_builder{
		UserId: ann[:], Ignorable: true,
	}, 0xba, 0x3e, 0)
	// Field 1005 of Event, which the envelope keeps for itself.
	add("with an unknown field of the envelope", topic.Threads, group, eventv1.Event_builder{
		UserId: ann[:], MemberLeft: &eventv1.MemberLeft{},
	}, 0xea, 0x3e, 0)
	add("without a body", topic.Threads, group, eventv1.Event_builder{UserId: ann[:]})
	add("watermarks", topic.Receipts, group, by(eventv1.Event_builder{
		WatermarksMoved: eventv1.WatermarksMoved_builder{
			DeliveredPosition: 9, DeliveredOrdinal: 5, ReadPosition: 7, ReadOrdinal: 4,
		}.Build(),
	}))
	add("presence", topic.Presence, me, by(eventv1.Event_builder{
		PresenceChanged: eventv1.PresenceChanged_builder{Online: true, LastSeenMs: 1_790_000_000_000}.Build(),
	}))
	add("quarantined", topic.Quarantine, group, eventv1.Event_builder{Quarantined: eventv1.Quarantined_builder{
		View: "threads", Topic: "helio.threads", Slot: 3, Position: 9, Reason: "why", Code: "newer_version",
	}.Build()})
	add("released", topic.Quarantine, group, eventv1.Event_builder{
		QuarantineReleased: eventv1.QuarantineReleased_builder{
			Topic: 1, Slot: 3, Position: 9, Release: eventv1.Release_RELEASE_DROPPED, Note: "why",
		}.Build(),
	})
	add("released to be tried again", topic.Quarantine, group, by(eventv1.Event_builder{
		ActorKind: eventv1.ActorKind_ACTOR_KIND_OPERATOR, MinReader: event.Reader, Producer: "ann@host/v1",
		QuarantineReleased: eventv1.QuarantineReleased_builder{
			Topic: 1, Slot: 3, Position: 9, Release: eventv1.Release_RELEASE_RETRIED,
		}.Build(),
	}))
	add("log opened", topic.Threads, group, eventv1.Event_builder{
		LogOpened: eventv1.LogOpened_builder{Base: 1000}.Build(),
	})
	return out
}
