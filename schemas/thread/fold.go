package thread

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// Outcome is what the fold made of an event.
type Outcome int8

// The outcomes.
const (
	// Accepted: the event is part of the thread.
	Accepted Outcome = iota
	// Stale: the event lies before State.Next and was applied already. Nothing changed.
	Stale
	// Duplicate: the message was accepted before, at Verdict.Original. Nothing changed.
	Duplicate
	// Rejected: the event has no effect, for Verdict.Reason.
	Rejected
)

// Reason of a rejection; a closed set, fit for a metric label.
type Reason string

// The reasons.
const (
	// NotMember: the acting user is not a member at this position.
	NotMember Reason = "not_member"
	// NotAdmin: the acting user is not an admin at this position.
	NotAdmin Reason = "not_admin"
	// Malformed: a field breaks the schema's rules.
	Malformed Reason = "malformed"
	// Exists: the thread exists already, or the user is a member already.
	Exists Reason = "exists"
	// Missing: the thread or the member does not exist.
	Missing Reason = "missing"
	// NotInvited: the user is not invited at this position.
	NotInvited Reason = "not_invited"
	// Full: the group would have more than its rules allow.
	Full Reason = "full"
	// WrongKind: the event does not fit the kind of thread.
	WrongKind Reason = "wrong_kind"
	// Unknown: an event of a type that does not belong in a thread.
	Unknown Reason = "unknown"
)

// Verdict is what the fold made of an event and what changed.
type Verdict struct {
	Outcome Outcome
	Reason  Reason // of a rejection
	// Ordinal is the message's own for an accepted message, else that of the last message before.
	Ordinal int64
	// Original is where a duplicate was accepted first.
	Original Seen
	// Members are those whose row changed.
	Members []id.UserID
	// Invited are those whose invitation came, changed or ended.
	Invited []id.UserID
}

func reject(r Reason) Verdict { return Verdict{Outcome: Rejected, Reason: r} }

// Apply folds one event of helio.threads into the state. logTimeMS is the record's timestamp in Unix milliseconds. The
// event is not kept.
func (s *State) Apply(e *event.Event, at topic.Position, logTimeMS int64) Verdict {
	if at < s.Next {
		return Verdict{Outcome: Stale}
	}
	s.Next = at + 1
	v := s.apply(e, at, logTimeMS)
	if v.Outcome == Accepted {
		s.LastPosition = at
		v.Ordinal = s.LastOrdinal
	}
	return v
}

func (s *State) apply(e *event.Event, at topic.Position, logTimeMS int64) Verdict {
	if err := Check(e); err != nil {
		return reject(Malformed)
	}
	r := RulesOf(e.Rules)
	switch e.WhichBody() {
	case eventv1.Event_MessageSent_case:
		return s.messageSent(e, at, logTimeMS)
	case eventv1.Event_MessageEdited_case, eventv1.Event_MessageDeleted_case, eventv1.Event_ReactionSet_case:
		return s.change(e)
	case eventv1.Event_ThreadCreated_case:
		return s.created(e.User, e.GetThreadCreated(), r, at)
	case eventv1.Event_ThreadRenamed_case:
		if v, ok := s.admin(e.User); !ok {
			return v
		}
		s.Title = e.GetThreadRenamed().GetTitle()
		return Verdict{}
	case eventv1.Event_MemberAdded_case:
		return s.added(e.User, idsOf(e.GetMemberAdded().GetMemberIds()), r, at)
	case eventv1.Event_MemberInvited_case:
		return s.invited(e.User, idsOf(e.GetMemberInvited().GetMemberIds()), r, at, logTimeMS)
	case eventv1.Event_InvitationAccepted_case:
		return s.accepted(e.User, r, at)
	case eventv1.Event_InvitationDeclined_case:
		return s.uninvited(e.User, NotInvited)
	case eventv1.Event_InvitationWithdrawn_case:
		if v, ok := s.admin(e.User); !ok {
			return v
		}
		return s.uninvited(id.UserID(e.GetInvitationWithdrawn().GetMemberId()), Missing)
	case eventv1.Event_MemberRemoved_case:
		return s.removed(e.User, id.UserID(e.GetMemberRemoved().GetMemberId()), at)
	case eventv1.Event_MemberLeft_case:
		return s.left(e.User, at)
	case eventv1.Event_RoleChanged_case:
		c := e.GetRoleChanged()
		return s.roleChanged(e.User, id.UserID(c.GetMemberId()), Role(c.GetRole()))
	default:
		return reject(Unknown)
	}
}

