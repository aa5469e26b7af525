package hub

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"heliograph/infra/link"
	"heliograph/schemas/id"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// phase of a subject's subscription.
type phase uint8

const (
	wanted phase = iota // to be asked for
	asked               // Subscribe is under way
	// live_from is known; waits for a snapshot that reaches it, and holds the events that come meanwhile
	loading
	live
)

// subject is a thread or a user that this edge is interested in. Guarded by its slot's mu.
type subject struct {
	// Fixed.
	slot   *slot
	key    topic.Subject
	thread *threadSub // the one of the two that it is
	user   *userSub

	phase    phase
	gone     bool   // no longer in the slot
	poisoned uint8  // bits by topic number: events of these are dropped
	request  uint64 // the Subscribe that it waits for, or that made it what it is
	ackedAt  uint64 // slot.progressed when that was answered
	liveFrom topic.Cursor
	held     []held        // by arrival
	news     chan struct{} // closed when it turned live or, a user, changed; nil while nobody waits
	asking   time.Time     // since when it is not live
	// the ring holds more events of it than it may hold: it is subscribed from where the views are
	tooMany  bool
	parkedAt uint64 // viewClock.asked when it was parked
}

type held struct {
	topic topic.Topic
	rec   *linkv1.Record
}

// threadSub is a thread of interest.
type threadSub struct {
	subject
	id     id.ThreadID
	state  *threadState // nil until it was live once; stays in use while it is loaded anew
	locals []*userSub   // users of this edge who have it in their list
	// bornAt is a position before which the thread has no event, -1 when no such is known.
	bornAt topic.Position
	all    []*memberMark // every member's watermark, made when asked for
}

// userSub is a user of interest: one with sessions here, or who had some until just now.
type userSub struct {
	subject
	id      id.UserID
	state   *user.State // contacts and blocks are left out
	clients atomic.Pointer[[]*client]

	mu      sync.Mutex // guards what follows; taken inside slots' locks
	dead    bool
	threads map[id.ThreadID]*threadSub
}

func (u *userSub) sessions() []*client {
	if p := u.clients.Load(); p != nil {
		return *p
	}
	return nil
}

// slot is the subjects of one slot and who delivers their events.
type slot struct {
	// Fixed.
	n topic.Slot

	mu      sync.RWMutex // guards what follows; no I/O and no other slot's lock under it
	threads map[id.ThreadID]*threadSub
	users   map[id.UserID]*userSub
	waiting map[*subject]struct{}  // not live
	idle    map[*subject]time.Time // without interest, since when
	parked  []*subject             // wanted, but not before the views were asked again

	// cursor: every live subject has taken in all events before it. It is where they resume.
	cursor  topic.Cursor
	known   bool          // cursor was told by a delivery instance
	further chan struct{} // closed when the cursor goes on; nil while nobody waits

	owner      *conn
	read       topic.Cursor // the owner's last Progress
	progressed uint64       // how many it sent
	heard      time.Time    // the last of them
	requests   map[uint64]request
	// live subjects that are not yet subscribed with this owner; the cursor stands still
	unacked  map[*subject]struct{}
	toAsk    []*subject
	toResume []*subject
	toDrop   []topic.Subject
}

// request is a Subscribe that was sent.
type request struct {
	subjects []*subject
	from     topic.Cursor
	resume   bool
}

// actions are what must be done after a slot's lock was released, because it takes other locks or calls out.
type actions []func()

func (a *actions) add(fn func()) { *a = append(*a, fn) }

func (a actions) run() {
	for _, fn := range a {
		fn()
	}
}

func newSlot(n topic.Slot) *slot {
	return &slot{
		n: n, threads: map[id.ThreadID]*threadSub{}, users: map[id.UserID]*userSub{}, waiting: map[*subject]struct{}{},
		idle:    map[*subject]time.Time{},
		unacked: map[*subject]struct{}{}, requests: map[uint64]request{},
	}
}

// changed returns a channel that is closed at the next news of the subject.
func (sub *subject) changed() <-chan struct{} {
	if sub.news == nil {
		sub.news = make(chan struct{})
	}
	return sub.news
}

func (sub *subject) tell() {
	if sub.news != nil {
		close(sub.news)
		sub.news = nil
	}
}

func (s *slot) addThread(t id.ThreadID) *threadSub {
	ts := &threadSub{id: t, bornAt: -1}
	ts.subject = subject{slot: s, key: topic.Subject(t), thread: ts, asking: time.Now()}
	s.threads[t] = ts
	s.ask(&ts.subject)
	return ts
}

func (s *slot) addUser(u id.UserID) *userSub {
	us := &userSub{id: u, threads: map[id.ThreadID]*threadSub{}}
	us.subject = subject{slot: s, key: topic.Subject(u), user: us, asking: time.Now()}
	s.users[u] = us
	s.ask(&us.subject)
	return us
}

