// Package eventtest makes random event logs for tests: a few users, devices, groups and direct threads that meet often,
// with valid and invalid events, retries, and stamps that jump over the window for retries and sometimes back.
//
// Promise: the same choices give the same events. Nothing here is for production code.
//
// Non-obvious:
//   - The source of chance is the caller's, so that a property test can shrink what it found.
package eventtest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// Step is one record of a log.
type Step struct {
	Topic    topic.Topic
	Slot     topic.Slot
	Position topic.Position
	TimeMS   int64
	Subject  topic.Subject
	Key      []byte
	Value    []byte
	Event    *event.Event // nil when Value is not one that this version reads
}

// World makes steps.
type World struct {
	// Unreadable makes some values that cannot be decoded and some keys of the wrong length.
	Unreadable bool
	// Newer makes some events of a newer version: of a type that this one does not read, or with a min_reader above it.
	Newer bool
	// Partitions is P. Default 1.
	Partitions int

	pick    func(n int) int
	users   []id.UserID
	devices [][]id.DeviceID
	groups  []id.ThreadID
	now     int64
	seq     uint32
	ends    map[topic.Topic]map[topic.Slot]topic.Position

	founders map[id.ThreadID]id.UserID
	asked    []asked                   // the latest last
	latest   map[id.UserID]id.DeviceID // that registered
}

// asked is who was invited into which group, if the fold has it so too.
type asked struct {
	into id.ThreadID
	user id.UserID
}

// NewWorld returns a world of so many users, three devices each, and three groups. pick returns a number in [0, n).
func NewWorld(users int, pick func(n int) int) *World {
	w := &World{
		Partitions: 1,
		pick:       pick,
		now:        1_700_000_000_000,
		ends:       map[topic.Topic]map[topic.Slot]topic.Position{},
		founders:   map[id.ThreadID]id.UserID{},
		latest:     map[id.UserID]id.DeviceID{},
	}
	for i := range users {
		w.users = append(w.users, id.User([]byte("test key"), fmt.Sprintf("+49151%07d", i), 1))
		w.devices = append(w.devices,
			[]id.DeviceID{id.DeviceID(v7(1, i*3)), id.DeviceID(v7(1, i*3+1)), id.DeviceID(v7(1, i*3+2))})
	}
	for i := range 3 {
		w.groups = append(w.groups, id.ThreadID(v7(2, i)))
	}
	return w
}

// Newer makes an event of a newer version of an encoded one: its meaning is that of the old, but only a reader of
// version event.Reader + 1 may apply it.
func Newer(value []byte) []byte {
	more, err := proto.Marshal(eventv1.Event_builder{MinReader: event.Reader + 1}.Build())
	if err != nil {
		panic(err) // a broken test world
	}
	return slices.Concat(value, more)
}

// v7 makes an id with the shape of a UUIDv7 from two numbers.
func v7(class, n int) [id.Size]byte {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(class)), uint64(n)))
	out := [id.Size]byte(sum[:])
	out[6] = out[6]&0x0f | 0x70
	out[8] = out[8]&0x3f | 0x80
	return out
}

// Now is the stamp of the last step.
func (w *World) Now() int64 { return w.now }

// Users are the users of the world.
func (w *World) Users() []id.UserID { return w.users }

// Steps makes n steps.
func (w *World) Steps(n int) []Step {
	out := make([]Step, n)
	for i := range out {
		out[i] = w.Next()
	}
	return out
}

