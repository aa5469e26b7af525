package replica

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"heliograph/infra/budget"
	"heliograph/infra/kafka"
	"heliograph/infra/link"
	"heliograph/schemas/id"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// phase of a subject's subscription; see the package comment.
type phase uint8

const (
	wanted phase = iota // to be asked for
	asked               // Subscribe is under way
	loading
	live
)

func (p phase) String() string { return [...]string{"wanted", "asked", "loading", "live"}[p] }

// subject is a thread or a user that this edge follows. Guarded by its slot's mu.
type subject struct {
	// Fixed.
	slot   *slot
	key    topic.Subject
	thread *threadEntry // the one of the two that it is
	user   *userEntry

	phase       phase
	gone        bool  // no longer in the slot
	quarantined uint8 // bits by topic number: events of these are dropped
	// the ring holds more events of it than its backlog may: it is subscribed from where the views are
	tooMany bool
	resting bool          // in slot.resting
	isLate  bool          // counted as late
	stopped bool          // it was in quarantine, and is opened anew
	noRoom  bool          // the link had no room for it, and it has not turned live since: its followers were told
	idle    int64         // since when nobody follows it, after Replica.began; 0: somebody does
	news    chan struct{} // closed when it turned live or was taken further; nil while nobody waits
	pending *pending      // nil while it is live
}

// pending is what a subject that is not live waits with.
type pending struct {
	since    time.Time
	request  uint64 // the Subscribe that was sent
	ackedAt  uint64 // slot.progressed when that was answered
	liveFrom topic.Cursor
	bornAt   topic.Position // of a thread: a position before which it has no event, -1 when no such is known
	backlog  backlog
	// Until the views have answered more often than asked it is not asked for: its backlog had no room.
	postponed bool
	asked     uint64
	repeated  bool // asked for again: the answer to any Subscribe will do
	refused   bool // the link has no room for it; asked for again after a while
	refusedAt time.Time
}

type queued struct {
	topic topic.Topic
	rec   *linkv1.Record
}

// threadEntry is a thread that this edge follows.
type threadEntry struct {
	subject
	// Its state is one of the two, or neither until it was live once. An idle thread's is packed: it is all there,
	// since what the views alone had could not be used while they are down.
	*warm
	packed string
	weight int // in bytes, as the budget knows it

	receipts topic.Position // where its last snapshot stood in that topic

	locals []*userEntry // followed users who have it in their list
}

func (t *threadEntry) id() id.ThreadID { return id.ThreadID(t.key) }

// userEntry is a user that this edge follows, or did until just now.
type userEntry struct {
	subject
	id       id.UserID
	state    *user.State // contacts, blocks and titles of invitations are left out
	follower atomic.Pointer[Follower]

	mu      sync.Mutex // guards what follows; taken inside slots' locks
	dead    bool
	threads []*threadEntry // those of which it is a local
}

// slot is the subjects of one slot and who delivers their events.
type slot struct {
	// Fixed.
	n      topic.Slot
	memory *budget.Budget

	mu      sync.RWMutex // guards what follows; no I/O, no other slot's lock and no call out under it
	threads map[id.ThreadID]*threadEntry
	users   map[id.UserID]*userEntry
	waiting map[*subject]struct{} // not live
	resting []rest                // the longest first; each subject once
	warm    []warmth              // the longest first; each thread once
	due     time.Time             // when the agenda has the slot looked at; zero: it does not
	added   chan struct{}         // closed when a thread is added; nil while nobody waits

	// cursor: every live subject has taken in all events before it. It is where they resume.
	cursor  topic.Cursor
	known   bool          // cursor was told by a delivery instance
	further chan struct{} // closed when the cursor goes on; nil while nobody waits

	late    time.Duration // until the reminder after the next; 0: nothing waits
	lateDue time.Time     // the next

	owner      *conn
	changed    time.Time    // when that became the owner
	claims     []*conn      // the links whose instance says that it owns the slot; the last is believed
	read       topic.Cursor // the owner's last Progress
	progressed uint64       // how many it sent
	heard      time.Time    // the last of them
	silent     bool         // in Replica.silent
	requests   map[uint64]request
	// live subjects that are not yet subscribed with this owner; the cursor stands still
	unacked  map[*subject]uint64 // the Subscribe that was sent, 0 before
	toAsk    []*subject
	toResume []*subject
	toDrop   []topic.Subject

	// live threads with events that wait until the views have looked a message up; nil before the first
	doubting map[*threadEntry]struct{}

	judging map[id.ThreadID]*judging // threads with verdicts that somebody waits for; nil before the first

	releases kafka.Releases // what operators have dropped

	rejected topic.Position // the position after the last message that was rejected here

	notes   []note        // what followers are to be told
	telling bool          // a goroutine tells them
	told    chan struct{} // closed when all of notes were told; nil while nobody waits
}

