package wire_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/goldentest"
	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// v7 makes an id of the shape of a UUIDv7 whose last byte is n.
func v7(n byte) []byte {
	return []byte{0x01, 0x93, 0x45, 0x67, 0x89, 0xab, 0x7c, 0xde, 0x8f, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, n}
}

// samples are frames of every kind and code, with every field set somewhere, and such as break the framing.
func samples(t *testing.T) []goldentest.Frame {
	t.Helper()
	a, b := id.User([]byte("golden"), "+491510000001", 1), id.User([]byte("golden"), "+491510000002", 1)
	d := id.DirectThread(a, b)
	ann, bob, direct, group := a[:], b[:], d[:], v7(10)
	phone, laptop, m1, m2 := v7(1), v7(2), v7(20), v7(21)
	key := make([]byte, 64)
	for i := range key {
		key[i] = byte(i)
	}
	content := func(text string) *eventv1.Sealed {
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(eventv1.Content_builder{Text: text}.Build())
		if err != nil {
			t.Fatal(err)
		}
		return eventv1.Sealed_builder{Data: data}.Build()
	}
	logged, err := proto.MarshalOptions{Deterministic: true}.Marshal(eventv1.Event_builder{
		UserId: ann, DeviceId: phone,
		MessageSent: eventv1.MessageSent_builder{MessageId: m1, Content: content("hello"), DirectPeer: bob}.Build(),
	}.Build())
	if err != nil {
		t.Fatal(err)
	}
	event := wirev1.Event_builder{
		ThreadId: direct, Position: 1 << 33, Ordinal: 5, LogTimeMs: 1_790_000_000_000, Event: logged,
	}.Build()
	mark := wirev1.MemberWatermark_builder{
		UserId: bob, DeliveredPosition: 300, DeliveredOrdinal: 5, ReadPosition: 200, ReadOrdinal: 4,
	}.Build()
	directSummary := wirev1.ThreadSummary_builder{
		ThreadId: direct, Kind: wirev1.ThreadKind_THREAD_KIND_DIRECT, DirectPeer: bob, LastPosition: 1 << 33,
		LastOrdinal: 5, LastTimeMs: 1_790_000_000_000, LastSender: ann, Preview: "hello", Own: mark, Unread: 1,
		MemberCount: 2, Member: true, Role: eventv1.Role_ROLE_MEMBER,
	}.Build()
	groupSummary := wirev1.ThreadSummary_builder{
		ThreadId: group, Kind: wirev1.ThreadKind_THREAD_KIND_GROUP, Title: "Spaziergang im Grünen", LastPosition: 9,
		MemberCount: 3, Member: true, Role: eventv1.Role_ROLE_ADMIN,
	}.Build()

	var out []goldentest.Frame
	req := uint64(0)
	ask := func(name string, f wirev1.ClientFrame_builder) {
		req++
		f.RequestId = req
		out = append(out, corpus.Of(t, name, f.Build()))
	}
	tell := func(name string, request uint64, f wirev1.ServerFrame_builder) {
		f.RequestId = request
		out = append(out, corpus.Of(t, name, f.Build()))
	}
	ask("hello", wirev1.ClientFrame_builder{Hello: wirev1.Hello_builder{
		Client: "example/1.0", Features: []string{"a-word-of-a-later-version", "reply-ref"},
	}.Build()})
	ask("a PIN is asked for", wirev1.ClientFrame_builder{
		RequestPin: wirev1.RequestPin_builder{Phone: "+491510000001"}.Build(),
	})
	ask("registration", wirev1.ClientFrame_builder{Register: wirev1.Register_builder{
		Phone: "+491510000001", Pin: "012345", DeviceId: phone, PublicKey: key[:32], Signature: key,
		DeviceName: "phone", Name: "Änne",
	}.Build()})
	ask("authentication", wirev1.ClientFrame_builder{Authenticate: wirev1.Authenticate_builder{
		UserId: ann, DeviceId: phone, Signature: key,
	}.Build()})
	ask("authentication in the background", wirev1.ClientFrame_builder{Authenticate: wirev1.Authenticate_builder{
		UserId: ann, DeviceId: phone, Signature: key, Background: true,
	}.Build()})
	ask("a ping", wirev1.ClientFrame_builder{Ping: &wirev1.Ping{}})
	tell("a pong", 6, wirev1.ServerFrame_builder{Pong: &wirev1.Pong{}})
	ask("a ping that is longer than a stateless reset", wirev1.ClientFrame_builder{
		Ping: &wirev1.Ping{}, Padding: make([]byte, 64),
	})
	ask("a message is given up", wirev1.ClientFrame_builder{
		AbandonMessage: wirev1.AbandonMessage_builder{ThreadId: direct, MessageId: m1}.Build(),
	})
	tell("refused, since another message must come first", 6, wirev1.ServerFrame_builder{Error: wirev1.Error_builder{
		Code: wirev1.Code_CODE_OUT_OF_TURN, RetryAfterMs: 500, MessageId: m1,
	}.Build()})
	ask("what the device has", wirev1.ClientFrame_builder{Have: wirev1.Have_builder{Threads: []*wirev1.ThreadCursor{
		wirev1.ThreadCursor_builder{
			ThreadId: direct, Position: 300, Receipts: 0x0123456789abcdef, OwnOrdinal: 7,
		}.Build(),
		wirev1.ThreadCursor_builder{ThreadId: group, Position: -1}.Build(),
	}}.Build()})
	ask("sync from there", wirev1.ClientFrame_builder{Sync: wirev1.Sync_builder{OwnCursors: true}.Build()})
	ask("sync with a window", wirev1.ClientFrame_builder{
		Sync: wirev1.Sync_builder{OwnCursors: true, Window: 30}.Build(),
	})
	ask("more threads", wirev1.ClientFrame_builder{SyncMore: wirev1.SyncMore_builder{Threads: 30}.Build()})
	tell("synchronised, with more threads to ask for", 6, wirev1.ServerFrame_builder{
		SyncComplete: wirev1.SyncComplete_builder{Rest: 470}.Build(),
	})
	ask("sync", wirev1.ClientFrame_builder{Sync: &wirev1.Sync{}})
	ask("the first message of a direct thread", wirev1.ClientFrame_builder{SendMessage: wirev1.SendMessage_builder{
		ThreadId: direct, MessageId: m1, Content: content("hello"), DirectPeer: bob, ClientTimeMs: 1_790_000_000_000,
	}.Build()})
	ask("an answer that names its message by id alone", wirev1.ClientFrame_builder{
		SendMessage: wirev1.SendMessage_builder{
			ThreadId: direct, MessageId: m2, Content: content("hello yourself"), ReplyTo: m1,
		}.Build(),
	})
	ask("an answer", wirev1.ClientFrame_builder{SendMessage: wirev1.SendMessage_builder{
		ThreadId: group, MessageId: m2, Content: content("hello yourself"), ReplyTo: m1,
		Reply: eventv1.MessageRef_builder{AuthorId: ann, MessageId: m1}.Build(),
	}.Build()})
	ask("sealed content", wirev1.ClientFrame_builder{SendMessage: wirev1.SendMessage_builder{
		ThreadId: group, MessageId: m2, Content: eventv1.Sealed_builder{
			KeyId: 7, Nonce: key[:12], Data: key, Scheme: eventv1.Scheme_SCHEME_AES_256_GCM,
		}.Build(),
	}.Build()})
	ask("a long text, so that the length takes 4 bytes", wirev1.ClientFrame_builder{
		SendMessage: wirev1.SendMessage_builder{
			ThreadId: group, MessageId: m2, Content: content(strings.Repeat("0123456789abcdef", 1<<10)),
		}.Build(),
	})
	out = append(out, corpus.Of(t, "watermarks, which are not answered", wirev1.ClientFrame_builder{
		Watermarks: wirev1.Watermarks_builder{Items: []*wirev1.Watermark{
			wirev1.Watermark_builder{
				ThreadId: direct, DeliveredPosition: 300, DeliveredOrdinal: 5, ReadPosition: 200, ReadOrdinal: 4,
			}.Build(),
			wirev1.Watermark_builder{ThreadId: group, DeliveredPosition: 9}.Build(),
		}}.Build(),
	}.Build()))
	ask("a group is created", wirev1.ClientFrame_builder{CreateGroup: wirev1.CreateGroup_builder{
		ThreadId: group, Title: "Spaziergang im Grünen", MemberIds: [][]byte{bob},
	}.Build()})
	ask("members are added", wirev1.ClientFrame_builder{
		AddMembers: wirev1.AddMembers_builder{ThreadId: group, MemberIds: [][]byte{bob, ann}}.Build(),
	})
	ask("a member is removed", wirev1.ClientFrame_builder{
		RemoveMember: wirev1.RemoveMember_builder{ThreadId: group, MemberId: bob}.Build(),
	})
	ask("a group is left", wirev1.ClientFrame_builder{
		LeaveThread: wirev1.LeaveThread_builder{ThreadId: group}.Build(),
	})
	ask("a group is renamed", wirev1.ClientFrame_builder{
		RenameThread: wirev1.RenameThread_builder{ThreadId: group, Title: "👋🏽"}.Build(),
	})
	ask("a role is set", wirev1.ClientFrame_builder{SetRole: wirev1.SetRole_builder{
		ThreadId: group, MemberId: bob, Role: eventv1.Role_ROLE_ADMIN,
	}.Build()})
	ask("the thread list is asked for", wirev1.ClientFrame_builder{
		ListThreads: wirev1.ListThreads_builder{Limit: 200, PageToken: []byte{0, 1, 0xff}}.Build(),
	})
	ask("a thread is asked for", wirev1.ClientFrame_builder{
		GetThread: wirev1.GetThread_builder{ThreadId: group}.Build(),
	})
	ask("a page of history is asked for", wirev1.ClientFrame_builder{GetHistory: wirev1.GetHistory_builder{
		ThreadId: direct, BeforePosition: 1 << 33, Limit: 500,
	}.Build()})
	ask("a number is checked", wirev1.ClientFrame_builder{
		CheckPhone: wirev1.CheckPhone_builder{Phone: "0151 00000001", Region: "DE"}.Build(),
	})
	ask("users are looked up by numbers of a country", wirev1.ClientFrame_builder{
		LookupUsers: wirev1.LookupUsers_builder{Phones: []string{"0151 00000001"}, Region: "DE"}.Build(),
	})
	tell("a number is read", 4, wirev1.ServerFrame_builder{PhoneNumber: wirev1.PhoneNumber_builder{
		Number: "+4915100000001", Shown: "+49 1510 0000001", Region: "DE",
	}.Build()})
	ask("users are looked up", wirev1.ClientFrame_builder{
		LookupUsers: wirev1.LookupUsers_builder{Phones: []string{"+491510000001", "+491510000002"}}.Build(),
	})
	ask("profiles are asked for", wirev1.ClientFrame_builder{
		GetUsers: wirev1.GetUsers_builder{UserIds: [][]byte{ann, bob}}.Build(),
	})
	ask("the profile is changed", wirev1.ClientFrame_builder{
		SetProfile: wirev1.SetProfile_builder{Name: "Änne"}.Build(),
	})
	ask("a device is linked", wirev1.ClientFrame_builder{LinkDevice: wirev1.LinkDevice_builder{
		DeviceId: laptop, PublicKey: key[:32], DeviceName: "laptop",
	}.Build()})
	ask("a device is revoked", wirev1.ClientFrame_builder{
		RevokeDevice: wirev1.RevokeDevice_builder{DeviceId: laptop}.Build(),
	})
	ask("the devices are asked for", wirev1.ClientFrame_builder{ListDevices: &wirev1.ListDevices{}})
	ask("the views are asked for", wirev1.ClientFrame_builder{
		GetViews: wirev1.GetViews_builder{ThreadId: group}.Build(),
	})

	// An answer to the largest request id, which takes ten bytes.
	tell("done", 1<<64-1, wirev1.ServerFrame_builder{Done: &wirev1.Done{}})
	tell("welcome", 1, wirev1.ServerFrame_builder{Welcome: wirev1.Welcome_builder{
		Nonce: key[:32], Edge: "edge-1", Features: []string{"a-word-of-a-later-version", "reply-ref"},
		Limits: wirev1.Limits_builder{
			MaxFrameBytes: 128 << 10, MaxTextBytes: 16 << 10, MaxMembers: 1024, MaxInflight: 256,
			MaxServerFrameBytes: 4 << 20,
		}.Build(),
	}.Build()})
	tell("a PIN is on its way", 2, wirev1.ServerFrame_builder{PinRequested: wirev1.PinRequested_builder{
		ExpiresInMs: 300_000, RetryAfterMs: 60_000,
	}.Build()})
	tell("authenticated", 4, wirev1.ServerFrame_builder{
		Authenticated: wirev1.Authenticated_builder{UserId: ann, DeviceId: phone}.Build(),
	})
	tell("an event", 0, wirev1.ServerFrame_builder{Event: event})
	tell("an ack", 6, wirev1.ServerFrame_builder{Ack: wirev1.Ack_builder{
		MessageId: m1, ThreadId: direct, Topic: 1, Slot: 1023, Position: 1 << 33, LogTimeMs: 1_790_000_000_000,
	}.Build()})
	tell("rejected", 0, wirev1.ServerFrame_builder{Rejected: wirev1.Rejected_builder{
		ThreadId: group, MessageId: m2, Position: 9, Code: wirev1.Code_CODE_NOT_A_MEMBER,
	}.Build()})
	tell("receipts", 0, wirev1.ServerFrame_builder{Receipts: wirev1.Receipts_builder{
		ThreadId: direct, Items: []*wirev1.MemberWatermark{mark},
	}.Build()})
	tell("a direct thread changed", 0, wirev1.ServerFrame_builder{
		ThreadChanged: wirev1.ThreadChanged_builder{Thread: directSummary}.Build(),
	})
	tell("a group changed", 0, wirev1.ServerFrame_builder{
		ThreadChanged: wirev1.ThreadChanged_builder{Thread: groupSummary}.Build(),
	})
	tell("a thread is not live", 0, wirev1.ServerFrame_builder{ThreadLate: wirev1.ThreadLate_builder{
		ThreadId: group, Error: wirev1.Error_builder{
			Code: wirev1.Code_CODE_UNAVAILABLE, Message: "in words", RetryAfterMs: 5000,
		}.Build(),
	}.Build()})
	tell("a thread is live again", 0, wirev1.ServerFrame_builder{
		ThreadLate: wirev1.ThreadLate_builder{ThreadId: group}.Build(),
	})
	tell("synced", 0, wirev1.ServerFrame_builder{SyncComplete: &wirev1.SyncComplete{}})
	tell("resync", 0, wirev1.ServerFrame_builder{
		Resync: wirev1.Resync_builder{Code: wirev1.Code_CODE_SLOW_CONSUMER}.Build(),
	})
	tell("go away", 0, wirev1.ServerFrame_builder{
		GoAway: wirev1.GoAway_builder{ReconnectAfterMs: 1500}.Build(),
	})
	tell("threads", 18, wirev1.ServerFrame_builder{Threads: wirev1.Threads_builder{
		Threads: []*wirev1.ThreadSummary{directSummary, groupSummary}, PageToken: []byte{0, 1, 0xff},
	}.Build()})
	tell("a thread", 19, wirev1.ServerFrame_builder{Thread: wirev1.Thread_builder{
		Summary: directSummary, Members: []*wirev1.Member{
			wirev1.Member_builder{Watermark: mark, Role: eventv1.Role_ROLE_MEMBER, Name: "Bob"}.Build(),
		},
	}.Build()})
	tell("a page of history", 20, wirev1.ServerFrame_builder{HistoryPage: wirev1.HistoryPage_builder{
		Events: []*wirev1.Event{event}, NextBefore: 1<<33 - 7,
	}.Build()})
	tell("users", 21, wirev1.ServerFrame_builder{Users: wirev1.Users_builder{Users: []*wirev1.User{
		wirev1.User_builder{UserId: ann, Name: "Änne", Phone: "+491510000001"}.Build(),
		wirev1.User_builder{UserId: bob}.Build(),
	}}.Build()})
	tell("devices", 26, wirev1.ServerFrame_builder{Devices: wirev1.Devices_builder{Devices: []*wirev1.Device{
		wirev1.Device_builder{DeviceId: phone, DeviceName: "phone", Primary: true, SinceMs: 1_790_000_000_000}.Build(),
		wirev1.Device_builder{DeviceId: laptop}.Build(),
	}}.Build()})
	tell("views, one of which is not known", 27, wirev1.ServerFrame_builder{
		Views: wirev1.Views_builder{Slot: 1023, PostgresNext: 1 << 33, ClickhouseNext: -1}.Build(),
	})
	ask("nobody may add", wirev1.ClientFrame_builder{
		SetMayAdd: wirev1.SetMayAdd_builder{MayAdd: eventv1.MayAdd_MAY_ADD_NOBODY}.Build(),
	})
	ask("members are invited", wirev1.ClientFrame_builder{
		InviteMembers: wirev1.InviteMembers_builder{ThreadId: group, MemberIds: [][]byte{ann, bob}}.Build(),
	})
	ask("an invitation is withdrawn", wirev1.ClientFrame_builder{
		WithdrawInvitation: wirev1.WithdrawInvitation_builder{ThreadId: group, MemberId: bob}.Build(),
	})
	ask("an invitation is accepted", wirev1.ClientFrame_builder{
		AnswerInvitation: wirev1.AnswerInvitation_builder{ThreadId: group, Accept: true}.Build(),
	})
	ask("an invitation is declined", wirev1.ClientFrame_builder{
		AnswerInvitation: wirev1.AnswerInvitation_builder{ThreadId: group}.Build(),
	})
	ask("invitations are asked for", wirev1.ClientFrame_builder{ListInvitations: &wirev1.ListInvitations{}})
	ask("a user is blocked", wirev1.ClientFrame_builder{
		SetBlocked: wirev1.SetBlocked_builder{UserId: bob, Blocked: true}.Build(),
	})
	ask("settings are asked for", wirev1.ClientFrame_builder{GetSettings: &wirev1.GetSettings{}})
	invitation := wirev1.Invitation_builder{
		ThreadId: group, Title: "Spaziergang im Grünen", InviterId: ann, TimeMs: 1_790_000_000_000,
	}.Build()
	tell("invitations", 32, wirev1.ServerFrame_builder{
		Invitations: wirev1.Invitations_builder{Invitations: []*wirev1.Invitation{invitation}}.Build(),
	})
	tell("an invitation", 0, wirev1.ServerFrame_builder{Invitation: invitation})
	tell("the end of an invitation", 0, wirev1.ServerFrame_builder{
		Invitation: wirev1.Invitation_builder{ThreadId: group, Ended: true}.Build(),
	})
	tell("settings", 34, wirev1.ServerFrame_builder{Settings: wirev1.Settings_builder{
		MayAdd: eventv1.MayAdd_MAY_ADD_NOBODY, BlockedIds: [][]byte{bob},
	}.Build()})
	tell("a thread with who is invited", 19, wirev1.ServerFrame_builder{Thread: wirev1.Thread_builder{
		Summary: groupSummary, Invited: []*wirev1.Invitee{
			wirev1.Invitee_builder{UserId: bob, Name: "Bob", InviterId: ann}.Build(),
		},
	}.Build()})
	tell("users who cannot be added", 9, wirev1.ServerFrame_builder{
		Error: wirev1.Error_builder{
			Code: wirev1.Code_CODE_NOT_ADDABLE, Message: "in words", UserIds: [][]byte{ann, bob},
		}.Build(),
	})
	codes := wirev1.Code(0).Descriptor().Values()
	for i := range codes.Len() {
		c := wirev1.Code(codes.Get(i).Number())
		tell("refused: "+wire.Lookup(c).Name, 6, wirev1.ServerFrame_builder{
			Error: wirev1.Error_builder{Code: c, Message: "in words", RetryAfterMs: uint32(i) * 500}.Build(),
		})
	}
	tell("refused by a code of a later version", 6, wirev1.ServerFrame_builder{
		Error: wirev1.Error_builder{Code: 999}.Build(),
	})

	raw := func(name string, m proto.Message, limit int, bytes string) {
		if _, err := hex.DecodeString(bytes); err != nil {
			t.Fatal(err)
		}
		out = append(out, goldentest.Frame{
			Name: name, Message: string(m.ProtoReflect().Descriptor().FullName()), Limit: limit, Bytes: bytes,
		})
	}
	client, server := &wirev1.ClientFrame{}, &wirev1.ServerFrame{}
	raw("a frame of no bytes", server, 0, "00")
	raw("a frame of an unknown kind, field 999", client, 0, "05"+"0807"+"ba3e00")
	raw("a push of an unknown kind, field 999", server, 0, "05"+"ba3e0201ff")
	raw("a known kind with an unknown field, 99", server, 0, "05"+"1a03"+"980601")
	raw("a length of 1 byte in 2", server, 0, "4000")
	raw("a length of 1 byte in 4", server, 0, "80000004"+"08071a00")
	raw("a length of 1 byte in 8", server, 0, "c000000000000004"+"08071a00")
	raw("a length of 2 bytes in 4", server, 0, "80000040"+"ba3e3d"+strings.Repeat("00", 61))
	raw("just at the limit", server, 4, "04"+"08071a00")
	raw("above the limit", server, 3, "04"+"08071a00")
	raw("above the limit of what a device may send", client, 0, "80020001")
	raw("above any limit", server, 0, "ffffffffffffffff")
	raw("cut within its length", server, 0, "8000")
	raw("cut before its first byte", server, 0, "04")
	raw("cut before its last byte", server, 0, "04"+"08071a")
	raw("a field that ends after the frame", server, 0, "04"+"08071a01")
	raw("a text that is not UTF-8", server, 0, "05"+"1203"+"1201ff")
	raw("a number of 11 bytes", server, 0, "0c"+"08"+strings.Repeat("ff", 10)+"01")
	return out
}
