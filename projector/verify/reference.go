package verify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
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
	*projector.Sink[*rows]
	memory *memory
}

// memory is the projector.Store of a Reference.
type memory struct {
	mu    sync.Mutex // guards what follows
	slots map[topic.Slot]*slot
}

// slot is what is stored of one.
type slot struct {
	next        kafka.Positions
	latest      map[topic.Topic]int64
	threads     map[id.ThreadID]*thread.State
	users       map[id.UserID]*user.State
	marks       map[[2][16]byte]thread.Watermark
	devices     map[[3][16]byte]thread.Watermark
	accepted    []accepted
	rejected    []rejected
	receipts    []receipt
	quarantined []projector.Quarantined
}

// rows are those of a batch.
type rows struct {
	accepted []accepted
	rejected []rejected
	receipts []receipt
}

// accepted is an accepted event of a thread.
type accepted struct {
	thread      id.ThreadID
	at          topic.Position
	ordinal     int64
	timeMS      int64
	countedMS   int64 // of a message: the thread's clock then
	kind        int16
	name        string // of the body's field
	sender      id.UserID
	device      id.DeviceID
	message     string // canonical, or empty
	replyTo     id.MessageID
	replyAuthor id.UserID
	author      string // of the message that a change is about
	client      int64
	keyID       uint64
	body        string // digest
	emoji       string
	title       string
	event       string // digest
	members     []member
	invited     []invited
}

type member struct {
	user    id.UserID
	kind    thread.Kind
	role    thread.Role
	active  bool
	ordinal int64
}

// invited is what an event made of an invitation.
type invited struct {
	user id.UserID
	open bool
}

// rejected is a message of which its sender is told later.
type rejected struct {
	thread  id.ThreadID
	at      topic.Position
	sender  id.UserID
	device  id.DeviceID
	message id.MessageID
	reason  thread.Reason
	timeMS  int64
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
	r := &Reference{memory: &memory{slots: map[topic.Slot]*slot{}}}
	r.Sink = projector.NewSink(projector.Config{
		Kind: "reference", View: "reference", Partitions: func() int { return partitions },
	}, r.memory, nil, nil)
	return r
}

// next is the position after the last event of a topic in a slot that was folded.
func (r *Reference) next(t topic.Topic, n topic.Slot) topic.Position {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	if s := r.memory.slots[n]; s != nil {
		return s.next[t]
	}
	return 0
}

// Read implements projector.Store.
func (m *memory) Read(_ context.Context, n topic.Slot) (projector.Stored, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.slots[n]
	if s == nil {
		s = &slot{
			next: kafka.Positions{}, latest: map[topic.Topic]int64{}, threads: map[id.ThreadID]*thread.State{},
			users: map[id.UserID]*user.State{}, marks: map[[2][16]byte]thread.Watermark{},
			devices: map[[3][16]byte]thread.Watermark{},
		}
		m.slots[n] = s
	}
	out := projector.Stored{Next: s.next.Clone()}
	at := map[projector.Held]int{}
	for _, q := range s.quarantined {
		if q.Subject == (topic.Subject{}) {
			continue
		}
		h := projector.Held{Topic: q.Topic, Subject: q.Subject}
		if i, ok := at[h]; ok {
			out.Held[i].Last = q.Position
			continue
		}
		at[h] = len(out.Held)
		out.Held = append(out.Held,
			projector.HeldRange{Held: h, First: q.Position, Last: q.Position, Reason: q.Reason})
	}
	return out, nil
}

// Load implements projector.Store. A batch folds copies, so that one that is given up has changed nothing.
func (m *memory) Load(_ context.Context, states *projector.States, w projector.Wanted) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range w.Threads {
		states.Threads[t] = thread.New(t)
		if known := m.slots[w.Slot].threads[t]; known != nil {
			states.Threads[t] = known.Clone()
		}
	}
	for _, u := range w.Users {
		states.Users[u] = user.New(u)
		if known := m.slots[w.Slot].users[u]; known != nil {
			states.Users[u] = known.Clone()
		}
	}
	return nil
}

// Rows implements projector.Store.
func (m *memory) Rows(topic.Slot, *projector.States) *rows { return &rows{} }