// request is a Subscribe that was sent.
type request struct {
	subjects []*subject
	from     topic.Cursor
	resume   bool
}

func newSlot(n topic.Slot, memory *budget.Budget) *slot {
	return &slot{
		n: n, memory: memory, threads: map[id.ThreadID]*threadEntry{}, users: map[id.UserID]*userEntry{},
		waiting: map[*subject]struct{}{}, unacked: map[*subject]uint64{}, requests: map[uint64]request{},
	}
}

// closed closes a channel that others wait for, if anybody does.
func closed(c *chan struct{}) {
	if *c != nil {
		close(*c)
		*c = nil
	}
}

// waited returns a channel that closed will close.
func waited(c *chan struct{}) <-chan struct{} {
	if *c == nil {
		*c = make(chan struct{})
	}
	return *c
}

func (r *Replica) addThread(s *slot, t id.ThreadID) *threadEntry {
	ts := &threadEntry{}
	ts.subject = subject{slot: s, key: topic.Subject(t), thread: ts}
	s.threads[t] = ts
	closed(&s.added)
	r.ask(s, &ts.subject)
	return ts
}

func (r *Replica) addUser(s *slot, u id.UserID) *userEntry {
	us := &userEntry{id: u}
	us.subject = subject{slot: s, key: topic.Subject(u), user: us}
	s.users[u] = us
	r.ask(s, &us.subject)
	r.listen(s)
	return us
}

// ask queues a subject to be subscribed without a cursor.
func (r *Replica) ask(s *slot, sub *subject) {
	now := &pending{since: time.Now(), bornAt: -1}
	if before := sub.pending; before != nil {
		now.since, now.bornAt = before.since, before.bornAt
		before.backlog.take(r.cfg.Budget)
	}
	sub.phase, sub.pending = wanted, now
	s.waiting[sub] = struct{}{}
	delete(s.unacked, sub)
	r.expect(s)
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
		delete(s.threads, sub.thread.id())
		sub.thread.drop()
		sub.thread.weigh()
	default:
		delete(s.users, sub.user.id)
	}
	delete(s.waiting, sub)
	delete(s.unacked, sub)
	if sub.pending != nil {
		sub.pending.backlog.take(s.memory)
	}
	closed(&sub.news)
	if s.owner != nil && sub.phase != wanted {
		s.toDrop = append(s.toDrop, sub.key)
		s.owner.touch(s)
	}
}

// setOwner makes a link the one that delivers the slot, or none. What the former one had been asked is void.
func (r *Replica) setOwner(s *slot, c *conn) {
	now := time.Now()
	s.owner, s.changed, s.read, s.progressed, s.heard = c, now, topic.Cursor{}, 0, now
	s.requests = map[uint64]request{}
	clear(s.unacked)
	s.toAsk, s.toResume, s.toDrop = nil, nil, nil
	each := func(sub *subject) {
		switch {
		case sub.phase == live:
			s.unacked[sub] = 0
			if c != nil {
				s.toResume = append(s.toResume, sub)
			}
		case sub.pending.postponed:
		default:
			r.ask(s, sub)
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
	if len(s.unacked) > 0 {
		r.expect(s)
	}
	r.listen(s)
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
				if resume {
					s.unacked[sub] = b.Id
				} else {
					sub.phase, sub.pending.request, sub.pending.refused = asked, b.Id, false
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
		case sub.gone || sub.phase != wanted && (sub.phase != asked || !sub.pending.repeated):
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
		closed(&s.further)
	}
}

// turnedLive keeps the cursor's promise for a subject that is live from now on: it has taken in everything before at,
// and before the owner's last Progress if that came after the answer to its Subscribe.
func (s *slot) turnedLive(sub *subject, at topic.Cursor) {
	if s.progressed > sub.pending.ackedAt {
		at = at.Highest(s.read)
	}
	for _, t := range sub.topics() {
		s.cursor.Set(t, min(s.cursor.At(t), at.At(t)))
	}
	sub.phase, sub.tooMany, sub.isLate, sub.pending = live, false, false, nil
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
