package hub

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	wirev1 "heliograph/schemas/wire/v1"
)

const testSlots = 4

// world is the log, with a clock of its own per record, and the views folded from it with a lag.
type world struct {
	mu      sync.Mutex
	rnd     *rand.Rand
	log     [testSlots][len(topic.Cursor{})][]*linkv1.Record // by place in topic.Folded
	clock   int64
	grown   chan struct{}
	views   memStore
	past    memHistory
	oracles map[id.ThreadID]*oracle
}

// oracle is a thread as the whole log has it.
type oracle struct {
	state    *thread.State
	accepted []row
}

func newWorld(seed uint64) *world {
	w := &world{
		rnd:     rand.New(rand.NewPCG(seed, 1)),
		clock:   1_700_000_000_000,
		grown:   make(chan struct{}),
		oracles: map[id.ThreadID]*oracle{},
	}
	w.views = memStore{
		world: w, threads: map[id.ThreadID]*threadState{}, users: map[id.UserID]*user.State{},
		rows:     map[id.ThreadID][]row{},
		devices_: map[deviceThread]thread.Watermark{}, at: make([]topic.Cursor, testSlots), trimmed: map[id.ThreadID]row{},
	}
	w.past.world = w
	return w
}

func (w *world) slot(s topic.Subject) topic.Slot { return topic.SlotOf(s, testSlots) }

// add appends an event to the log.
func (w *world) add(t topic.Topic, key []byte, e *eventv1.Event) topic.Position {
	v, err := proto.Marshal(e)
	if err != nil {
		panic(err)
	}
	return w.addRaw(t, key, v)
}

func (w *world) addRaw(t topic.Topic, key, value []byte) topic.Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.slot(topic.Subject(key[:16]))
	i := t.Number() - 1
	w.clock += 5
	at := topic.Position(len(w.log[s][i]))
	w.log[s][i] = append(
		w.log[s][i], linkv1.Record_builder{Position: int64(at), LogTimeMs: w.clock, Key: key, Value: value}.Build(),
	)
	if t == topic.Threads {
		th := id.ThreadID(key)
		o := w.oracles[th]
		if o == nil {
			o = &oracle{state: thread.New(th)}
			w.oracles[th] = o
		}
		if e, err := event.Decode(value); err == nil {
			if v := o.state.Apply(e, at, w.clock); v.Outcome == thread.Accepted {
				o.accepted = append(o.accepted, row{at, v.Ordinal, w.clock, value})
			}
		}
	}
	close(w.grown)
	w.grown = make(chan struct{})
	return at
}

func (w *world) end(s topic.Slot) topic.Cursor {
	var c topic.Cursor
	for i := range c {
		c[i] = topic.Position(len(w.log[s][i]))
	}
	return c
}

// The events that the tests write.

func (w *world) register(u id.UserID, d id.DeviceID, generation uint32) int64 {
	w.add(
		topic.Users,
		u[:],
		eventv1.Event_builder{UserId: u[:], DeviceId: d[:], UserRegistered: eventv1.UserRegistered_builder{
			PhoneHash: u[:], Generation: generation, DeviceId: d[:], PublicKey: make([]byte, 32), DeviceName: "d",
		}.Build()}.Build(),
	)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

func (w *world) linkDevice(u id.UserID, by, d id.DeviceID) {
	w.add(
		topic.Users,
		u[:],
		eventv1.Event_builder{UserId: u[:], DeviceId: by[:], DeviceLinked: eventv1.DeviceLinked_builder{
			DeviceId: d[:], PublicKey: make([]byte, 32), DeviceName: "d",
		}.Build()}.Build(),
	)
}

func (w *world) revoke(u id.UserID, d id.DeviceID) {
	w.add(
		topic.Users,
		u[:],
		eventv1.Event_builder{
			UserId:        u[:],
			DeviceRevoked: eventv1.DeviceRevoked_builder{DeviceId: d[:]}.Build(),
		}.Build(),
	)
}

// join lists a thread for users; since below 0: it is not new.
func (w *world) join(t id.ThreadID, since topic.Position, users ...id.UserID) {
	for _, u := range users {
		w.add(topic.Users, u[:], eventv1.Event_builder{UserId: u[:], ThreadJoined: eventv1.ThreadJoined_builder{
			ThreadId: t[:], NewThread: since >= 0, SincePosition: int64(max(since, 0)),
		}.Build()}.Build())
	}
}

func (w *world) next(t id.ThreadID) topic.Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.end(w.slot(topic.Subject(t))).At(topic.Threads)
}

