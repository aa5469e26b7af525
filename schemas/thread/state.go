package thread

import (
	"maps"
	"math"
	"slices"
	"time"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// Limits of threads and messages by the current rules: what is written now keeps to them. The folds judge by the rules
// of each event; see Rules.
const (
	// MaxMembers is the most members that a group has at one time.
	MaxMembers = 1024
	// MaxInvited is the most users that are invited into a group at one time.
	MaxInvited = 256
	// MaxText is the longest text of a message in bytes.
	MaxText = 64 << 10
	// MaxTitle is the longest title in bytes.
	MaxTitle = 1024
	// MaxSealed is the longest Sealed.data in bytes: a text of MaxText and room for the encoding and a seal.
	MaxSealed = MaxText + 1024
	// MaxEmoji is the longest reaction in bytes.
	MaxEmoji = 64
)

// What every version does alike, whatever the rules.
const (
	// MaxPreview is the most bytes of a message that the state keeps for thread lists: more than they show, so that
	// they can be cut between characters as people see them.
	MaxPreview = 224
	// Window is how long, in log time, a repeated message id counts as a retry.
	Window = 24 * time.Hour
	// MaxAhead is how far ahead of its thread's clock, or of the moment in the message's id, a stamp counts.
	MaxAhead = 5 * time.Minute
	// Forget is how long before its own stamp a message is not looked for: every view keeps what is younger. One whose
	// edge's clock is no more ahead than Forget less Window is still found.
	Forget = 36 * time.Hour
)

// Kind of a thread. The numbers are stored.
type Kind int16

// The kinds of threads.
const (
	// None: no event has begun the thread.
	None Kind = 0
	// Direct is a thread of two users.
	Direct Kind = 1
	// Group is a thread with a title, roles and changing members.
	Group Kind = 2
)

// Role of a member. The numbers are stored and are those of eventv1.Role.
type Role int16

// The roles.
const (
	// RoleMember reads and writes.
	RoleMember Role = 1
	// RoleAdmin also changes the group.
	RoleAdmin Role = 2
)

// Span is a stretch of membership: From is the position of the event that began it, To of the one that ended it, 0
// while it lasts. A member sees the events in [From, To], both ends included: the end is news to him too.
type Span struct {
	From, To topic.Position
}

// Member of a thread, now or formerly.
type Member struct {
	Role  Role
	Spans []Span // in order, disjoint; only the last may be open
	// BaseOrdinal is the ordinal of the last message before the last span began: messages up to it are not unread to
	// him.
	BaseOrdinal int64
	// EndOrdinal is the ordinal of the last message when the last span ended; 0 while it lasts.
	EndOrdinal int64
}

// Unread names the messages of a thread that a member has not read, his own among them, which no count of unread
// messages has: those with ordinals in (Read, Last], which lie at positions after After.
type Unread struct {
	After      topic.Position
	Read, Last int64
}

// Most is the number of these messages, his own among them.
func (u Unread) Most() int64 { return max(0, u.Last-u.Read) }

// Unread returns what the member has not read, given the thread's last ordinal and his watermark: nothing from before
// his last span or after its end. His watermark need not have reached what he has sent himself.
func (m *Member) Unread(last int64, w Watermark) Unread {
	if !m.Active() {
		last = m.EndOrdinal
	}
	u := Unread{After: m.Spans[len(m.Spans)-1].From - 1, Read: m.BaseOrdinal, Last: last}
	if w.ReadOrdinal > u.Read {
		u.After, u.Read = w.ReadPosition, w.ReadOrdinal
	}
	return u
}

// Active tells whether the membership lasts.
func (m *Member) Active() bool {
	return m != nil && len(m.Spans) > 0 && m.Spans[len(m.Spans)-1].To == 0
}

// Sees tells whether the member may see the event at a position.
func (m *Member) Sees(p topic.Position) bool {
	if m == nil {
		return false
	}
	for _, s := range m.Spans {
		if p >= s.From && (s.To == 0 || p <= s.To) {
			return true
		}
	}
	return false
}

// Invitation into a group. It does not end by itself.
type Invitation struct {
	By     id.UserID
	At     topic.Position
	TimeMS int64 // log time, Unix milliseconds
}

// Key names a message among those of its thread.
type Key struct {
	Sender  id.UserID
	Message id.MessageID
}

// Seen is where and when (Unix milliseconds of log time) a message was accepted.
type Seen struct {
	Position topic.Position
	TimeMS   int64
	Ordinal  int64
}

// State of a thread. The zero value, with its maps made by New, is a thread that no event has begun.
type State struct {
	ID      id.ThreadID
	Kind    Kind
	Title   string
	Members map[id.UserID]*Member
	// Invited are those who may become members by themselves; none of them is one.
	Invited map[id.UserID]Invitation
	// Next is the position after the last event that was applied, accepted or not. A state loaded from a store takes
	// the store's position.
	Next topic.Position
	// LastPosition is the position of the last accepted event.
	LastPosition topic.Position
	// LastOrdinal is the number of accepted messages.
	LastOrdinal int64
	// LastTimeMS is the highest log time of an accepted message in Unix milliseconds, as far as it counts (MaxAhead), 0
	// before the first. It is the thread's clock, so it never goes back, although the stamps of a log whose producers
	// make them may.
	LastTimeMS int64
	// LastSender sent the last accepted message.
	LastSender id.UserID
	// Preview is the beginning of the last accepted message's text; empty when it is sealed.
	Preview string
	// Recent holds the messages accepted within Window, for the rule on retries; of a state that was loaded with few of
	// them or none, also those applied since and those looked up since (see Unsure).
	Recent map[Key]Seen

	active int // members now
	pruned int64
	lacks  int64 // unless 0: Recent may lack messages with log times up to this one
}

// New returns the state of a thread that no event has begun.
func New(t id.ThreadID) *State {
	return &State{
		ID: t, Members: map[id.UserID]*Member{}, Invited: map[id.UserID]Invitation{}, Recent: map[Key]Seen{},
	}
}

// Unloaded returns a state that a store is about to fill without its recent messages. Until it is restored it is Unsure
// of every message.
func Unloaded(t id.ThreadID) *State {
	s := New(t)
	s.lacks = math.MaxInt64
	return s
}

// Restore must be called once after the exported fields were filled from a store: it counts what the fold keeps for
// itself.
func (s *State) Restore() {
	s.active, s.lacks = 0, 0
	for _, m := range s.Members {
		if m.Active() {
			s.active++
		}
	}
}

// RestorePartly does what Restore does for a state of whose recent messages only those were all loaded that have later
// log times than lacksMS: Unsure tells which to look up. With none loaded that is the latest log time of them all,
// which may be ahead of the thread's clock.
func (s *State) RestorePartly(lacksMS int64) {
	s.Restore()
	s.lacks = max(1, lacksMS)
}

// Partial tells whether Recent may lack messages that could come again.
func (s *State) Partial() bool { return s.lacks != 0 && s.LastTimeMS-s.lacks <= Window.Milliseconds() }

// Unsure returns the key of the message that e sends when Recent cannot tell whether it was accepted before. The key
// must then be looked up among what the store holds of the thread from before e's batch, and what is found be put into
// Recent, before e is applied; messages older than Window before LastTimeMS may be left out. Of several with one key
// the one at the highest position counts: an earlier one was out of the window when that was accepted, and stays so, or
// has a log time from before that.
func (s *State) Unsure(e *event.Event) (Key, bool) {
	if !s.Partial() || e.WhichBody() != eventv1.Event_MessageSent_case {
		return Key{}, false
	}
	key := Key{Sender: e.User, Message: e.About.ID}
	_, known := s.Recent[key]
	return key, !e.About.IsZero() && !known
}

// ActiveMembers is the number of members now.
func (s *State) ActiveMembers() int { return s.active }

// Member returns a member, or nil when the user never was one.
func (s *State) Member(u id.UserID) *Member { return s.Members[u] }

// IsMember tells whether the user is a member now.
func (s *State) IsMember(u id.UserID) bool { return s.Members[u].Active() }

// Peer returns the other member of a direct thread (the user himself in a thread with himself).
func (s *State) Peer(u id.UserID) id.UserID {
	for m := range s.Members {
		if m != u {
			return m
		}
	}
	return u
}

// Clone returns a deep copy.
func (s *State) Clone() *State {
	c := *s
	c.Members = make(map[id.UserID]*Member, len(s.Members))
	for u, m := range s.Members {
		copied := *m
		copied.Spans = slices.Clone(m.Spans)
		c.Members[u] = &copied
	}
	c.Invited, c.Recent = maps.Clone(s.Invited), maps.Clone(s.Recent)
	return &c
}

// prune forgets messages that have left the window, by the thread's clock and at most once an hour of it, so that it
// costs nothing per message. What it forgets could not be found any more, so when it runs makes no difference to any
// verdict.
func (s *State) prune() {
	if s.LastTimeMS-s.pruned < time.Hour.Milliseconds() {
		return
	}
	s.pruned = s.LastTimeMS
	maps.DeleteFunc(s.Recent, func(_ Key, at Seen) bool { return s.LastTimeMS-at.TimeMS > Window.Milliseconds() })
}

func (s *State) join(u id.UserID, r Role, at topic.Position) {
	m := s.Members[u]
	if m == nil {
		m = &Member{}
		s.Members[u] = m
	}
	m.Role = r
	m.Spans = append(m.Spans, Span{From: at})
	m.BaseOrdinal, m.EndOrdinal = s.LastOrdinal, 0
	s.active++
	delete(s.Invited, u)
}

func (s *State) leave(u id.UserID, at topic.Position) {
	m := s.Members[u]
	m.Spans[len(m.Spans)-1].To = at
	m.Role = RoleMember
	m.EndOrdinal = s.LastOrdinal
	s.active--
}

// Counted is the thread's clock as a message that was just accepted has left it: what a store that finds the clock from
// rows keeps with the message, since the highest of a thread is LastTimeMS.
func (s *State) Counted(e *event.Event, logTimeMS int64) int64 {
	if e.Rules < countsStamps {
		return logTimeMS
	}
	return s.LastTimeMS
}

// Watermark is how far a device, or the highest of a user's devices, has got in a thread.
type Watermark struct {
	DeliveredPosition topic.Position
	DeliveredOrdinal  int64
	ReadPosition      topic.Position
	ReadOrdinal       int64
}

// Receipt reads an event of helio.receipts by its record's key: whose it is and what it says, never below 0. False: it
// breaks a rule and has no effect. The key names the thread, the device and, but for records of versions before, the
// user; what the event says of them must be the same, or it could be compacted away as another's.
func Receipt(k event.Key, e *event.Event) (id.UserID, Watermark, bool) {
	if e.User.IsZero() || !e.HasWatermarksMoved() || !k.User.IsZero() && k.User != e.User {
		return id.UserID{}, Watermark{}, false
	}
	if d := e.GetDeviceId(); len(d) != 0 && string(d) != string(k.Device[:]) {
		return id.UserID{}, Watermark{}, false
	}
	return e.User, Watermark{}.Merge(WatermarkOf(e.GetWatermarksMoved())), true
}

// WatermarkOf reads the event.
func WatermarkOf(e *eventv1.WatermarksMoved) Watermark {
	return Watermark{
		DeliveredPosition: topic.Position(e.GetDeliveredPosition()), DeliveredOrdinal: e.GetDeliveredOrdinal(),
		ReadPosition: topic.Position(e.GetReadPosition()), ReadOrdinal: e.GetReadOrdinal(),
	}
}

// Merge returns the higher of two watermarks, field by field: it is commutative, associative and idempotent, so order
// and repetition do not matter.
func (w Watermark) Merge(o Watermark) Watermark {
	return Watermark{
		DeliveredPosition: max(w.DeliveredPosition, o.DeliveredPosition),
		DeliveredOrdinal:  max(w.DeliveredOrdinal, o.DeliveredOrdinal),
		ReadPosition:      max(w.ReadPosition, o.ReadPosition),
		ReadOrdinal:       max(w.ReadOrdinal, o.ReadOrdinal),
	}
}