// Next makes one step.
func (w *World) Next() Step {
	switch w.pick(20) {
	case 0:
		w.now += 13 * 3600 * 1000
	case 1:
		w.now -= int64(w.pick(5000))
	default:
		w.now += int64(w.pick(2000))
	}
	s := Step{TimeMS: w.now}
	switch n := w.pick(10); {
	case n < 6:
		s.Topic, s.Subject, s.Event = topic.Threads, topic.Subject{}, nil
		w.thread(&s)
	case n < 8:
		s.Topic = topic.Receipts
		w.receipt(&s)
	default:
		s.Topic = topic.Users
		w.user(&s)
	}
	if s.Key == nil {
		s.Key = s.Subject[:]
	}
	switch d, _ := event.Declared(s.Event.Type); {
	case s.Event.GetUserId() == nil:
	case d.Since >= 3: // nobody wrote it by earlier rules
		s.Event.SetRules(3)
	case w.pick(2) == 0: // else it is of a version before rules had numbers
		s.Event.SetRules(uint32(1 + w.pick(event.CurrentRules)))
		s.Event.SetProducer("edge/1")
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(s.Event)
	if err != nil {
		panic(err) // a broken test world
	}
	s.Value, s.Event = value, event.Of(s.Event.Event)
	if w.Newer && w.pick(20) == 0 {
		s.Value = Newer(s.Value)
		if s.Event, err = event.Decode(s.Value); err == nil {
			panic("an event of a newer version was read")
		}
	}
	if w.Unreadable {
		switch w.pick(60) {
		case 0:
			s.Value, s.Event = []byte{0xff, 0xff, 0xff}, nil
		case 1:
			s.Key, s.Event = s.Key[:len(s.Key)-1], nil
		}
	}
	s.Slot = topic.SlotOf(s.Subject, w.Partitions)
	if w.ends[s.Topic] == nil {
		w.ends[s.Topic] = map[topic.Slot]topic.Position{}
	}
	s.Position = w.ends[s.Topic][s.Slot]
	w.ends[s.Topic][s.Slot]++
	return s
}

// Text makes plain content.
func Text(s string) *eventv1.Sealed {
	data, err := proto.Marshal(eventv1.Content_builder{Text: s}.Build())
	if err != nil {
		panic(err) // a broken test world
	}
	return eventv1.Sealed_builder{Data: data}.Build()
}

func (w *World) message() []byte {
	m := v7(3, w.pick(12)) // few, so that retries happen
	return m[:]
}

func (w *World) thread(s *Step) {
	a := w.pick(len(w.users))
	actor, other := w.users[a], w.users[w.pick(len(w.users))]
	b := eventv1.Event_builder{UserId: actor[:], DeviceId: w.devices[a][w.pick(3)][:]}
	group := w.groups[w.pick(len(w.groups))]
	s.Subject = topic.Subject(group)
	switch w.pick(20) {
	case 0, 1, 2, 3: // in a direct thread
		s.Subject = topic.Subject(id.DirectThread(actor, other))
		w.seq++
		b.MessageSent = eventv1.MessageSent_builder{
			MessageId: w.message(), Content: Text(fmt.Sprintf("direct %d\nline", w.seq)), DirectPeer: other[:],
			ClientTimeMs: w.now,
		}.Build()
	case 4, 5, 6:
		w.seq++
		b.MessageSent = eventv1.MessageSent_builder{
			MessageId: w.message(),
			Content:   Text(fmt.Sprintf("group %d", w.seq)),
			ReplyTo:   w.message(),
		}.Build()
	case 7:
		b.MessageSent = eventv1.MessageSent_builder{
			MessageId: w.message(),
			Content:   eventv1.Sealed_builder{KeyId: 7, Nonce: []byte("n"), Data: []byte{0, 1, 2, 0xff}}.Build(),
		}.Build()
	case 8:
		var members [][]byte
		for range w.pick(3) {
			members = append(members, w.users[w.pick(len(w.users))][:])
		}
		b.ThreadCreated = eventv1.ThreadCreated_builder{
			Title:     fmt.Sprintf("group %d", w.seq),
			MemberIds: members,
		}.Build()
	case 9:
		b.ThreadRenamed = eventv1.ThreadRenamed_builder{
			Title: []string{"", "renamed", "nul\x00", "другое"}[w.pick(4)],
		}.Build()
	case 10, 11:
		b.MemberAdded = eventv1.MemberAdded_builder{
			MemberIds: [][]byte{other[:], w.users[w.pick(len(w.users))][:]},
		}.Build()
	case 12:
		b.MemberRemoved = eventv1.MemberRemoved_builder{MemberId: other[:]}.Build()
	case 13:
		b.MemberLeft = &eventv1.MemberLeft{}
	case 14:
		b.RoleChanged = eventv1.RoleChanged_builder{MemberId: other[:], Role: eventv1.Role(w.pick(3))}.Build()
	case 15:
		switch w.pick(4) {
		case 0:
			b.MessageEdited = eventv1.MessageEdited_builder{MessageId: w.message(), Content: Text("edited")}.Build()
		case 1:
			b.MessageDeleted = eventv1.MessageDeleted_builder{MessageId: w.message(), AuthorId: other[:]}.Build()
		case 2:
			b.ReactionSet = eventv1.ReactionSet_builder{MessageId: w.message(), AuthorId: other[:], Emoji: "👍"}.Build()
		case 3: // of another topic
			b.UserBlocked = eventv1.UserBlocked_builder{BlockedId: other[:]}.Build()
		}
	case 16, 17:
		b.MemberInvited = eventv1.MemberInvited_builder{
			MemberIds: [][]byte{other[:], w.users[w.pick(len(w.users))][:]},
		}.Build()
	case 18:
		b.InvitationAccepted = &eventv1.InvitationAccepted{}
	case 19:
		if w.pick(2) == 0 {
			b.InvitationDeclined = &eventv1.InvitationDeclined{}
		} else {
			b.InvitationWithdrawn = eventv1.InvitationWithdrawn_builder{MemberId: other[:]}.Build()
		}
	}
	w.steer(&b, s, group, other)
	s.Event = event.Of(b.Build())
}

// steer has every other invitation and change of a message be by who began the group, most answers be of somebody whom
// he asked, and most withdrawals be his own: by chance alone hardly any would count.
func (w *World) steer(b *eventv1.Event_builder, s *Step, group id.ThreadID, other id.UserID) {
	founder, begun := w.founders[group]
	switch {
	case b.ThreadCreated != nil && !begun:
		w.founders[group] = id.UserID(b.UserId)
	case b.MemberInvited != nil && begun && w.pick(2) == 0:
		b.UserId = founder[:]
		w.asked = append(w.asked, asked{group, other})
	case (b.MessageEdited != nil || b.MessageDeleted != nil || b.ReactionSet != nil) && begun && w.pick(2) == 0:
		b.UserId = founder[:]
	case (b.InvitationAccepted != nil || b.InvitationDeclined != nil) && len(w.asked) > 0 && w.pick(4) > 0:
		last := w.asked[len(w.asked)-1]
		b.UserId, s.Subject = last.user[:], topic.Subject(last.into)
		w.asked = w.asked[:len(w.asked)-1]
	case b.InvitationWithdrawn != nil && len(w.asked) > 0 && w.pick(4) > 0:
		last := w.asked[len(w.asked)-1]
		by := w.founders[last.into]
		b.UserId, s.Subject = by[:], topic.Subject(last.into)
		b.InvitationWithdrawn.SetMemberId(last.user[:])
		w.asked = w.asked[:len(w.asked)-1]
	}
}

func (w *World) receipt(s *Step) {
	a := w.pick(len(w.users))
	t := w.groups[w.pick(len(w.groups))]
	if w.pick(2) == 0 {
		t = id.DirectThread(w.users[a], w.users[w.pick(len(w.users))])
	}
	d := w.devices[a][w.pick(3)]
	s.Subject = topic.Subject(t)
	s.Key = slices.Concat(t[:], d[:]) // as versions before wrote it
	if w.pick(3) > 0 {
		s.Key = event.ReceiptKey(t, d, w.users[a])
	}
	delivered := int64(w.pick(100))
	s.Event = event.Of(eventv1.Event_builder{
		UserId: w.users[a][:], DeviceId: d[:],
		WatermarksMoved: eventv1.WatermarksMoved_builder{
			DeliveredPosition: delivered, DeliveredOrdinal: delivered / 2, ReadPosition: delivered - int64(w.pick(5)),
			ReadOrdinal: delivered / 3,
		}.Build(),
	}.Build())
	if w.pick(20) == 0 {
		s.Event.SetUserId([]byte("short"))
	}
}

func (w *World) user(s *Step) {
	a := w.pick(len(w.users))
	u, other := w.users[a], w.users[w.pick(len(w.users))]
	s.Subject = topic.Subject(u)
	d := w.devices[a][w.pick(3)]
	fresh := id.DeviceID(v7(4, w.pick(50)))
	hash := v7(5, w.pick(4))
	pub := sha256.Sum256(fresh[:])
	b := eventv1.Event_builder{UserId: u[:], DeviceId: d[:]}
	group := w.groups[w.pick(len(w.groups))]
	switch w.pick(16) {
	case 0, 1:
		b.UserRegistered = eventv1.UserRegistered_builder{
			PhoneHash: hash[:], Generation: uint32(1 + w.pick(2)), DeviceId: fresh[:], PublicKey: pub[:],
			DeviceName: "phone", ShownFrom: w.shownFrom(),
		}.Build()
		w.latest[u] = fresh
	case 2:
		b.UserRegistered = eventv1.UserRegistered_builder{
			PhoneHash:  hash[:],
			Generation: 1,
			DeviceId:   d[:],
			PublicKey:  pub[:],
		}.Build()
		w.latest[u] = d
	case 3: // half of them by one that may approve it, if the fold has it so too
		if by, registered := w.latest[u]; registered && w.pick(2) == 0 {
			b.DeviceId = by[:]
		}
		b.DeviceLinked = eventv1.DeviceLinked_builder{
			DeviceId:   fresh[:],
			PublicKey:  pub[:],
			DeviceName: "browser",
		}.Build()
	case 4:
		if last, registered := w.latest[u]; registered && w.pick(2) == 0 {
			d = last
			delete(w.latest, u)
		}
		b.DeviceRevoked = eventv1.DeviceRevoked_builder{DeviceId: d[:]}.Build()
	case 5:
		b.ProfileChanged = eventv1.ProfileChanged_builder{
			Name: []string{"", "Ada", "Änne", "bad\x01"}[w.pick(4)],
		}.Build()
	case 6:
		b.ContactSaved = eventv1.ContactSaved_builder{PhoneHash: hash[:], Name: "friend"}.Build()
	case 7:
		b.ContactRemoved = eventv1.ContactRemoved_builder{PhoneHash: hash[:]}.Build()
	case 8:
		b.UserBlocked = eventv1.UserBlocked_builder{BlockedId: other[:]}.Build()
	case 9:
		b.UserUnblocked = eventv1.UserUnblocked_builder{BlockedId: other[:]}.Build()
	case 10:
		b.ThreadJoined = eventv1.ThreadJoined_builder{ThreadId: group[:]}.Build()
	case 11:
		b.ThreadLeft = eventv1.ThreadLeft_builder{ThreadId: group[:]}.Build()
	case 12:
		b.MayAddChanged = eventv1.MayAddChanged_builder{MayAdd: eventv1.MayAdd(w.pick(5))}.Build()
	case 13, 14: // by himself too, which does not count
		b.UserId = other[:]
		b.ThreadInvited = eventv1.ThreadInvited_builder{
			ThreadId: group[:], Title: []string{"walk", "", "nul\x00", "другое"}[w.pick(4)],
		}.Build()
	case 15:
		b.ThreadInvitationEnded = eventv1.ThreadInvitationEnded_builder{ThreadId: group[:]}.Build()
	}
	s.Event = event.Of(b.Build())
}

// shownFrom is where some slots end, none, or nothing.
func (w *World) shownFrom() *eventv1.ShownFrom {
	n := w.pick(4)
	if n == 0 {
		return nil
	}
	b := eventv1.ShownFrom_builder{}
	for s := range n - 1 {
		b.Slots = append(b.Slots, eventv1.SlotEnd_builder{Slot: uint32(2 * s), Next: int64(w.pick(9))}.Build())
	}
	return b.Build()
}
