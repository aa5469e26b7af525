package replica

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// warm is the state of a thread that was of use lately.
type warm struct {
	state    *ThreadState // stays in use while the thread is loaded anew
	audience []*userEntry // the locals who are members, shared and never changed; nil: to be made
	marks    []Mark       // every member's watermark, shared and never changed; nil: to be made
	used     atomic.Bool  // since it was last looked at
	// Events that wait, in order, until the views have said whether the first of them, a message, has come before; and
	// what they have just said never has.
	doubted backlog
	absent  map[thread.Key]bool
}

// warmth is a thread that was warm at a time.
type warmth struct {
	thread *threadEntry
	since  time.Time
}

// loaded tells whether the thread has a state, packed or not. The caller holds the slot's lock, as for all here.
func (t *threadEntry) loaded() bool { return t.warm != nil || t.packed != "" }

// hold gives a thread a state.
func (r *Replica) hold(t *threadEntry, s *ThreadState) {
	if t.packed = ""; t.warm == nil {
		t.warm = &warm{}
		if t.slot.warm = append(t.slot.warm, warmth{t, time.Now()}); len(t.slot.warm) == 1 {
			r.agenda.set(t.slot, time.Now().Add(r.cfg.Idle))
		}
	}
	t.state, t.audience, t.marks = s, nil, nil
	t.used.Store(true)
	t.weigh()
}

// thaw unpacks the state of a thread that has one, since it is of use now. It needs the slot's lock for writing.
func (r *Replica) thaw(t *threadEntry) {
	switch {
	case t.warm != nil:
		t.use()
	case t.packed != "":
		r.hold(t, unpack(t.id(), t.packed))
	}
}

func (w *warm) use() {
	if !w.used.Load() {
		w.used.Store(true)
	}
}

// renew has the audience of a thread made anew.
func (t *threadEntry) renew() {
	if t.warm != nil {
		t.audience = nil
	}
}

// next is the position after the last event that the thread has taken in.
func (t *threadEntry) next() topic.Position {
	if t.warm != nil {
		return t.state.Next
	}
	n, _ := binary.Varint([]byte(t.packed[:min(len(t.packed), binary.MaxVarintLen64)]))
	return topic.Position(n)
}

// cool packs the states of threads that were of no use for Idle, or up to twice that.
func (r *Replica) cool(s *slot, now time.Time) {
	for n := 0; len(s.warm) > 0; n++ {
		first := s.warm[0]
		if n == mostCooled { // others want the lock too
			r.agenda.set(s, now.Add(time.Millisecond))
			return
		}
		if ends := first.since.Add(r.cfg.Idle); ends.After(now) {
			r.agenda.set(s, ends)
			return
		}
		s.warm = s.warm[1:]
		switch t := first.thread; {
		case t.gone || t.warm == nil:
		case t.used.Swap(false) || t.phase != live || t.quarantined != 0 || t.bulky():
			s.warm = append(s.warm, warmth{t, now})
		default:
			t.packed, t.warm = pack(t.state), nil
			t.weigh()
			r.metrics.packed.Inc()
		}
	}
	s.warm = nil
}

// Bounds of what is done under one hold of a slot's lock.
const (
	mostCooled = 256  // threads
	mostPacked = 4096 // members and recent messages of one: the few threads with more stay as they are
)

// bulky tells whether a thread's state stays as it is: what is packed has all of its window.
func (w *warm) bulky() bool {
	return len(w.state.Members)+len(w.state.Recent) > mostPacked || w.state.Partial()
}