func (w *world) create(t id.ThreadID, by id.UserID, members ...id.UserID) {
	var raw [][]byte
	for _, m := range members {
		raw = append(raw, m[:])
	}
	w.add(
		topic.Threads,
		t[:],
		eventv1.Event_builder{
			UserId:        by[:],
			ThreadCreated: eventv1.ThreadCreated_builder{Title: "g", MemberIds: raw}.Build(),
		}.Build(),
	)
}

func (w *world) addMember(t id.ThreadID, by, m id.UserID) {
	w.add(
		topic.Threads,
		t[:],
		eventv1.Event_builder{
			UserId:      by[:],
			MemberAdded: eventv1.MemberAdded_builder{MemberIds: [][]byte{m[:]}}.Build(),
		}.Build(),
	)
}

func (w *world) removeMember(t id.ThreadID, by, m id.UserID) topic.Position {
	return w.add(
		topic.Threads,
		t[:],
		eventv1.Event_builder{
			UserId:        by[:],
			MemberRemoved: eventv1.MemberRemoved_builder{MemberId: m[:]}.Build(),
		}.Build(),
	)
}

func (w *world) send(t id.ThreadID, by id.UserID, d id.DeviceID, m id.MessageID, peer id.UserID) topic.Position {
	content, _ := proto.Marshal(eventv1.Content_builder{Text: "hello"}.Build())
	b := eventv1.MessageSent_builder{MessageId: m[:], Content: eventv1.Sealed_builder{Data: content}.Build()}
	if !peer.IsZero() {
		b.DirectPeer = peer[:]
	}
	return w.add(
		topic.Threads, t[:], eventv1.Event_builder{UserId: by[:], DeviceId: d[:], MessageSent: b.Build()}.Build(),
	)
}

func (w *world) watermark(t id.ThreadID, u id.UserID, d id.DeviceID, wm thread.Watermark) {
	w.add(
		topic.Receipts,
		slices.Concat(t[:], d[:]),
		eventv1.Event_builder{UserId: u[:], DeviceId: d[:], WatermarksMoved: eventv1.WatermarksMoved_builder{
			DeliveredPosition: int64(wm.DeliveredPosition), DeliveredOrdinal: wm.DeliveredOrdinal,
			ReadPosition: int64(wm.ReadPosition), ReadOrdinal: wm.ReadOrdinal,
		}.Build()}.Build(),
	)
}

// memStore is the thread views in memory. Guarded by world.mu.
type memStore struct {
	world    *world
	at       []topic.Cursor
	threads  map[id.ThreadID]*threadState
	users    map[id.UserID]*user.State
	rows     map[id.ThreadID][]row
	trimmed  map[id.ThreadID]row // the greatest position and log time
	devices_ map[deviceThread]thread.Watermark
	down     bool
	stopped  bool // folds nothing
	queries  int
	// beforeTails is called once, before the next answer to tails. It may call crash.
	beforeTails func()
}

var errDown = errors.New("the store is down")

// fold takes in up to n more events of each topic and slot.
func (m *memStore) fold(n int) {
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	if m.down || m.stopped {
		return
	}
	for s := range m.at {
		for i := range m.at[s] {
			list := m.world.log[s][i]
			for range n {
				at := m.at[s][i]
				if int(at) >= len(list) {
					break
				}
				m.at[s][i]++
				m.apply(i, list[at])
			}
		}
	}
}

