package replicatest

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"heliograph/edge/replica"
	"heliograph/infra/kafka"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	wirev1 "heliograph/schemas/wire/v1"
)

// Slots is P.
const Slots = 4

// World is the log, with a clock of its own per record, and the views folded from it with a lag.
type World struct {
	Mu      sync.Mutex // guards what follows
	Rnd     *rand.Rand
	Log     [Slots][len(topic.Cursor{})][]*linkv1.Record // by place in topic.Folded
	Clock   int64
	Grown   chan struct{}
	Views   Store
	Past    History
	Oracles map[id.ThreadID]*Oracle
}

// Oracle is a thread as the whole log has it.
type Oracle struct {
	State    *thread.State
	Accepted []replica.Row
}

// NewWorld returns an empty world.
func NewWorld(seed uint64) *World {
	w := &World{
		Rnd:     rand.New(rand.NewPCG(seed, 1)),
		Clock:   1_700_000_000_000,
		Grown:   make(chan struct{}),
		Oracles: map[id.ThreadID]*Oracle{},
	}
	w.Views = Store{
		World: w, Threads: map[id.ThreadID]*replica.ThreadState{}, Users: map[id.UserID]*user.State{},
		Rows: map[id.ThreadID][]replica.Row{}, Marks: map[replica.DeviceThread]thread.Watermark{},
		Refused: map[replica.DeviceKey][]replica.Rejected{},
		Cursors: make([]topic.Cursor, Slots), Trimmed: map[id.ThreadID]replica.Row{},
		Quarantined: map[replica.Quarantined][]*linkv1.Record{},
	}
	w.Past.World = w
	return w
}

// Slot is a subject's.
func (w *World) Slot(s topic.Subject) topic.Slot { return topic.SlotOf(s, Slots) }

// Add appends an event to the log.
func (w *World) Add(t topic.Topic, key []byte, e *eventv1.Event) topic.Position {
	v, err := proto.Marshal(e)
	if err != nil {
		panic(err)
	}
	return w.AddRaw(t, key, v)
}

// AddRaw appends a record to the log.
func (w *World) AddRaw(t topic.Topic, key, value []byte) topic.Position {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	s := w.Slot(topic.Subject(key[:16]))
	i := t.Number() - 1
	w.Clock += 5
	at := topic.Position(len(w.Log[s][i]))
	w.Log[s][i] = append(w.Log[s][i],
		linkv1.Record_builder{Position: int64(at), LogTimeMs: w.Clock, Key: key, Value: value}.Build())
	if t == topic.Threads {
		th := id.ThreadID(key)
		o := w.Oracles[th]
		if o == nil {
			o = &Oracle{State: thread.New(th)}
			w.Oracles[th] = o
		}
		if e, err := read(value); err == nil {
			if v := o.State.Apply(e, at, w.Clock); v.Outcome == thread.Accepted {
				o.Accepted = append(o.Accepted, replica.Row{
					Position: at, Ordinal: v.Ordinal, LogTimeMS: w.Clock, Event: value,
				})
			}
		}
	}
	close(w.Grown)
	w.Grown = make(chan struct{})
	return at
}

// End is how long a slot of the log is. The caller holds Mu.
func (w *World) End(s topic.Slot) topic.Cursor {
	var c topic.Cursor
	for i := range c {
		c[i] = topic.Position(len(w.Log[s][i]))
	}
	return c
}

// Ends implements replica.Log.
func (w *World) Ends(_ context.Context, t topic.Topic) ([]topic.Position, error) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	out := make([]topic.Position, Slots)
	for s := range out {
		out[s] = w.End(topic.Slot(s)).At(t)
	}
	return out, nil
}

// Register writes that a user was registered with his first device, and returns when, by log time.
func (w *World) Register(u id.UserID, d id.DeviceID, generation uint32) int64 {
	w.Add(topic.Users, u[:], eventv1.Event_builder{
		UserId: u[:], DeviceId: d[:],
		UserRegistered: eventv1.UserRegistered_builder{
			PhoneHash: u[:], Generation: generation, DeviceId: d[:], PublicKey: make([]byte, 32), DeviceName: "d",
		}.Build(),
	}.Build())
	w.Mu.Lock()
	defer w.Mu.Unlock()
	return w.Clock
}

