package verify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"

	"heliograph/infra/kafka"
	"heliograph/projector"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// Reference is a fold of the log in memory. It is a kafka.Sink: kafka.Replay fills it.
type Reference struct {
	partitions int

	mu    sync.Mutex // guards what follows
	slots map[topic.Slot]*slot
}

type slot struct {
	intake      *projector.Intake
	next        kafka.Positions
	latest      map[topic.Topic]int64
	threads     map[id.ThreadID]*thread.State
	users       map[id.UserID]*user.State
	marks       map[[2][16]byte]thread.Watermark
	devices     map[[3][16]byte]thread.Watermark
	accepted    []accepted
	receipts    []receipt
	quarantined []projector.Quarantined
}

// accepted is an accepted event of a thread.
type accepted struct {
	thread  id.ThreadID
	at      topic.Position
	ordinal int64
	timeMS  int64
	kind    int16
	name    string // of the body's field
	sender  id.UserID
	device  []byte
	message string // canonical, or empty
	replyTo string
	author  string // of the message that a change is about
	client  int64
	keyID   uint64
	body    string // digest
	emoji   string
	title   string
	event   string // digest
	members []member
}

type member struct {
	user    id.UserID
	kind    thread.Kind
	role    thread.Role
	active  bool
	ordinal int64
}

type receipt struct {
	thread id.ThreadID
	user   id.UserID
	device id.DeviceID
	at     topic.Position
	timeMS int64
	mark   thread.Watermark
}

// NewReference returns an empty one. partitions is P; 0 does not check in which slot a subject lies.
func NewReference(partitions int) *Reference {
	return &Reference{partitions: partitions, slots: map[topic.Slot]*slot{}}
}

// Open implements kafka.Sink.
func (r *Reference) Open(_ context.Context, n topic.Slot) (kafka.Positions, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.slots[n]
	if s == nil {
		s = &slot{
			intake: projector.NewIntake(r.partitions, nil), next: kafka.Positions{}, latest: map[topic.Topic]int64{},
			threads: map[id.ThreadID]*thread.State{}, users: map[id.UserID]*user.State{},
			marks: map[[2][16]byte]thread.Watermark{}, devices: map[[3][16]byte]thread.Watermark{},
		}
		r.slots[n] = s
	}
	return s.next.Clone(), nil
}

// Close implements kafka.Sink.
func (r *Reference) Close(topic.Slot, bool) {}

// Apply implements kafka.Sink.
func (r *Reference) Apply(_ context.Context, b kafka.Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.slots[b.Slot]
	if s == nil {
		return kafka.Permanent(fmt.Errorf("verify: slot %d is not open", b.Slot))
	}
	sorted := s.intake.Sort(b)
	for {
		undo := s.mark(sorted.Events)
		if s.intake.Fold(sorted, s.fold) == nil {
			break
		}
		undo()
		sorted = s.intake.Sort(b)
	}
	s.intake.Commit(sorted)
	s.quarantined = append(s.quarantined, sorted.Quarantined...)
	for t, ms := range sorted.LogTimes {
		if was, ok := s.latest[t]; !ok || ms > was {
			s.latest[t] = ms
		}
	}
	for t, next := range b.To {
		s.next[t] = next
	}
	return nil
}

// mark returns what takes the slot back to where it stands now, after events were folded. Watermarks need not go back:
// they come to the same again.
func (s *slot) mark(events []projector.Event) (undo func()) {
	threads, users := map[id.ThreadID]*thread.State{}, map[id.UserID]*user.State{}
	accepted, receipts := len(s.accepted), len(s.receipts)
	for i := range events {
		switch t, u := id.ThreadID(events[i].Subject), id.UserID(events[i].Subject); events[i].Topic {
		case topic.Threads:
			if _, kept := threads[t]; !kept {
				threads[t] = nil
				if state := s.threads[t]; state != nil {
					threads[t] = state.Clone()
				}
			}
		case topic.Users:
			if _, kept := users[u]; !kept {
				users[u] = nil
				if state := s.users[u]; state != nil {
					users[u] = state.Clone()
				}
			}
		}
	}
	return func() {
		s.accepted, s.receipts = s.accepted[:accepted], s.receipts[:receipts]
		for t, state := range threads {
			if s.threads[t] = state; state == nil {
				delete(s.threads, t)
			}
		}
		for u, state := range users {
			if s.users[u] = state; state == nil {
				delete(s.users, u)
			}
		}
	}
}

