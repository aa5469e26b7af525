package replica

import (
	"slices"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// Follower is a user whose subject, and whose threads, a replica follows, as it is told of them. Its methods are called
// without any lock of the replica. For the threads of one slot they are called one after the other, in the order in
// which the events were taken in; for those of different slots side by side. They must not block; they may call the
// replica. A call may still come after Unfollow.
type Follower interface {
	// User is who it is.
	User() id.UserID
	// Event tells of an accepted event that he may see. When it made him a member, now is the thread as he sees it at
	// that moment, else nil. The event is shared.
	Event(e *Event, now *Glance)
	// Missed tells that the thread has events that he may see and of which he is not told: those up to a position, as
	// far as he lacks them. It comes before the events after that position. after is up to where the thread had been
	// followed for him before; -1: not at all.
	Missed(t id.ThreadID, after, upTo topic.Position)
	// Late tells that a thread is not followed for now, and why: ErrNoRoom. With nil it is again, and what he was not
	// told of meanwhile was told as missed; only then comes what is new.
	Late(t id.ThreadID, why error)
	// GoesOn tells that a thread that was in quarantine takes events again. What he was not told of meanwhile was told
	// as missed.
	GoesOn(t id.ThreadID)
	// Receipt tells that a watermark has grown: his own, or that of a member to whom he has sent something that it
	// covers and the one before did not; and of each receipt of a device of his, grown or not. The receipt is shared.
	Receipt(r *Receipt)
	// Rejected tells that a message of his was not accepted.
	Rejected(r *Rejected)
	// Invited tells that he was invited into a thread, also once more, or that an invitation of his has ended. The
	// invitation is shared.
	Invited(i *Invitation)
	// Revoked tells that a device of his may no longer be connected.
	Revoked(d id.DeviceID)
}

// Event is an accepted event of a thread.
type Event struct {
	Thread id.ThreadID
	Slot   topic.Slot
	Row
	// Author and Device wrote it.
	Author id.UserID
	Device id.DeviceID

	frame []byte
}

// Frame returns what encode makes of the event; the first follower's counts for all. Only for use within
// Follower.Event.
func (e *Event) Frame(encode func(id.ThreadID, Row) []byte) []byte {
	if e.frame == nil {
		e.frame = encode(e.Thread, e.Row)
	}
	return e.frame
}

// Mark is a member's watermark.
type Mark struct {
	User id.UserID
	thread.Watermark
}

// Receipt is a watermark of a member of a thread that has grown, or a receipt by which none has.
type Receipt struct {
	Thread id.ThreadID
	Device id.DeviceID // whose event it was; zero when it is not known
	// At is where the event lies, and Said what it says of the device.
	At    topic.Position
	Said  thread.Watermark
	User  id.UserID
	Marks []Mark // just one, to be shared; none: the member's watermark has not grown
}

// Rejected is a message that the fold did not accept.
type Rejected struct {
	Thread   id.ThreadID
	Position topic.Position
	User     id.UserID
	Device   id.DeviceID
	Message  []byte
	Reason   thread.Reason
}

// Invitation is one of a user into a thread. Ended: it is none any more, and only the thread is said.
type Invitation struct {
	Thread id.ThreadID
	user.Invitation
	Ended bool
}

// note is something that followers are to be told.
type note struct {
	to   []*userEntry
	news news
}

type news interface{ tell(f Follower) }

type (
	joined struct {
		*Event
		now *Glance
	}
	missed struct {
		thread      id.ThreadID
		after, upTo topic.Position
	}
	late struct {
		thread id.ThreadID
		why    error
	}
	revoked id.DeviceID
	goesOn  id.ThreadID
)

func (e *Event) tell(f Follower)      { f.Event(e, nil) }
func (j joined) tell(f Follower)      { f.Event(j.Event, j.now) }
func (m missed) tell(f Follower)      { f.Missed(m.thread, m.after, m.upTo) }
func (l late) tell(f Follower)        { f.Late(l.thread, l.why) }
func (g goesOn) tell(f Follower)      { f.GoesOn(id.ThreadID(g)) }
func (r *Receipt) tell(f Follower)    { f.Receipt(r) }
func (r *Rejected) tell(f Follower)   { f.Rejected(r) }
func (i *Invitation) tell(f Follower) { f.Invited(i) }
func (d revoked) tell(f Follower)     { f.Revoked(id.DeviceID(d)) }

func (s *slot) note(n news, to ...*userEntry) { s.notes = append(s.notes, note{to, n}) }

// actions are what must be done after a slot's lock was released, because it takes another slot's.
type actions []func()

func (a *actions) add(fn func()) { *a = append(*a, fn) }

// in runs fn under the slot's lock, and then what it left to be done and to be told. It returns before the latter only
// when another goroutine, or a follower further up on this one, is telling: that one tells what was added too.
func (r *Replica) in(s *slot, fn func(after *actions)) {
	var after actions
	s.mu.Lock()
	fn(&after)
	mine := len(s.notes) > 0 && !s.telling
	s.telling = s.telling || mine
	s.mu.Unlock()
	for _, do := range after {
		do()
	}
	if mine {
		r.tell(s)
	}
}

// tell tells followers what is noted, until nothing is. The caller has set telling. What breaks while it tells ends its
// goroutine's work alone: the notes behind it are told by whoever notes next.
func (r *Replica) tell(s *slot) {
	var spent, rest []note
	whole := false
	defer func() {
		if whole {
			return
		}
		s.mu.Lock()
		s.notes = append(slices.Clone(rest), s.notes...)
		s.telling = false
		closed(&s.told)
		s.mu.Unlock()
	}()
	for {
		s.mu.Lock()
		batch := s.notes
		if s.notes = spent; len(batch) == 0 {
			s.telling, whole = false, true
			closed(&s.told)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		for i, n := range batch {
			rest = batch[i+1:]
			if rej, ok := n.news.(*Rejected); ok {
				n.to = r.userOf(rej.User)
			}
			for _, u := range n.to {
				if f := u.follower.Load(); f != nil {
					n.news.tell(*f)
				}
			}
		}
		clear(batch)
		rest, spent = nil, batch[:0]
		if cap(spent) > mostSpent {
			spent = nil
		}
	}
}

// Bounds of what is noted: a link is read on when no more than mostNotes wait, and no more room than for mostSpent is
// kept.
const (
	mostNotes = 4096
	mostSpent = 256
)

// userOf returns a user that is followed here, or nothing.
func (r *Replica) userOf(u id.UserID) []*userEntry {
	s := r.slotOf(topic.Subject(u))
	s.mu.RLock()
	defer s.mu.RUnlock()
	if us := s.users[u]; us != nil {
		return []*userEntry{us}
	}
	return nil
}

// settle waits, when a lot is noted for others to tell, until they have told it.
func (s *slot) settle() {
	s.mu.Lock()
	if len(s.notes) <= mostNotes || !s.telling {
		s.mu.Unlock()
		return
	}
	told := waited(&s.told)
	s.mu.Unlock()
	<-told
}