// RegisterHere writes that a user who is registered was so again, with a device that is shown what comes from now on,
// by an edge whose clock is ahead.
func (w *World) RegisterHere(u id.UserID, d id.DeviceID, aheadMS int64) user.Floor {
	floor := user.Floor{Next: map[topic.Slot]topic.Position{}}
	ends, _ := w.Ends(context.Background(), topic.Threads)
	for s, next := range ends {
		floor.Next[topic.Slot(s)] = next
	}
	w.tick(aheadMS)
	defer w.tick(-aheadMS)
	w.Add(topic.Users, u[:], eventv1.Event_builder{
		UserId: u[:], DeviceId: d[:], Rules: 3,
		UserRegistered: eventv1.UserRegistered_builder{
			PhoneHash: u[:], Generation: 1, DeviceId: d[:], PublicKey: make([]byte, 32), DeviceName: "d",
			ShownFrom: user.ShownFrom(floor.Next),
		}.Build(),
	}.Build())
	return floor
}

func (w *World) tick(ms int64) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	w.Clock += ms
}

// LinkDevice writes that one device linked another.
func (w *World) LinkDevice(u id.UserID, by, d id.DeviceID) {
	w.Add(topic.Users, u[:], eventv1.Event_builder{
		UserId: u[:], DeviceId: by[:],
		DeviceLinked: eventv1.DeviceLinked_builder{
			DeviceId: d[:], PublicKey: make([]byte, 32), DeviceName: "d",
		}.Build(),
	}.Build())
}

// LinkNewer writes, in a way that this version cannot read, that one device linked another.
func (w *World) LinkNewer(u id.UserID, by id.DeviceID) {
	d := id.NewDevice()
	w.Add(topic.Users, u[:], eventv1.Event_builder{
		UserId: u[:], DeviceId: by[:], MinReader: event.Reader + 1, DeviceLinked: eventv1.DeviceLinked_builder{
			DeviceId: d[:], PublicKey: make([]byte, 32), DeviceName: "d",
		}.Build(),
	}.Build())
}

// Revoke writes that a device was revoked.
func (w *World) Revoke(u id.UserID, d id.DeviceID) {
	w.Add(topic.Users, u[:], eventv1.Event_builder{
		UserId:        u[:],
		DeviceRevoked: eventv1.DeviceRevoked_builder{DeviceId: d[:]}.Build(),
	}.Build())
}

// Join lists a thread for users; since below 0: it is not new.
func (w *World) Join(t id.ThreadID, since topic.Position, users ...id.UserID) {
	for _, u := range users {
		w.Add(topic.Users, u[:], eventv1.Event_builder{UserId: u[:], ThreadJoined: eventv1.ThreadJoined_builder{
			ThreadId: t[:], NewThread: since >= 0, SincePosition: int64(max(since, 0)),
		}.Build()}.Build())
	}
}

// Next is the end of a thread's slot.
func (w *World) Next(t id.ThreadID) topic.Position {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	return w.End(w.Slot(topic.Subject(t))).At(topic.Threads)
}

// Create begins a group.
func (w *World) Create(t id.ThreadID, by id.UserID, members ...id.UserID) {
	var raw [][]byte
	for _, m := range members {
		raw = append(raw, m[:])
	}
	w.Add(topic.Threads, t[:], eventv1.Event_builder{
		UserId:        by[:],
		ThreadCreated: eventv1.ThreadCreated_builder{Title: "g", MemberIds: raw}.Build(),
	}.Build())
}

// AddMember adds to a group.
func (w *World) AddMember(t id.ThreadID, by, m id.UserID) {
	w.Add(topic.Threads, t[:], eventv1.Event_builder{
		UserId:      by[:],
		MemberAdded: eventv1.MemberAdded_builder{MemberIds: [][]byte{m[:]}}.Build(),
	}.Build())
}

// RemoveMember removes from a group.
func (w *World) RemoveMember(t id.ThreadID, by, m id.UserID) topic.Position {
	return w.Add(topic.Threads, t[:], eventv1.Event_builder{
		UserId:        by[:],
		MemberRemoved: eventv1.MemberRemoved_builder{MemberId: m[:]}.Build(),
	}.Build())
}