// pack writes a state down in as few bytes as it easily can: each user once, and numbers as varints of how far they are
// from one that is near. It begins with Next.
func pack(s *ThreadState) string {
	b := binary.AppendVarint(make([]byte, 0, 256), int64(s.Next))
	num := func(ns ...int64) {
		for _, n := range ns {
			b = binary.AppendVarint(b, n)
		}
	}
	text := func(v string) { num(int64(len(v))); b = append(b, v...) }
	places := map[id.UserID]int64{}
	var users []id.UserID
	place := func(u id.UserID) int64 {
		p, known := places[u]
		if !known {
			p = int64(len(users))
			places[u], users = p, append(users, u)
		}
		return p
	}
	for u := range s.Members {
		place(u)
	}
	for u := range s.Marks {
		place(u)
	}
	for u := range s.Sent {
		place(u)
	}
	for k := range s.Recent {
		place(k.Sender)
	}
	for u, in := range s.Invited {
		place(u)
		place(in.By)
	}
	last := place(s.LastSender)
	num(int64(len(users)))
	for _, u := range users {
		b = append(b, u[:]...)
	}
	num(int64(s.Kind), int64(s.LastPosition), s.LastOrdinal, s.LastTimeMS, last)
	text(s.Title)
	text(s.Preview)
	num(int64(len(s.Members)))
	for u, m := range s.Members {
		num(place(u), int64(m.Role), m.BaseOrdinal, m.EndOrdinal, int64(len(m.Spans)))
		for _, sp := range m.Spans {
			num(int64(sp.From), int64(sp.To))
		}
	}
	num(int64(len(s.Invited)))
	for u, in := range s.Invited {
		num(place(u), place(in.By), int64(s.LastPosition-in.At), s.LastTimeMS-in.TimeMS)
	}
	num(int64(len(s.Marks)))
	for u, w := range s.Marks {
		num(place(u), int64(s.LastPosition-w.DeliveredPosition), s.LastOrdinal-w.DeliveredOrdinal,
			int64(w.DeliveredPosition-w.ReadPosition), w.DeliveredOrdinal-w.ReadOrdinal)
	}
	num(int64(len(s.Sent)))
	for u, m := range s.Sent {
		num(place(u), int64(s.LastPosition-m.Position), s.LastOrdinal-m.Ordinal)
	}
	num(int64(len(s.Recent)))
	for k, at := range s.Recent {
		b = append(b, k.Message[:]...)
		num(place(k.Sender), int64(s.LastPosition-at.Position), s.LastTimeMS-at.TimeMS, s.LastOrdinal-at.Ordinal)
	}
	return string(b)
}

// unpack reads what pack wrote.
func unpack(t id.ThreadID, packed string) *ThreadState {
	b := []byte(packed)
	num := func() int64 {
		n, size := binary.Varint(b)
		if size <= 0 {
			panic("replica: a packed state is cut off")
		}
		b = b[size:]
		return n
	}
	take := func(n int64) []byte {
		v := b[:n]
		b = b[n:]
		return v
	}
	s := NewThreadState(t)
	s.Next = topic.Position(num())
	users := make([]id.UserID, num())
	for i := range users {
		users[i] = id.UserID(take(id.Size))
	}
	s.Kind, s.LastPosition, s.LastOrdinal = thread.Kind(num()), topic.Position(num()), num()
	s.LastTimeMS, s.LastSender = num(), users[num()]
	s.Title = string(take(num()))
	s.Preview = string(take(num()))
	for range num() {
		u := users[num()]
		m := &thread.Member{Role: thread.Role(num()), BaseOrdinal: num(), EndOrdinal: num()}
		m.Spans = make([]thread.Span, num())
		for i := range m.Spans {
			m.Spans[i] = thread.Span{From: topic.Position(num()), To: topic.Position(num())}
		}
		s.Members[u] = m
	}
	for range num() {
		u := users[num()]
		s.Invited[u] = thread.Invitation{
			By: users[num()], At: s.LastPosition - topic.Position(num()), TimeMS: s.LastTimeMS - num(),
		}
	}
	for range num() {
		u := users[num()]
		w := thread.Watermark{
			DeliveredPosition: s.LastPosition - topic.Position(num()), DeliveredOrdinal: s.LastOrdinal - num(),
		}
		w.ReadPosition, w.ReadOrdinal = w.DeliveredPosition-topic.Position(num()), w.DeliveredOrdinal-num()
		s.Marks[u] = w
	}
	for range num() {
		u := users[num()]
		s.Sent[u] = Sent{s.LastPosition - topic.Position(num()), s.LastOrdinal - num()}
	}
	for range num() {
		k := thread.Key{Message: id.MessageID(take(id.Size))}
		k.Sender = users[num()]
		s.Recent[k] = thread.Seen{
			Position: s.LastPosition - topic.Position(num()),
			TimeMS:   s.LastTimeMS - num(),
			Ordinal:  s.LastOrdinal - num(),
		}
	}
	s.Restore()
	return s
}