// trim removes, of the rows with a log time before cutoffMS, those that goes says, as a statement does that takes a
// limited number of them. The caller holds world.mu.
func (m *memStore) trim(cutoffMS int64, goes func() bool) {
	for t, rows := range m.rows {
		m.rows[t] = slices.DeleteFunc(rows, func(r row) bool {
			if r.logTimeMS >= cutoffMS || !goes() {
				return false
			}
			x, ok := m.trimmed[t]
			if !ok || x.position < r.position {
				x.position = r.position
			}
			x.logTimeMS = max(x.logTimeMS, r.logTimeMS)
			m.trimmed[t] = x
			return true
		})
	}
}

// memHistory is the history in memory: all of the log, save what it is behind. Guarded by world.mu.
type memHistory struct {
	world  *world
	down   bool
	hangs  bool           // does not answer
	behind topic.Position // events of each slot that it has not got
	shaky  bool           // fails now and then
	asked  int
}

func (m *memHistory) Events(
	ctx context.Context, t id.ThreadID, after, upTo topic.Position, floorMS int64, limit int,
) ([]*wirev1.Event, error) {
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	m.asked++
	if m.hangs {
		m.world.mu.Unlock()
		<-ctx.Done()
		m.world.mu.Lock()
		return nil, context.Cause(ctx)
	}
	if m.down || m.shaky && m.world.rnd.IntN(4) == 0 {
		return nil, errDown
	}
	if m.world.end(m.world.slot(topic.Subject(t))).At(topic.Threads)-m.behind <= upTo {
		return nil, errors.New("the history is behind")
	}
	var out []*wirev1.Event
	for _, r := range m.world.oracles[t].accepted {
		if r.position > after && r.position <= upTo && r.logTimeMS >= floorMS && len(out) < limit {
			out = append(out, wirev1.Event_builder{
				ThreadId: t[:], Position: int64(r.position), Ordinal: r.ordinal, LogTimeMs: r.logTimeMS, Event: r.event,
			}.Build())
		}
	}
	return out, ctx.Err()
}

// crash takes the views back by up to back events of each topic and slot, as a crash of Postgres does. The caller holds
// world.mu.
func (m *memStore) crash(back func() int) {
	m.threads, m.users, m.rows = map[id.ThreadID]*threadState{}, map[id.UserID]*user.State{}, map[id.ThreadID][]row{}
	m.devices_ = map[deviceThread]thread.Watermark{}
	for s := range m.at {
		for i := range m.at[s] {
			m.at[s][i] = max(0, m.at[s][i]-topic.Position(back()))
			for _, r := range m.world.log[s][i][:m.at[s][i]] {
				m.apply(i, r)
			}
		}
	}
}

func (m *memStore) apply(i int, r *linkv1.Record) {
	defer func() { _ = recover() }() // a broken fold: as with what cannot be decoded
	e, err := event.Decode(r.GetValue())
	if err != nil {
		return
	}
	at := topic.Position(r.GetPosition())
	if topic.Folded[i] == topic.Users {
		u := id.UserID(r.GetKey())
		s := m.users[u]
		if s == nil {
			s = user.New(u)
			m.users[u] = s
		}
		s.Apply(e, at, r.GetLogTimeMs())
		return
	}
	t := id.ThreadID(r.GetKey()[:16])
	s := m.threads[t]
	if s == nil {
		s = newThreadState(t)
		m.threads[t] = s
	}
	if topic.Folded[i] == topic.Receipts {
		w := thread.WatermarkOf(e.GetWatermarksMoved())
		u, d := e.User, e.Device
		s.watermarks[u] = s.watermarks[u].Merge(w)
		k := deviceThread{u, d, t}
		m.devices_[k] = m.devices_[k].Merge(w)
		return
	}
	v := s.Apply(e, at, r.GetLogTimeMs())
	if v.Outcome != thread.Accepted {
		return
	}
	if e.HasMessageSent() {
		s.sent[e.User] = sentAt{at, v.Ordinal}
	}
	m.rows[t] = append(m.rows[t], row{at, v.Ordinal, r.GetLogTimeMs(), r.GetValue()})
}