// Invite invites into a group.
func (w *World) Invite(t id.ThreadID, by, u id.UserID) topic.Position {
	return w.Add(topic.Threads, t[:], eventv1.Event_builder{
		UserId: by[:], Rules: event.WrittenRules,
		MemberInvited: eventv1.MemberInvited_builder{MemberIds: [][]byte{u[:]}}.Build(),
	}.Build())
}

// TellInvited writes that a user was invited into a group, for himself.
func (w *World) TellInvited(u, by id.UserID, t id.ThreadID, title string) topic.Position {
	return w.Add(topic.Users, u[:], eventv1.Event_builder{
		UserId: by[:], Rules: event.WrittenRules,
		ThreadInvited: eventv1.ThreadInvited_builder{ThreadId: t[:], Title: title}.Build(),
	}.Build())
}

// EndInvitation writes that an invitation is none any more, for the user himself.
func (w *World) EndInvitation(u id.UserID, t id.ThreadID) topic.Position {
	return w.Add(topic.Users, u[:], eventv1.Event_builder{
		UserId: u[:], Rules: event.WrittenRules,
		ThreadInvitationEnded: eventv1.ThreadInvitationEnded_builder{ThreadId: t[:]}.Build(),
	}.Build())
}

// Accept answers an invitation into a group.
func (w *World) Accept(t id.ThreadID, u id.UserID) topic.Position {
	return w.Add(topic.Threads, t[:], eventv1.Event_builder{
		UserId: u[:], Rules: event.WrittenRules, InvitationAccepted: &eventv1.InvitationAccepted{},
	}.Build())
}

// Send writes a message, with the peer of a direct thread if one is given.
func (w *World) Send(t id.ThreadID, by id.UserID, d id.DeviceID, m id.MessageID, peer id.UserID) topic.Position {
	content, _ := proto.Marshal(eventv1.Content_builder{Text: "hello"}.Build())
	b := eventv1.MessageSent_builder{MessageId: m[:], Content: eventv1.Sealed_builder{Data: content}.Build()}
	if !peer.IsZero() {
		b.DirectPeer = peer[:]
	}
	return w.Add(topic.Threads, t[:], eventv1.Event_builder{
		UserId: by[:], DeviceId: d[:], Rules: event.WrittenRules, MessageSent: b.Build(),
	}.Build())
}

// SendNewer writes a message that this version cannot read.
func (w *World) SendNewer(t id.ThreadID, by id.UserID, d id.DeviceID) topic.Position {
	m := id.NewMessage()
	content, _ := proto.Marshal(eventv1.Content_builder{Text: "hello"}.Build())
	return w.Add(topic.Threads, t[:], eventv1.Event_builder{
		UserId: by[:], DeviceId: d[:], MinReader: event.Reader + 1, MessageSent: eventv1.MessageSent_builder{
			MessageId: m[:], Content: eventv1.Sealed_builder{Data: content}.Build(),
		}.Build(),
	}.Build())
}

// Watermark writes a receipt.
func (w *World) Watermark(t id.ThreadID, u id.UserID, d id.DeviceID, wm thread.Watermark) {
	w.Add(topic.Receipts, slices.Concat(t[:], d[:]), eventv1.Event_builder{
		UserId: u[:], DeviceId: d[:],
		WatermarksMoved: eventv1.WatermarksMoved_builder{
			DeliveredPosition: int64(wm.DeliveredPosition), DeliveredOrdinal: wm.DeliveredOrdinal,
			ReadPosition: int64(wm.ReadPosition), ReadOrdinal: wm.ReadOrdinal,
		}.Build(),
	}.Build())
}

// WatermarkNewer writes a receipt that this version cannot read.
func (w *World) WatermarkNewer(t id.ThreadID, u id.UserID, d id.DeviceID, wm thread.Watermark) {
	w.Add(topic.Receipts, slices.Concat(t[:], d[:]), eventv1.Event_builder{
		UserId: u[:], DeviceId: d[:], MinReader: event.Reader + 1,
		WatermarksMoved: eventv1.WatermarksMoved_builder{
			DeliveredPosition: int64(wm.DeliveredPosition), DeliveredOrdinal: wm.DeliveredOrdinal,
		}.Build(),
	}.Build())
}