func (s *State) messageSent(e *event.Event, at topic.Position, logTimeMS int64) Verdict {
	actor := e.User
	key := Key{Sender: actor, Message: e.About.ID}
	now := max(s.counted(e, logTimeMS), s.LastTimeMS)
	if seen, ok := s.Recent[key]; ok && repeats(e, seen, now, logTimeMS) {
		return Verdict{Outcome: Duplicate, Original: seen}
	}
	var touched []id.UserID
	switch {
	case s.Kind == None:
		peer, err := id.From[id.UserID](e.GetMessageSent().GetDirectPeer())
		if err != nil || peer.IsZero() || id.DirectThread(actor, peer) != s.ID {
			return reject(NotMember)
		}
		s.Kind = Direct
		s.join(actor, RoleMember, at)
		touched = append(touched, actor)
		if peer != actor {
			s.join(peer, RoleMember, at)
			touched = append(touched, peer)
		}
	case !s.IsMember(actor):
		return reject(NotMember)
	}
	s.LastOrdinal++
	s.LastTimeMS = now
	s.LastSender = actor
	s.Preview = preview(e.Content, RulesOf(e.Rules).MaxPreview)
	s.Recent[key] = Seen{Position: at, TimeMS: logTimeMS, Ordinal: s.LastOrdinal}
	s.prune()
	return Verdict{Members: touched}
}

// counted is how much of the stamp of a message counts. A stamp that is ahead of the time would make the thread forget
// what it has seen, so by rules from countsStamps on it counts for at most MaxAhead beyond the thread's clock, or
// beyond the moment in the message's own id, which its author's device has made: that of a thread that was idle is late
// too.
func (s *State) counted(e *event.Event, logTimeMS int64) int64 {
	if e.Rules < countsStamps {
		return logTimeMS
	}
	return min(logTimeMS, max(s.LastTimeMS, e.About.ID.Time().UnixMilli())+MaxAhead.Milliseconds())
}

// repeats tells whether a message is one that was seen, on the thread's clock with this message taken in. What is
// Forget before its own stamp is not: no view need have it any more.
func repeats(e *event.Event, seen Seen, now, logTimeMS int64) bool {
	return now-seen.TimeMS <= Window.Milliseconds() &&
		(e.Rules < countsStamps || logTimeMS-seen.TimeMS <= Forget.Milliseconds())
}

// change judges an edit, a deletion or a reaction: by members; another's message is edited by nobody and deleted only
// by an admin.
func (s *State) change(e *event.Event) Verdict {
	if !s.IsMember(e.User) {
		return reject(NotMember)
	}
	admin := s.Members[e.User].Role == RoleAdmin
	if e.About.Author != e.User && (e.HasMessageEdited() || e.HasMessageDeleted() && !admin) {
		return reject(NotAdmin)
	}
	return Verdict{}
}

func (s *State) created(actor id.UserID, c *eventv1.ThreadCreated, r *Rules, at topic.Position) Verdict {
	switch {
	case s.Kind != None:
		return reject(Exists)
	case !s.ID.IsGroup():
		return reject(WrongKind)
	}
	members := idsOf(c.GetMemberIds())
	if len(members)+1 > r.MaxMembers {
		return reject(Full)
	}
	s.Kind = Group
	s.Title = c.GetTitle()
	s.join(actor, RoleAdmin, at)
	touched := []id.UserID{actor}
	for _, u := range members {
		if !s.IsMember(u) {
			s.join(u, RoleMember, at)
			touched = append(touched, u)
		}
	}
	return Verdict{Members: touched}
}

// admin judges whether the actor may change the group.
func (s *State) admin(actor id.UserID) (Verdict, bool) {
	switch {
	case s.Kind == None:
		return reject(Missing), false
	case s.Kind != Group:
		return reject(WrongKind), false
	case !s.IsMember(actor):
		return reject(NotMember), false
	case s.Members[actor].Role != RoleAdmin:
		return reject(NotAdmin), false
	}
	return Verdict{}, true
}

func (s *State) added(actor id.UserID, members []id.UserID, r *Rules, at topic.Position) Verdict {
	if v, ok := s.admin(actor); !ok {
		return v
	}
	fresh := without(members, s.IsMember)
	switch {
	case len(fresh) == 0:
		return reject(Exists)
	case s.active+len(fresh) > r.MaxMembers:
		return reject(Full)
	}
	v := Verdict{Members: fresh}
	for _, u := range fresh {
		if _, ok := s.Invited[u]; ok {
			v.Invited = append(v.Invited, u)
		}
		s.join(u, RoleMember, at)
	}
	return v
}

