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

type rejectedRow struct {
	device  deviceKey
	thread  id.ThreadID
	at      topic.Position
	message id.MessageID
	reason  thread.Reason
	timeMS  int64
}

// writes are the rows of a batch: those that changed. Their contents are read from the states when they are written, so
// each row is written once however often it changed.
type writes struct {
	slot   topic.Slot
	states *projector.States

	threads     map[id.ThreadID]bool
	members     map[memberKey]bool
	invited     map[memberKey]bool
	messages    []messageRow
	rejected    []rejectedRow
	marks       map[memberKey]thread.Watermark
	deviceMarks map[markKey]thread.Watermark
	users       map[id.UserID]bool
	devices     map[deviceKey]bool
	contacts    map[contactKey]bool
	blocks      map[blockKey]bool
	lists       map[listKey]bool
	invitations map[listKey]bool
}

func newWrites(slot topic.Slot, states *projector.States) *writes {
	return &writes{
		slot: slot, states: states,
		threads: map[id.ThreadID]bool{}, members: map[memberKey]bool{}, invited: map[memberKey]bool{},
		marks: map[memberKey]thread.Watermark{}, deviceMarks: map[markKey]thread.Watermark{},
		users: map[id.UserID]bool{}, devices: map[deviceKey]bool{}, contacts: map[contactKey]bool{},
		blocks: map[blockKey]bool{}, lists: map[listKey]bool{}, invitations: map[listKey]bool{},
	}
}

// Thread implements projector.Rows.
func (w *writes) Thread(e *projector.Event, _ *thread.State, v thread.Verdict) {
	t := id.ThreadID(e.Subject)
	w.threads[t] = true
	for _, u := range v.Members {
		w.members[memberKey{t, u}] = true
	}
	for _, u := range v.Invited {
		w.invited[memberKey{t, u}] = true
	}
	row := messageRow{
		thread:   t,
		position: e.Position,
		ordinal:  v.Ordinal,
		kind:     int16(e.Body.Type),
		timeMS:   e.TimeMS,
		event:    e.Raw,
	}
	row.sender = e.Body.User
	row.message, row.named = e.Body.About.ID, !e.Body.About.IsZero()
	w.messages = append(w.messages, row)
}

// Rejected implements projector.Rows.
func (w *writes) Rejected(e *projector.Event, v thread.Verdict) {
	w.rejected = append(w.rejected, rejectedRow{
		device: deviceKey{e.Body.User, e.Body.Device}, thread: id.ThreadID(e.Subject), at: e.Position,
		message: e.Body.About.ID, reason: v.Reason, timeMS: e.TimeMS,
	})
}

// Receipt implements projector.Rows.
func (w *writes) Receipt(e *projector.Event, u id.UserID, mark thread.Watermark) {
	t := id.ThreadID(e.Subject)
	m := memberKey{t, u}
	w.marks[m] = w.marks[m].Merge(mark)
	d := markKey{t, e.Device, u}
	w.deviceMarks[d] = w.deviceMarks[d].Merge(mark)
}

// User implements projector.Rows.
func (w *writes) User(e *projector.Event, _ *user.State, v user.Verdict) {
	u := id.UserID(e.Subject)
	for _, d := range v.Devices {
		w.devices[deviceKey{u, d}] = true
	}
	if !v.Thread.IsZero() {
		w.lists[listKey{u, v.Thread}] = true
	}
	if !v.Invitation.IsZero() {
		w.invitations[listKey{u, v.Invitation}] = true
	}
	switch e.Body.WhichBody() {
	case eventv1.Event_UserRegistered_case, eventv1.Event_ProfileChanged_case, eventv1.Event_MayAddChanged_case:
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
