package replica

import (
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// directThread is a thread of two users who have written so much lately.
func directThread(a, b id.UserID, messages int) *ThreadState {
	s := NewThreadState(id.DirectThread(a, b))
	s.Kind, s.Preview = thread.Direct, "see you at the station"
	for i, u := range []id.UserID{a, b} {
		s.Members[u] = &thread.Member{Role: thread.RoleMember, Spans: []thread.Span{{From: 1_000_000}}}
		s.Marks[u] = thread.Watermark{
			DeliveredPosition: 1_000_100, DeliveredOrdinal: 100, ReadPosition: 1_000_090, ReadOrdinal: 90,
		}
		s.Sent[u] = Sent{1_000_100 - topic.Position(i), int64(100 - i)}
	}
	for i := range messages {
		s.Recent[thread.Key{Sender: a, Message: id.NewMessage()}] = thread.Seen{
			Position: 1_000_100 - topic.Position(i), TimeMS: 1_790_000_000_000 - int64(i), Ordinal: int64(100 - i),
		}
	}
	s.LastPosition, s.LastOrdinal, s.LastTimeMS, s.LastSender = 1_000_100, 100, 1_790_000_000_000, a
	s.Next = 1_000_101
	s.Restore()
	return s
}

// A state that was packed is the same again.
func TestPack(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	user := func() (u id.UserID) {
		for i := range u {
			u[i] = byte(rnd.Uint32())
		}
		return u
	}
	states := []*ThreadState{
		NewThreadState(id.NewGroup()), directThread(user(), user(), 3), directThread(user(), user(), 0),
	}
	for range 200 {
		s := NewThreadState(id.NewGroup())
		num := func() int64 { return rnd.Int64() >> rnd.IntN(64) }
		at := func() topic.Position { return topic.Position(num()) }
		s.Kind, s.Title = thread.Group, string(make([]byte, rnd.IntN(300)))
		s.Preview = string(make([]byte, rnd.IntN(200)))
		for range rnd.IntN(20) {
			u := user()
			m := &thread.Member{Role: thread.RoleAdmin, BaseOrdinal: num(), EndOrdinal: num(), Spans: []thread.Span{}}
			for range rnd.IntN(4) {
				m.Spans = append(m.Spans, thread.Span{From: at(), To: at()})
			}
			s.Members[u] = m
			s.Marks[user()] = thread.Watermark{
				DeliveredPosition: at(), DeliveredOrdinal: num(), ReadPosition: at(), ReadOrdinal: num(),
			}
			s.Sent[u] = Sent{at(), num()}
			s.Invited[user()] = thread.Invitation{By: user(), At: at(), TimeMS: num()}
			s.Recent[thread.Key{Sender: u, Message: id.NewMessage()}] = thread.Seen{
				Position: at(), TimeMS: num(), Ordinal: num(),
			}
		}
		s.Next, s.LastPosition, s.LastOrdinal, s.LastTimeMS, s.LastSender = at(), at(), num(), num(), user()
		s.Restore()
		states = append(states, s)
	}
	for _, want := range states {
		packed := pack(want)
		got := unpack(want.ID, packed)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(thread.State{})); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		if got.ActiveMembers() != want.ActiveMembers() {
			t.Errorf("%d members, want %d", got.ActiveMembers(), want.ActiveMembers())
		}
		if e := (&threadEntry{packed: packed}); e.next() != want.Next {
			t.Errorf("next %d, want %d", e.next(), want.Next)
		}
	}
}

// TestIdleThreadIsSmall measures what a direct thread costs a replica, in use and idle.
func TestIdleThreadIsSmall(t *testing.T) {
	const n = 100_000
	r, err := New(Config{}, (*postgresStore)(nil), nil, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	users := make([]*userEntry, 0, n/10)
	for k := range n {
		if k%10 == 0 {
			users = append(users, &userEntry{id: id.User([]byte("key"), string(rune(k)), 1)})
		}
		u := users[len(users)-1]
		state := directThread(u.id, id.User([]byte("peer"), string(rune(k)), 1), 1)
		s := r.slotOf(topic.Subject(state.ID))
		ts := r.addThread(s, state.ID)
		ts.locals = []*userEntry{u}
		r.hold(ts, state)
		s.turnedLive(&ts.subject, topic.Cursor{})
	}
	warm := (heap() - before) / n
	for _, s := range r.slots {
		for _, w := range s.warm {
			w.thread.packed, w.thread.warm = pack(w.thread.state), nil
		}
		s.warm = nil
	}
	idle := (heap() - before) / n
	t.Logf("a direct thread costs %d bytes in use and %d idle", warm, idle)
	if idle > 400 {
		t.Errorf("an idle thread costs %d bytes", idle)
	}
	runtime.KeepAlive(r)
}
