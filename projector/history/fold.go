package history

import (
	"time"

	"heliograph/projector"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/user"
)

type messageRow struct {
	thread   id.ThreadID
	position int64
	ordinal  int64
	slot     int32
	sender   id.UserID
	device   id.DeviceID
	message  id.MessageID
	replyTo  id.MessageID
	// zero in events that did not say it
	replyAuthor id.UserID
	log         time.Time
	counted     time.Time
	client      time.Time
	keyID       uint64
	body        string
	event       string
}

type eventRow struct {
	thread   id.ThreadID
	position int64
	ordinal  int64
	slot     int32
	kind     string
	actor    id.UserID
	log      time.Time
	title    string
	event    string
}

type changeRow struct {
	thread   id.ThreadID
	author   id.UserID
	message  id.MessageID
	position int64
	slot     int32
	change   string
	actor    id.UserID
	log      time.Time
	keyID    uint64
	body     string
	emoji    string
}

type memberRow struct {
	thread   id.ThreadID
	user     id.UserID
	position int64
	slot     int32
	kind     int16
	active   bool
	role     int16
	ordinal  int64
	log      time.Time
}

type invitationRow struct {
	thread   id.ThreadID
	user     id.UserID
	position int64
	slot     int32
	open     bool
	kind     string
	actor    id.UserID
	log      time.Time
}

type receiptRow struct {
	thread   id.ThreadID
	user     id.UserID
	device   id.DeviceID
	position int64
	slot     int32
	mark     thread.Watermark
	log      time.Time
}

// writes are the rows of a batch.
type writes struct {
	messages    []messageRow
	events      []eventRow
	changes     []changeRow
	members     []memberRow
	invitations []invitationRow
	receipts    []receiptRow
}

// Rejected implements projector.Rows: the history is of what was accepted.
func (w *writes) Rejected(*projector.Event, thread.Verdict) {}

// Receipt implements projector.Rows.
func (w *writes) Receipt(e *projector.Event, u id.UserID, mark thread.Watermark) {
	w.receipts = append(w.receipts, receiptRow{
		thread: id.ThreadID(e.Subject), user: u, device: e.Device, position: int64(e.Position), slot: int32(e.Slot),
		mark: mark, log: storable(e.TimeMS),
	})
}

// User implements projector.Rows; the history holds nothing of users.
func (w *writes) User(*projector.Event, *user.State, user.Verdict) {}

// Thread implements projector.Rows.
func (w *writes) Thread(e *projector.Event, state *thread.State, v thread.Verdict) {
	t := state.ID
	actor := e.Body.User
	pos, slot, at := int64(e.Position), int32(e.Slot), storable(e.TimeMS)
	before := v.Ordinal
	if e.Body.WhichBody() == eventv1.Event_MessageSent_case {
		before--
		row := message(e, t, actor, v.Ordinal, at)
		row.counted = storable(state.Counted(e.Body, e.TimeMS))
		w.messages = append(w.messages, row)
	} else {
		w.events = append(w.events, eventRow{
			thread: t, position: pos, ordinal: v.Ordinal, slot: slot, kind: e.Body.Type.String(), actor: actor, log: at,
			title: titleOf(e.Body), event: string(e.Raw),
		})
		w.change(e, t, actor, at)
	}
	for _, u := range v.Members {
		m := state.Members[u]
		w.members = append(w.members, memberRow{
			thread: t, user: u, position: pos, slot: slot, kind: int16(state.Kind), active: m.Active(),
			role: int16(m.Role), ordinal: before, log: at,
		})
	}
	for _, u := range v.Invited {
		_, open := state.Invited[u]
		w.invitations = append(w.invitations, invitationRow{
			thread: t, user: u, position: pos, slot: slot, open: open, kind: e.Body.Type.String(), actor: actor,
			log: at,
		})
	}
}

func message(e *projector.Event, t id.ThreadID, actor id.UserID, ordinal int64, at time.Time) messageRow {
	m := e.Body.GetMessageSent()
	row := messageRow{
		thread: t, position: int64(e.Position), ordinal: ordinal, slot: int32(e.Slot), sender: actor, log: at,
		device: e.Body.Device, client: storable(m.GetClientTimeMs()), message: e.Body.About.ID,
		replyTo: e.Body.Reply.ID, replyAuthor: e.Body.Reply.Author, event: string(e.Raw),
	}
	row.keyID, row.body = e.Body.Content.KeyID, string(e.Body.Content.Bytes())
	return row
}

func (w *writes) change(e *projector.Event, t id.ThreadID, actor id.UserID, at time.Time) {
	row := changeRow{
		thread: t, author: e.Body.About.Author, message: e.Body.About.ID, position: int64(e.Position),
		slot: int32(e.Slot), actor: actor, log: at, keyID: e.Body.Content.KeyID, body: string(e.Body.Content.Bytes()),
	}
	switch e.Body.WhichBody() {
	case eventv1.Event_MessageEdited_case:
		row.change = "edited"
	case eventv1.Event_MessageDeleted_case:
		row.change = "deleted"
	case eventv1.Event_ReactionSet_case:
		row.change, row.emoji = "reaction", e.Body.GetReactionSet().GetEmoji()
	default:
		return
	}
	w.changes = append(w.changes, row)
}

func titleOf(e *event.Event) string {
	switch e.WhichBody() {
	case eventv1.Event_ThreadCreated_case:
		return e.GetThreadCreated().GetTitle()
	case eventv1.Event_ThreadRenamed_case:
		return e.GetThreadRenamed().GetTitle()
	}
	return ""
}

// The times that DateTime64(3) holds (1900 to 2299), in Unix milliseconds.
const (
	earliestMS = -2208988800000
	latestMS   = 10413791999999
)

// storable turns Unix milliseconds into a time that a DateTime64 holds. A client's clock may say anything.
func storable(ms int64) time.Time { return projector.Time(min(max(ms, earliestMS), latestMS)) }