// Classify implements projector.Store.
func (m *memory) Classify(err error) error { return err }

// Write implements projector.Store.
func (m *memory) Write(_ context.Context, f *projector.Folded[*rows]) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.slots[f.Batch.Slot]
	maps.Copy(s.threads, f.States.Threads)
	maps.Copy(s.users, f.States.Users)
	s.accepted = append(s.accepted, f.Rows.accepted...)
	s.rejected = append(s.rejected, f.Rows.rejected...)
	for _, r := range f.Rows.receipts {
		byUser, byDevice := [2][16]byte{r.thread, r.user}, [3][16]byte{r.thread, r.device, r.user}
		s.marks[byUser] = s.marks[byUser].Merge(r.mark)
		s.devices[byDevice] = s.devices[byDevice].Merge(r.mark)
		s.receipts = append(s.receipts, r)
	}
	s.quarantined = append(s.quarantined, f.Quarantined...)
	for t, ms := range f.LogTimes {
		if was, ok := s.latest[t]; !ok || ms > was {
			s.latest[t] = ms
		}
	}
	maps.Copy(s.next, f.Batch.To)
	return nil
}

// User implements projector.Rows; what the views hold of users is in their states.
func (r *rows) User(*projector.Event, *user.State, user.Verdict) {}

// Rejected implements projector.Rows.
func (r *rows) Rejected(e *projector.Event, v thread.Verdict) {
	r.rejected = append(r.rejected, rejected{
		thread: id.ThreadID(e.Subject), at: e.Position, sender: e.Body.User, device: e.Body.Device,
		message: e.Body.About.ID, reason: v.Reason, timeMS: e.TimeMS,
	})
}

// Receipt implements projector.Rows.
func (r *rows) Receipt(e *projector.Event, u id.UserID, mark thread.Watermark) {
	r.receipts = append(r.receipts, receipt{
		thread: id.ThreadID(e.Subject), user: u, device: e.Device, at: e.Position, timeMS: e.TimeMS, mark: mark,
	})
}

// Thread implements projector.Rows.
func (r *rows) Thread(e *projector.Event, state *thread.State, v thread.Verdict) {
	a := accepted{
		thread: state.ID, at: e.Position, ordinal: v.Ordinal, timeMS: e.TimeMS, kind: int16(e.Body.Type),
		name: e.Body.Type.String(), sender: e.Body.User, device: e.Body.Device, event: digest(e.Raw),
		replyTo: e.Body.Reply.ID, replyAuthor: e.Body.Reply.Author,
	}
	if !e.Body.About.IsZero() {
		a.author, a.message = e.Body.About.Author.String(), e.Body.About.ID.String()
	}
	switch e.Body.WhichBody() {
	case eventv1.Event_MessageSent_case:
		a.client, a.countedMS = e.Body.GetMessageSent().GetClientTimeMs(), state.Counted(e.Body, e.TimeMS)
	case eventv1.Event_ReactionSet_case:
		a.emoji = e.Body.GetReactionSet().GetEmoji()
	case eventv1.Event_ThreadCreated_case:
		a.title = e.Body.GetThreadCreated().GetTitle()
	case eventv1.Event_ThreadRenamed_case:
		a.title = e.Body.GetThreadRenamed().GetTitle()
	}
	a.keyID, a.body = e.Body.Content.KeyID, digest(e.Body.Content.Bytes())
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
		a.members = append(a.members,
			member{user: u, kind: state.Kind, role: m.Role, active: m.Active(), ordinal: ordinal})
	}
	for _, u := range v.Invited {
		_, open := state.Invited[u]
		a.invited = append(a.invited, invited{u, open})
	}
	r.accepted = append(r.accepted, a)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}

// newer counts the subjects of some topics of which this version cannot read an event that a view does not have in
// quarantine.
func (r *Reference) newer(topics []topic.Topic, got tables) int {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	n := 0
	for _, s := range r.memory.slots {
		for _, q := range s.quarantined {
			_, held := got["quarantine"][keyOf(q.Topic, q.Slot, q.Position)]
			if !held && strings.HasPrefix(q.Reason, projector.NewerVersion) && slices.Contains(topics, q.Topic) {
				n++
			}
		}
	}
	return n
}