// Store is the thread views in memory. Guarded by world.Mu.
type Store struct {
	World   *World
	Cursors []topic.Cursor
	Threads map[id.ThreadID]*replica.ThreadState
	Users   map[id.UserID]*user.State
	Rows    map[id.ThreadID][]replica.Row
	Trimmed map[id.ThreadID]replica.Row // the greatest position and log time
	Marks   map[replica.DeviceThread]thread.Watermark
	Refused map[replica.DeviceKey][]replica.Rejected // messages, of which their senders are told later
	Down    bool
	Stopped bool                // folds nothing
	Stalled map[topic.Slot]bool // folds nothing of these
	Queries int
	Recent  int // the most messages of a window that a snapshot has; 0: all
	Sought  int // messages that were looked up
	// Newer: what folds is of a newer version, which reads what this one cannot.
	Newer bool
	// Quarantined is the records of a subject that could not be folded, and those behind them.
	Quarantined map[replica.Quarantined][]*linkv1.Record
	// Dropped is what operators have dropped.
	Dropped kafka.Releases
	Asked   int // of Queries, those about the quarantine
	// BeforeTails is called once, before the next answer to Tails. It may call Crash.
	BeforeTails func()
}

var errDown = errors.New("the store is down")

// Fold takes in up to n more events of each topic and slot.
func (m *Store) Fold(n int) {
	m.World.Mu.Lock()
	defer m.World.Mu.Unlock()
	if m.Down || m.Stopped {
		return
	}
	for s := range m.Cursors {
		if m.Stalled[topic.Slot(s)] {
			continue
		}
		for i := range m.Cursors[s] {
			list := m.World.Log[s][i]
			for range n {
				at := m.Cursors[s][i]
				if int(at) >= len(list) {
					break
				}
				m.Cursors[s][i]++
				m.apply(i, list[at])
			}
		}
	}
}

// Trim removes, of the rows with a log time before cutoffMS, those that goes says, as a statement does that takes a
// limited number of them. The caller holds world.Mu.
func (m *Store) Trim(cutoffMS int64, goes func() bool) {
	for t, rows := range m.Rows {
		m.Rows[t] = slices.DeleteFunc(rows, func(r replica.Row) bool {
			if r.LogTimeMS >= cutoffMS || !goes() {
				return false
			}
			x, ok := m.Trimmed[t]
			if !ok || x.Position < r.Position {
				x.Position = r.Position
			}
			x.LogTimeMS = max(x.LogTimeMS, r.LogTimeMS)
			m.Trimmed[t] = x
			return true
		})
	}
}

// History is the history in memory: all of the log, save what it is behind. Guarded by world.Mu.
type History struct {
	World  *World
	Down   bool
	Hangs  bool           // does not answer
	Behind topic.Position // events of each slot that it has not got
	Shaky  bool           // fails now and then
	Asked  int
}

// Events implements fanout.History.
func (m *History) Events(
	ctx context.Context, t id.ThreadID, after, upTo topic.Position, floorMS int64, limit int,
) ([]*wirev1.Event, error) {
	m.World.Mu.Lock()
	defer m.World.Mu.Unlock()
	m.Asked++
	if m.Hangs {
		m.World.Mu.Unlock()
		<-ctx.Done()
		m.World.Mu.Lock()
		return nil, context.Cause(ctx)
	}
	if m.Down || m.Shaky && m.World.Rnd.IntN(4) == 0 {
		return nil, errDown
	}
	if m.World.End(m.World.Slot(topic.Subject(t))).At(topic.Threads)-m.Behind <= upTo {
		return nil, errors.New("the history is behind")
	}
	var out []*wirev1.Event
	for _, e := range m.World.Oracles[t].Accepted {
		if e.Position > after && e.Position <= upTo && e.LogTimeMS >= floorMS && len(out) < limit {
			out = append(out, wirev1.Event_builder{
				ThreadId: t[:], Position: int64(e.Position), Ordinal: e.Ordinal, LogTimeMs: e.LogTimeMS, Event: e.Event,
			}.Build())
		}
	}
	return out, ctx.Err()
}