// begin and finish put some time before and after a query, so that the world moves meanwhile.
func (m *memStore) begin(ctx context.Context) error {
	m.world.mu.Lock()
	d := time.Duration(m.world.rnd.IntN(4)) * time.Millisecond
	m.world.mu.Unlock()
	sleep(ctx, d)
	m.world.mu.Lock()
	m.queries++
	if m.down {
		m.world.mu.Unlock()
		return errDown
	}
	return ctx.Err()
}

func (m *memStore) finish(ctx context.Context) error {
	d := time.Duration(m.world.rnd.IntN(4)) * time.Millisecond
	m.world.mu.Unlock()
	sleep(ctx, d)
	return ctx.Err()
}

func (m *memStore) positions(ctx context.Context) ([]topic.Cursor, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	at := slices.Clone(m.at)
	return at, m.finish(ctx)
}

func (m *memStore) snapshot(ctx context.Context, threads []id.ThreadID, users []id.UserID) (*snapshot, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	out := &snapshot{
		at:      slices.Clone(m.at),
		threads: map[id.ThreadID]*threadState{},
		users:   map[id.UserID]*user.State{},
	}
	for _, t := range threads {
		if s := m.threads[t]; s != nil {
			out.threads[t] = &threadState{
				State:      s.Clone(),
				watermarks: maps.Clone(s.watermarks),
				sent:       maps.Clone(s.sent),
			}
		}
	}
	for _, u := range users {
		if s := m.users[u]; s != nil {
			c := s.Clone()
			c.Contacts, c.Blocked = nil, nil
			out.users[u] = c
		}
	}
	return out, m.finish(ctx)
}

func (m *memStore) cursors(ctx context.Context, keys []deviceThread) ([]topic.Position, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	out := make([]topic.Position, len(keys))
	for i, k := range keys {
		out[i] = -1
		if w, ok := m.devices_[k]; ok && (w.DeliveredPosition != 0 || w.DeliveredOrdinal != 0) {
			out[i] = w.DeliveredPosition
		}
	}
	return out, m.finish(ctx)
}

func (m *memStore) tails(ctx context.Context, ranges []tailRange) ([]tail, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	if fn := m.beforeTails; fn != nil {
		m.beforeTails = nil
		fn()
	}
	out := make([]tail, len(ranges))
	for i, r := range ranges {
		out[i].trimmed = -1
		if x, ok := m.trimmed[r.thread]; ok {
			out[i].trimmed, out[i].trimmedMS = x.position, x.logTimeMS
		}
		out[i].next = m.at[m.world.slot(topic.Subject(r.thread))].At(topic.Threads)
		bytes := 0
		for _, x := range m.rows[r.thread] {
			if x.position > r.after && x.position <= r.upTo && x.logTimeMS >= r.floorMS && len(out[i].rows) < r.limit &&
				bytes < r.bytes {
				out[i].rows = append(out[i].rows, x)
				bytes += len(x.event)
			}
		}
	}
	return out, m.finish(ctx)
}

func (m *memStore) devices(ctx context.Context, keys []userDevice) ([]*user.Device, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	out := make([]*user.Device, len(keys))
	for i, k := range keys {
		if s := m.users[k.user]; s != nil && s.Devices[k.device] != nil {
			d := *s.Devices[k.device]
			out[i] = &d
		}
	}
	return out, m.finish(ctx)
}

func userID(n byte) id.UserID {
	u := id.User([]byte("key"), string([]byte{n}), 1)
	return u
}

func mustBe(t *testing.T, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}