func (s *slot) fold(e *projector.Event) {
	switch e.Topic {
	case topic.Threads:
		t := id.ThreadID(e.Subject)
		state := s.threads[t]
		if state == nil {
			state = thread.New(t)
			s.threads[t] = state
		}
		if v := state.Apply(e.Body, e.Position, e.TimeMS); v.Outcome == thread.Accepted {
			s.accept(e, state, v)
		}
	case topic.Receipts:
		u, mark, ok := projector.Watermark(e)
		if !ok {
			return
		}
		byUser, byDevice := [2][16]byte{e.Subject, u}, [3][16]byte{e.Subject, e.Device, u}
		s.marks[byUser] = s.marks[byUser].Merge(mark)
		s.devices[byDevice] = s.devices[byDevice].Merge(mark)
		s.receipts = append(
			s.receipts,
			receipt{
				thread: id.ThreadID(e.Subject),
				user:   u,
				device: e.Device,
				at:     e.Position,
				timeMS: e.TimeMS,
				mark:   mark,
			},
		)
	case topic.Users:
		u := id.UserID(e.Subject)
		state := s.users[u]
		if state == nil {
			state = user.New(u)
			s.users[u] = state
		}
		state.Apply(e.Body, e.Position, e.TimeMS)
	}
}

func (s *slot) accept(e *projector.Event, state *thread.State, v thread.Verdict) {
	a := accepted{
		thread: state.ID, at: e.Position, ordinal: v.Ordinal, timeMS: e.TimeMS, kind: int16(e.Body.WhichBody()),
		name:   fieldName(e.Body),
		sender: id.UserID(e.Body.GetUserId()), device: e.Body.GetDeviceId(), event: digest(e.Raw),
	}
	a.author = a.sender.String()
	var content *eventv1.Sealed
	switch e.Body.WhichBody() {
	case eventv1.Event_MessageSent_case:
		m := e.Body.GetMessageSent()
		a.message, a.replyTo, a.client, content = canonical(
			m.GetMessageId(),
		), canonical(
			m.GetReplyTo(),
		), m.GetClientTimeMs(), m.GetContent()
	case eventv1.Event_MessageEdited_case:
		m := e.Body.GetMessageEdited()
		a.message, content = canonical(m.GetMessageId()), m.GetContent()
	case eventv1.Event_MessageDeleted_case:
		m := e.Body.GetMessageDeleted()
		a.message = canonical(m.GetMessageId())
		if len(m.GetAuthorId()) != 0 {
			a.author = canonical(m.GetAuthorId())
		}
	case eventv1.Event_ReactionSet_case:
		m := e.Body.GetReactionSet()
		a.message, a.author, a.emoji = canonical(m.GetMessageId()), canonical(m.GetAuthorId()), m.GetEmoji()
	case eventv1.Event_ThreadCreated_case:
		a.title = e.Body.GetThreadCreated().GetTitle()
	case eventv1.Event_ThreadRenamed_case:
		a.title = e.Body.GetThreadRenamed().GetTitle()
	}
	a.keyID, a.body = content.GetKeyId(), digest(plain(content))
	for _, u := range v.Members {
		m := state.Members[u]
		// of the last message before the event, when it began or ended a stretch; else the verdict's
		ordinal := m.BaseOrdinal
		switch last := m.Spans[len(m.Spans)-1]; e.Position {
		case last.From:
		case last.To:
			ordinal = m.EndOrdinal
		default:
			ordinal = v.Ordinal
		}
		a.members = append(
			a.members, member{user: u, kind: state.Kind, role: m.Role, active: m.Active(), ordinal: ordinal},
		)
	}
	s.accepted = append(s.accepted, a)
}

func fieldName(e *eventv1.Event) string {
	m := e.ProtoReflect()
	if fd := m.WhichOneof(m.Descriptor().Oneofs().ByName("body")); fd != nil {
		return string(fd.Name())
	}
	return ""
}

func plain(c *eventv1.Sealed) []byte {
	if c.GetKeyId() != 0 {
		return c.GetData()
	}
	t, _ := thread.Text(c)
	return []byte(t)
}

func canonical(b []byte) string {
	if v, err := id.From[id.MessageID](b); err == nil {
		return v.String()
	}
	return ""
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}