// Crash takes the views back by up to back events of each topic and slot, as a crash of Postgres does. The caller holds
// world.Mu.
func (m *Store) Crash(back func() int) {
	m.Threads, m.Users = map[id.ThreadID]*replica.ThreadState{}, map[id.UserID]*user.State{}
	m.Rows, m.Quarantined = map[id.ThreadID][]replica.Row{}, map[replica.Quarantined][]*linkv1.Record{}
	m.Marks = map[replica.DeviceThread]thread.Watermark{}
	m.Refused = map[replica.DeviceKey][]replica.Rejected{}
	for s := range m.Cursors {
		for i := range m.Cursors[s] {
			m.Cursors[s][i] = max(0, m.Cursors[s][i]-topic.Position(back()))
			for _, r := range m.World.Log[s][i][:m.Cursors[s][i]] {
				m.apply(i, r)
			}
		}
	}
}

func (m *Store) apply(i int, r *linkv1.Record) {
	defer func() { _ = recover() }() // a broken fold: as with what cannot be decoded
	subject := topic.Subject(r.GetKey()[:16])
	if m.Dropped.Drops(topic.Folded[i], subject, topic.Position(r.GetPosition())) {
		return
	}
	e, err := event.Decode(r.GetValue())
	if err != nil && m.Newer {
		e, err = read(r.GetValue())
	}
	key := replica.Quarantined{Topic: topic.Folded[i].Number(), Subject: subject}
	switch {
	case errors.Is(err, event.ErrIgnorable):
		return
	case err != nil, len(m.Quarantined[key]) > 0:
		m.Quarantined[key] = append(m.Quarantined[key], r)
		return
	}
	at := topic.Position(r.GetPosition())
	if topic.Folded[i] == topic.Users {
		u := id.UserID(r.GetKey())
		s := m.Users[u]
		if s == nil {
			s = user.New(u)
			m.Users[u] = s
		}
		s.Apply(e, at, r.GetLogTimeMs())
		return
	}
	t := id.ThreadID(r.GetKey()[:16])
	s := m.Threads[t]
	if s == nil {
		s = replica.NewThreadState(t)
		m.Threads[t] = s
	}
	if topic.Folded[i] == topic.Receipts {
		w := thread.WatermarkOf(e.GetWatermarksMoved())
		u, d := e.User, e.Device
		s.Marks[u] = s.Marks[u].Merge(w)
		k := replica.DeviceThread{User: u, Device: d, Thread: t}
		m.Marks[k] = m.Marks[k].Merge(w)
		return
	}
	v := s.Apply(e, at, r.GetLogTimeMs())
	if v.Outcome == thread.Rejected && thread.TellsLater(e) {
		k := replica.DeviceKey{User: e.User, Device: e.Device}
		m.Refused[k] = append(m.Refused[k], replica.Rejected{
			Thread: t, Position: at, User: e.User, Device: e.Device, Message: e.About.ID[:], Reason: v.Reason,
		})
	}
	if v.Outcome != thread.Accepted {
		return
	}
	if e.HasMessageSent() {
		s.Sent[e.User] = replica.Sent{Position: at, Ordinal: v.Ordinal}
	}
	m.Rows[t] = append(m.Rows[t], replica.Row{
		Position: at, Ordinal: v.Ordinal, LogTimeMS: r.GetLogTimeMs(), Event: r.GetValue(),
	})
}

// Drop has the views pass an event over that an operator has dropped: what it has stopped is folded. The caller holds
// World.Mu.
func (m *Store) Drop(d kafka.Release) {
	m.Dropped = m.Dropped.With(d)
	key := replica.Quarantined{Topic: d.Topic.Number(), Subject: d.Subject}
	list := m.Quarantined[key]
	delete(m.Quarantined, key)
	place, _ := d.Topic.Place()
	for _, r := range list {
		m.apply(place, r)
	}
}

// Drain has a newer version fold, which first folds what is in quarantine that it can read. The caller holds World.Mu.
func (m *Store) Drain() {
	m.Newer = true
	for i, t := range topic.Folded {
		for key, list := range m.Quarantined {
			if _, err := read(list[0].GetValue()); err != nil || key.Topic != t.Number() {
				continue
			}
			delete(m.Quarantined, key)
			for _, r := range list {
				m.apply(i, r)
			}
		}
	}
}