// invited judges an invitation. Whose is open it leaves as it is, so that nobody is asked anew by a retry.
func (s *State) invited(
	actor id.UserID, users []id.UserID, r *Rules, at topic.Position, logTimeMS int64,
) Verdict {
	if v, ok := s.admin(actor); !ok {
		return v
	}
	fresh := without(users, func(u id.UserID) bool {
		_, open := s.Invited[u]
		return open || s.IsMember(u)
	})
	switch {
	case len(fresh) == 0:
		return reject(Exists)
	case len(s.Invited)+len(fresh) > r.MaxInvited:
		return reject(Full)
	}
	for _, u := range fresh {
		s.Invited[u] = Invitation{By: actor, At: at, TimeMS: logTimeMS}
	}
	return Verdict{Invited: fresh}
}

// accepted judges the acceptance of an invitation.
func (s *State) accepted(actor id.UserID, r *Rules, at topic.Position) Verdict {
	_, open := s.Invited[actor]
	switch {
	case s.IsMember(actor):
		return reject(Exists)
	case !open:
		return reject(NotInvited)
	case s.active >= r.MaxMembers:
		return reject(Full)
	}
	s.join(actor, RoleMember, at)
	return Verdict{Members: []id.UserID{actor}, Invited: []id.UserID{actor}}
}

// uninvited ends an invitation; without one it is rejected for none.
func (s *State) uninvited(u id.UserID, none Reason) Verdict {
	if _, open := s.Invited[u]; !open {
		return reject(none)
	}
	delete(s.Invited, u)
	return Verdict{Invited: []id.UserID{u}}
}

// without returns users in their order, each once, but for those that skip names.
func without(users []id.UserID, skip func(id.UserID) bool) []id.UserID {
	var out []id.UserID
	seen := map[id.UserID]bool{}
	for _, u := range users {
		if !seen[u] && !skip(u) {
			seen[u] = true
			out = append(out, u)
		}
	}
	return out
}

func (s *State) removed(actor, u id.UserID, at topic.Position) Verdict {
	if v, ok := s.admin(actor); !ok {
		return v
	}
	if !s.IsMember(u) {
		return reject(Missing)
	}
	return s.end(u, at)
}

func (s *State) left(actor id.UserID, at topic.Position) Verdict {
	switch {
	case s.Kind == None:
		return reject(Missing)
	case s.Kind != Group:
		return reject(WrongKind)
	case !s.IsMember(actor):
		return reject(NotMember)
	}
	return s.end(actor, at)
}

// end ends a membership. A group that would be left without an admin makes its longest-standing member one (the smaller
// id among equals), so that no group is ever beyond help; into one that nobody is left in nobody is invited any more.
// The rule reads only the state, so every fold does the same.
func (s *State) end(u id.UserID, at topic.Position) Verdict {
	s.leave(u, at)
	touched := []id.UserID{u}
	var heir id.UserID
	var since topic.Position
	for w, m := range s.Members {
		if !m.Active() {
			continue
		}
		if m.Role == RoleAdmin {
			return Verdict{Members: touched}
		}
		from := m.Spans[len(m.Spans)-1].From
		if heir.IsZero() || from < since || from == since && less(w, heir) {
			heir, since = w, from
		}
	}
	if heir.IsZero() {
		return Verdict{Members: touched, Invited: s.closed()}
	}
	s.Members[heir].Role = RoleAdmin
	return Verdict{Members: append(touched, heir)}
}

// closed ends all invitations of a group that nobody is left in, and returns whose they were, in order.
func (s *State) closed() []id.UserID {
	whose := slices.SortedFunc(maps.Keys(s.Invited), func(a, b id.UserID) int { return bytes.Compare(a[:], b[:]) })
	clear(s.Invited)
	return whose
}

func (s *State) roleChanged(actor, u id.UserID, role Role) Verdict {
	if v, ok := s.admin(actor); !ok {
		return v
	}
	if !s.IsMember(u) {
		return reject(Missing)
	}
	if u == actor && role == RoleMember {
		for w, m := range s.Members {
			if w != u && m.Active() && m.Role == RoleAdmin {
				s.Members[u].Role = role
				return Verdict{Members: []id.UserID{u}}
			}
		}
		return reject(NotAdmin) // the last admin stays one
	}
	s.Members[u].Role = role
	return Verdict{Members: []id.UserID{u}}
}

func less(a, b id.UserID) bool { return string(a[:]) < string(b[:]) }

// idsOf reads ids that Check has let through.
func idsOf(raw [][]byte) []id.UserID {
	out := make([]id.UserID, len(raw))
	for i, b := range raw {
		out[i] = id.UserID(b)
	}
	return out
}

// preview is the beginning of a message, cut between code points: folds know nothing of characters as people see them.
func preview(c event.Content, most int) string {
	t := c.Text
	if len(t) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(t[cut]) {
			cut--
		}
		t = t[:cut]
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == '\t' {
			return ' '
		}
		if r == 0 { // no text column takes it
			return -1
		}
		return r
	}, t)
}
