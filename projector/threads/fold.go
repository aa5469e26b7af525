package threads

import (
	"heliograph/projector"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

type memberKey struct {
	thread id.ThreadID
	user   id.UserID
}

type markKey struct {
	thread id.ThreadID
	device id.DeviceID
	user   id.UserID // two users may claim one device id
}

type deviceKey struct {
	user   id.UserID
	device id.DeviceID
}

type contactKey struct {
	user id.UserID
	hash [id.Size]byte
}

type blockKey struct{ user, blocked id.UserID }

type listKey struct {
	user   id.UserID
	thread id.ThreadID
}

type messageRow struct {
	thread   id.ThreadID
	position topic.Position
	ordinal  int64
	kind     int16
	sender   id.UserID
	message  id.MessageID
	named    bool // message is set
	timeMS   int64
	event    []byte
}

type outcome struct {
	topic   topic.Topic
	outcome string
}

// writes is a folded batch: the states that it touched and which of their rows changed. The rows' contents are read
// from the states when it is written, so each row is written once however often it changed.
type writes struct {
	slot         topic.Slot
	threadStates map[id.ThreadID]*thread.State
	userStates   map[id.UserID]*user.State

	threads     map[id.ThreadID]bool
	members     map[memberKey]bool
	messages    []messageRow
	marks       map[memberKey]thread.Watermark
	deviceMarks map[markKey]thread.Watermark
	users       map[id.UserID]bool
	devices     map[deviceKey]bool
	contacts    map[contactKey]bool
	blocks      map[blockKey]bool
	lists       map[listKey]bool
	quarantined []projector.Quarantined

	outcomes map[outcome]int
}

func newWrites(slot topic.Slot) *writes {
	return &writes{
		slot:         slot,
		threadStates: map[id.ThreadID]*thread.State{}, userStates: map[id.UserID]*user.State{},
		threads: map[id.ThreadID]bool{}, members: map[memberKey]bool{}, marks: map[memberKey]thread.Watermark{},
		deviceMarks: map[markKey]thread.Watermark{},
		users:       map[id.UserID]bool{}, devices: map[deviceKey]bool{}, contacts: map[contactKey]bool{},
		blocks: map[blockKey]bool{}, lists: map[listKey]bool{},
		outcomes: map[outcome]int{},
	}
}

// fold applies one event. The states that it needs are there: load has seen to that.
func (w *writes) fold(e *projector.Event) {
	switch e.Topic {
	case topic.Threads:
		w.foldThread(e)
	case topic.Receipts:
		w.foldReceipt(e)
	case topic.Users:
		w.foldUser(e)
	}
}

func (w *writes) foldThread(e *projector.Event) {
	t := id.ThreadID(e.Subject)
	v := w.threadStates[t].Apply(e.Body, e.Position, e.TimeMS)
	switch v.Outcome {
	case thread.Stale:
		w.count(e.Topic, "stale")
		return
	case thread.Duplicate:
		w.count(e.Topic, "duplicate")
		return
	case thread.Rejected:
		w.count(e.Topic, string(v.Reason))
		return
	}
	w.count(e.Topic, "accepted")
	w.threads[t] = true
	for _, u := range v.Members {
		w.members[memberKey{t, u}] = true
	}
	row := messageRow{
		thread:   t,
		position: e.Position,
		ordinal:  v.Ordinal,
		kind:     int16(e.Body.WhichBody()),
		timeMS:   e.TimeMS,
		event:    e.Raw,
	}
	row.sender = id.UserID(e.Body.GetUserId()) // 16 bytes: the fold has accepted it
	if m, err := id.From[id.MessageID](messageOf(e.Body)); err == nil {
		row.message, row.named = m, true
	}
	w.messages = append(w.messages, row)
}

// messageOf returns the id of the message that an event is or changes.
func messageOf(e *eventv1.Event) []byte {
	switch e.WhichBody() {
	case eventv1.Event_MessageSent_case:
		return e.GetMessageSent().GetMessageId()
	case eventv1.Event_MessageEdited_case:
		return e.GetMessageEdited().GetMessageId()
	case eventv1.Event_MessageDeleted_case:
		return e.GetMessageDeleted().GetMessageId()
	case eventv1.Event_ReactionSet_case:
		return e.GetReactionSet().GetMessageId()
	}
	return nil
}

func (w *writes) foldReceipt(e *projector.Event) {
	u, mark, ok := projector.Watermark(e)
	if !ok {
		w.count(e.Topic, string(thread.Malformed))
		return
	}
	w.count(e.Topic, "accepted")
	t := id.ThreadID(e.Subject)
	m := memberKey{t, u}
	w.marks[m] = w.marks[m].Merge(mark)
	d := markKey{t, e.Device, u}
	w.deviceMarks[d] = w.deviceMarks[d].Merge(mark)
}

func (w *writes) foldUser(e *projector.Event) {
	u := id.UserID(e.Subject)
	v := w.userStates[u].Apply(e.Body, e.Position, e.TimeMS)
	switch v.Outcome {
	case user.Stale:
		w.count(e.Topic, "stale")
		return
	case user.Rejected:
		w.count(e.Topic, "rejected")
		return
	}
	w.count(e.Topic, "accepted")
	for _, d := range v.Devices {
		w.devices[deviceKey{u, d}] = true
	}
	if !v.Thread.IsZero() {
		w.lists[listKey{u, v.Thread}] = true
	}
	switch e.Body.WhichBody() {
	case eventv1.Event_UserRegistered_case, eventv1.Event_ProfileChanged_case:
		w.users[u] = true
	case eventv1.Event_ContactSaved_case:
		w.contacts[contactKey{u, [id.Size]byte(e.Body.GetContactSaved().GetPhoneHash())}] = true
	case eventv1.Event_ContactRemoved_case:
		w.contacts[contactKey{u, [id.Size]byte(e.Body.GetContactRemoved().GetPhoneHash())}] = true
	case eventv1.Event_UserBlocked_case:
		w.blocks[blockKey{u, id.UserID(e.Body.GetUserBlocked().GetBlockedId())}] = true
	case eventv1.Event_UserUnblocked_case:
		w.blocks[blockKey{u, id.UserID(e.Body.GetUserUnblocked().GetBlockedId())}] = true
	}
}

func (w *writes) count(t topic.Topic, o string) { w.outcomes[outcome{t, o}]++ }