// read decodes an event as a newer version does.
func read(value []byte) (*event.Event, error) {
	e, err := event.Decode(value)
	if newer := (*event.NewerError)(nil); errors.As(err, &newer) {
		raw := &eventv1.Event{}
		if err = proto.Unmarshal(value, raw); err == nil {
			e = event.Of(raw)
		}
	}
	return e, err
}

// begin and finish put some time before and after a query, so that the world moves meanwhile.
func (m *Store) begin(ctx context.Context) error {
	m.World.Mu.Lock()
	d := time.Duration(m.World.Rnd.IntN(4)) * time.Millisecond
	m.World.Mu.Unlock()
	wait(ctx, d)
	m.World.Mu.Lock()
	m.Queries++
	if m.Down {
		m.World.Mu.Unlock()
		return errDown
	}
	if err := ctx.Err(); err != nil {
		m.World.Mu.Unlock()
		return err
	}
	return nil
}

func (m *Store) finish(ctx context.Context) error {
	d := time.Duration(m.World.Rnd.IntN(4)) * time.Millisecond
	m.World.Mu.Unlock()
	wait(ctx, d)
	return ctx.Err()
}

// Positions implements replica.Store.
func (m *Store) Positions(ctx context.Context) ([]topic.Cursor, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	at := slices.Clone(m.Cursors)
	return at, m.finish(ctx)
}

// Snapshot implements replica.Store.
func (m *Store) Snapshot(ctx context.Context, threads []id.ThreadID, users []id.UserID) (*replica.Snapshot, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	out := &replica.Snapshot{
		At: slices.Clone(m.Cursors), Threads: map[id.ThreadID]*replica.ThreadState{},
		Users: map[id.UserID]*user.State{}, Quarantined: m.held(threads, users),
	}
	for _, t := range threads {
		if s := m.Threads[t]; s != nil {
			out.Threads[t] = &replica.ThreadState{
				State: s.Clone(),
				Marks: maps.Clone(s.Marks),
				Sent:  maps.Clone(s.Sent),
			}
			m.leaveOut(out.Threads[t])
		}
	}
	for _, u := range users {
		if s := m.Users[u]; s != nil {
			c := s.Clone()
			c.Contacts, c.Blocked = nil, nil
			out.Users[u] = c
		}
	}
	return out, m.finish(ctx)
}

// leaveOut takes the earliest messages of a window out that are too many.
func (m *Store) leaveOut(s *replica.ThreadState) {
	window := slices.SortedFunc(maps.Keys(s.Recent), func(a, b thread.Key) int {
		return cmp.Compare(s.Recent[b].TimeMS, s.Recent[a].TimeMS)
	})
	if m.Recent == 0 || len(window) < m.Recent {
		return
	}
	s.LacksMS = s.Recent[window[m.Recent-1]].TimeMS
	for _, k := range window[m.Recent:] {
		delete(s.State.Recent, k)
	}
}

// Sent implements replica.Store.
func (m *Store) Sent(ctx context.Context, keys []replica.MessageKey) ([]replica.Sought, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	m.Sought += len(keys)
	out := make([]replica.Sought, len(keys))
	for i, k := range keys {
		out[i].Next = m.Cursors[m.World.Slot(topic.Subject(k.Thread))].At(topic.Threads)
		if s := m.Threads[k.Thread]; s != nil {
			if at, ok := s.Recent[k.Key]; ok && at.Position < k.Before {
				out[i].Found, out[i].Seen = true, at
			}
		}
	}
	return out, m.finish(ctx)
}

// Quarantine implements replica.Store.
func (m *Store) Quarantine(
	ctx context.Context, threads []id.ThreadID, users []id.UserID,
) (map[replica.Quarantined]bool, map[topic.Slot]topic.Cursor, error) {
	if err := m.begin(ctx); err != nil {
		return nil, nil, err
	}
	m.Asked++
	at := map[topic.Slot]topic.Cursor{}
	for s, c := range m.Cursors {
		at[topic.Slot(s)] = c
	}
	return m.held(threads, users), at, m.finish(ctx)
}