// ask queues a subject to be subscribed without a cursor.
func (s *slot) ask(sub *subject) {
	if sub.phase == live {
		sub.asking = time.Now()
	}
	sub.phase, sub.held = wanted, nil
	s.waiting[sub] = struct{}{}
	delete(s.unacked, sub)
	if s.owner != nil {
		s.toAsk = append(s.toAsk, sub)
		s.owner.touch(s)
	}
}

// remove ends the interest in a subject.
func (s *slot) remove(sub *subject) {
	if sub.gone {
		return
	}
	sub.gone = true
	switch {
	case sub.thread != nil:
		delete(s.threads, sub.thread.id)
	default:
		delete(s.users, sub.user.id)
	}
	delete(s.waiting, sub)
	delete(s.idle, sub)
	delete(s.unacked, sub)
	sub.held = nil
	sub.tell()
	if s.owner != nil && sub.phase != wanted {
		s.toDrop = append(s.toDrop, sub.key)
		s.owner.touch(s)
	}
}

// setOwner makes a link the one that delivers the slot, or none. What the former one had been asked is void.
func (s *slot) setOwner(c *conn) {
	s.owner, s.read, s.progressed, s.heard = c, topic.Cursor{}, 0, time.Now()
	s.requests = map[uint64]request{}
	clear(s.unacked)
	s.toAsk, s.toResume, s.toDrop = nil, nil, nil
	each := func(sub *subject) {
		switch {
		case sub.phase == live:
			s.unacked[sub] = struct{}{}
			if c != nil {
				s.toResume = append(s.toResume, sub)
			}
		case slices.Contains(s.parked, sub):
		default:
			s.ask(sub)
		}
	}
	for _, t := range s.threads {
		each(&t.subject)
	}
	for _, u := range s.users {
		each(&u.subject)
	}
	if c != nil {
		c.touch(s)
	}
}

// frames takes what is to be written to the owner, at most max subjects to a frame. nextID makes request ids; the views
// are at the position views.
func (s *slot) frames(c *conn, max int, views topic.Cursor, nextID func() uint64) []*linkv1.ToDelivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner != c {
		return nil
	}
	var out []*linkv1.ToDelivery
	for part := range slices.Chunk(s.toDrop, max) {
		u := linkv1.Unsubscribe_builder{Slot: int32(s.n)}
		for _, k := range part {
			u.Subjects = append(u.Subjects, k[:])
		}
		out = append(out, linkv1.ToDelivery_builder{Unsubscribe: u.Build()}.Build())
	}
	subscribe := func(list []*subject, resume bool, from *topic.Cursor) {
		for part := range slices.Chunk(list, max) {
			r := request{subjects: part, resume: resume}
			b := linkv1.Subscribe_builder{Id: nextID(), Slot: int32(s.n)}
			if from != nil {
				r.from = *from
				b.From = link.EncodeCursor(*from)
			}
			for _, sub := range part {
				sub.request = b.Id
				if !resume {
					sub.phase = asked
				}
				b.Subjects = append(b.Subjects, sub.key[:])
			}
			s.requests[b.Id] = r
			out = append(out, linkv1.ToDelivery_builder{Subscribe: b.Build()}.Build())
		}
	}
	var resume, fresh, late []*subject
	for _, sub := range s.toResume {
		if _, unacked := s.unacked[sub]; unacked && !sub.gone {
			resume = append(resume, sub)
		}
	}
	for _, sub := range s.toAsk {
		switch {
		case sub.gone || sub.phase != wanted:
		case sub.tooMany:
			late = append(late, sub)
		default:
			fresh = append(fresh, sub)
		}
	}
	subscribe(resume, true, &s.cursor)
	subscribe(fresh, false, nil)
	subscribe(late, false, &views)
	s.toDrop, s.toResume, s.toAsk = nil, nil, nil
	return out
}

// progress takes in how far the owner has sent the slot.
func (s *slot) progress(next topic.Cursor) {
	s.read, s.heard = next, time.Now()
	s.progressed++
	if len(s.unacked) == 0 {
		s.cursor, s.known = s.cursor.Highest(next), true
		if s.further != nil {
			close(s.further)
			s.further = nil
		}
	}
}

// turnedLive keeps the cursor's promise for a subject that is live from now on: it has taken in everything before at,
// and before the owner's last Progress if that came after the answer to its Subscribe.
func (s *slot) turnedLive(sub *subject, at topic.Cursor) {
	if s.progressed > sub.ackedAt {
		at = at.Highest(s.read)
	}
	for _, t := range sub.topics() {
		s.cursor.Set(t, min(s.cursor.At(t), at.At(t)))
	}
	sub.phase, sub.tooMany = live, false
	delete(s.waiting, sub)
}

// topics tells which topics the subject has events in.
func (sub *subject) topics() []topic.Topic {
	if sub.thread != nil {
		return threadTopics
	}
	return userTopics
}

var (
	threadTopics = []topic.Topic{topic.Threads, topic.Receipts}
	userTopics   = []topic.Topic{topic.Users}
)