func (m *Store) held(threads []id.ThreadID, users []id.UserID) map[replica.Quarantined]bool {
	held := map[replica.Quarantined]bool{}
	keys := make([]topic.Subject, 0, len(threads)+len(users))
	for _, t := range threads {
		keys = append(keys, topic.Subject(t))
	}
	for _, u := range users {
		keys = append(keys, topic.Subject(u))
	}
	for _, k := range keys {
		for _, t := range topic.Folded {
			if q := (replica.Quarantined{Topic: t.Number(), Subject: k}); len(m.Quarantined[q]) > 0 {
				held[q] = true
			}
		}
	}
	return held
}

// Delivered implements replica.Store.
func (m *Store) Delivered(ctx context.Context, keys []replica.DeviceThread) ([]topic.Position, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	out := make([]topic.Position, len(keys))
	for i, k := range keys {
		out[i] = -1
		if w, ok := m.Marks[k]; ok && (w.DeliveredPosition != 0 || w.DeliveredOrdinal != 0) {
			out[i] = w.DeliveredPosition
		}
	}
	return out, m.finish(ctx)
}

// Rejected implements replica.Store.
func (m *Store) Rejected(ctx context.Context, keys []replica.DeviceKey) ([][]replica.Rejected, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	out := make([][]replica.Rejected, len(keys))
	for i, k := range keys {
		out[i] = m.Refused[k]
	}
	return out, m.finish(ctx)
}

// Unread implements replica.Store.
func (m *Store) Unread(ctx context.Context, keys []replica.Unread) ([]replica.Counted, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	out := make([]replica.Counted, len(keys))
	for i, k := range keys {
		found, hidden := int64(0), false
		for _, r := range m.Rows[k.Thread] {
			if r.Position == k.First {
				out[i].Past = r.LogTimeMS < k.FloorMS || r.Position < k.From
			}
			e, err := event.Decode(r.Event)
			if err != nil || !e.HasMessageSent() || r.Ordinal <= k.Read || r.Ordinal > k.Last {
				continue
			}
			found++
			switch {
			case r.LogTimeMS < k.FloorMS, r.Position < k.From:
				hidden = true
			case e.User != k.User:
				out[i].Messages++
			}
		}
		if x, ok := m.Trimmed[k.Thread]; !hidden && !(ok && (x.LogTimeMS < k.FloorMS || x.Position < k.From)) {
			out[i].Messages += max(0, k.Most()-found)
		}
	}
	return out, m.finish(ctx)
}

// Tails implements replica.Store.
func (m *Store) Tails(ctx context.Context, ranges []replica.Range) ([]replica.Tail, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	if fn := m.BeforeTails; fn != nil {
		m.BeforeTails = nil
		fn()
	}
	out := make([]replica.Tail, len(ranges))
	for i, r := range ranges {
		out[i].Trimmed = -1
		if x, ok := m.Trimmed[r.Thread]; ok {
			out[i].Trimmed, out[i].TrimmedMS = x.Position, x.LogTimeMS
		}
		out[i].Next = m.Cursors[m.World.Slot(topic.Subject(r.Thread))].At(topic.Threads)
		bytes := 0
		for _, x := range m.Rows[r.Thread] {
			if x.Position > r.After && x.Position <= r.UpTo && x.LogTimeMS >= r.FloorMS && len(out[i].Rows) < r.Limit &&
				bytes < r.Bytes {
				out[i].Rows = append(out[i].Rows, x)
				bytes += len(x.Event)
			}
		}
	}
	return out, m.finish(ctx)
}

// Devices implements replica.Store.
func (m *Store) Devices(ctx context.Context, keys []replica.DeviceKey) ([]*user.Device, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	out := make([]*user.Device, len(keys))
	for i, k := range keys {
		if s := m.Users[k.User]; s != nil && s.Devices[k.Device] != nil {
			d := *s.Devices[k.Device]
			out[i] = &d
		}
	}
	return out, m.finish(ctx)
}

// User returns the nth user.
func User(n byte) id.UserID { return id.User([]byte("key"), string([]byte{n}), 1) }

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
