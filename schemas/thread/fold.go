package thread

import (
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

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
	// Full: the group would have more than MaxMembers.
	Full Reason = "full"
	// WrongKind: the event does not fit the kind of thread.
	WrongKind Reason = "wrong_kind"
	// Unknown: an event type that this version does not know.
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
}

func reject(r Reason) Verdict { return Verdict{Outcome: Rejected, Reason: r} }

// Apply folds one event of helio.threads into the state. logTimeMS is the record's timestamp in Unix milliseconds. The
// event is not kept.
func (s *State) Apply(e *eventv1.Event, at topic.Position, logTimeMS int64) Verdict {
	if at < s.Next {
		return Verdict{Outcome: Stale}
	}
	s.Next = at + 1
	v := s.apply(e, at, logTimeMS)
	if v.Outcome == Accepted {
		s.LastPosition = at
		v.Ordinal = s.LastOrdinal
	}
	if fn := trip.Load(); fn != nil {
		(*fn)(e)
	}
	return v
}

func (s *State) apply(e *eventv1.Event, at topic.Position, logTimeMS int64) Verdict {
	actor, err := id.From[id.UserID](e.GetUserId())
	if err != nil || actor.IsZero() {
		return reject(Malformed)
	}
	switch e.WhichBody() {
	case eventv1.Event_MessageSent_case:
		return s.messageSent(actor, e.GetMessageSent(), at, logTimeMS)
	case eventv1.Event_MessageEdited_case:
		m := e.GetMessageEdited()
		return s.change(actor, m.GetMessageId(), nil, checkSealed(m.GetContent()))
	case eventv1.Event_MessageDeleted_case:
		m := e.GetMessageDeleted()
		return s.change(actor, m.GetMessageId(), m.GetAuthorId(), true)
	case eventv1.Event_ReactionSet_case:
		m := e.GetReactionSet()
		_, err := id.From[id.UserID](m.GetAuthorId())
		return s.change(
			actor, m.GetMessageId(), nil, err == nil && len(m.GetEmoji()) <= MaxEmoji && utf8.ValidString(m.GetEmoji()),
		)
	case eventv1.Event_ThreadCreated_case:
		return s.created(actor, e.GetThreadCreated(), at)
	case eventv1.Event_ThreadRenamed_case:
		if v, ok := s.admin(actor); !ok {
			return v
		}
		title := e.GetThreadRenamed().GetTitle()
		if !ValidTitle(title) {
			return reject(Malformed)
		}
		s.Title = title
		return Verdict{}
	case eventv1.Event_MemberAdded_case:
		return s.added(actor, e.GetMemberAdded().GetMemberIds(), at)
	case eventv1.Event_MemberRemoved_case:
		return s.removed(actor, e.GetMemberRemoved().GetMemberId(), at)
	case eventv1.Event_MemberLeft_case:
		return s.left(actor, at)
	case eventv1.Event_RoleChanged_case:
		return s.roleChanged(actor, e.GetRoleChanged())
	default:
		return reject(Unknown)
	}
}

func (s *State) messageSent(actor id.UserID, m *eventv1.MessageSent, at topic.Position, logTimeMS int64) Verdict {
	mid, err := id.From[id.MessageID](m.GetMessageId())
	if err != nil || !mid.Valid() || !checkSealed(m.GetContent()) {
		return reject(Malformed)
	}
	if r := m.GetReplyTo(); len(r) != 0 && len(r) != id.Size {
		return reject(Malformed)
	}
	key := Key{Sender: actor, Message: mid}
	now := max(logTimeMS, s.LastTimeMS)
	if seen, ok := s.Recent[key]; ok && now-seen.TimeMS <= Window.Milliseconds() {
		return Verdict{Outcome: Duplicate, Original: seen}
	}
	var touched []id.UserID
	switch {
	case s.Kind == None:
		peer, err := id.From[id.UserID](m.GetDirectPeer())
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
	s.Preview = preview(m.GetContent())
	s.Recent[key] = Seen{Position: at, TimeMS: logTimeMS, Ordinal: s.LastOrdinal}
	s.prune()
	return Verdict{Members: touched}
}

// change judges an edit, a deletion or a reaction: by members, on a message named by author and id; another's only by
// an admin.
func (s *State) change(actor id.UserID, message, author []byte, valid bool) Verdict {
	mid, err := id.From[id.MessageID](message)
	if err != nil || !mid.Valid() || !valid {
		return reject(Malformed)
	}
	if !s.IsMember(actor) {
		return reject(NotMember)
	}
	if len(author) != 0 {
		a, err := id.From[id.UserID](author)
		if err != nil {
			return reject(Malformed)
		}
		if a != actor && s.Members[actor].Role != RoleAdmin {
			return reject(NotAdmin)
		}
	}
	return Verdict{}
}

func (s *State) created(actor id.UserID, c *eventv1.ThreadCreated, at topic.Position) Verdict {
	switch {
	case s.Kind != None:
		return reject(Exists)
	case !s.ID.IsGroup():
		return reject(WrongKind)
	case !ValidTitle(c.GetTitle()):
		return reject(Malformed)
	}
	members, ok := idsOf(c.GetMemberIds())
	if !ok {
		return reject(Malformed)
	}
	if len(members)+1 > MaxMembers {
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

func (s *State) added(actor id.UserID, raw [][]byte, at topic.Position) Verdict {
	if v, ok := s.admin(actor); !ok {
		return v
	}
	members, ok := idsOf(raw)
	if !ok || len(members) == 0 {
		return reject(Malformed)
	}
	var fresh []id.UserID
	seen := map[id.UserID]bool{}
	for _, u := range members {
		if !s.IsMember(u) && !seen[u] {
			seen[u] = true
			fresh = append(fresh, u)
		}
	}
	switch {
	case len(fresh) == 0:
		return reject(Exists)
	case s.active+len(fresh) > MaxMembers:
		return reject(Full)
	}
	for _, u := range fresh {
		s.join(u, RoleMember, at)
	}
	return Verdict{Members: fresh}
}

func (s *State) removed(actor id.UserID, raw []byte, at topic.Position) Verdict {
	if v, ok := s.admin(actor); !ok {
		return v
	}
	u, err := id.From[id.UserID](raw)
	if err != nil {
		return reject(Malformed)
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
// id among equals), so that no group is ever beyond help; the rule reads only the state, so every fold does the same.
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
	if !heir.IsZero() {
		s.Members[heir].Role = RoleAdmin
		touched = append(touched, heir)
	}
	return Verdict{Members: touched}
}

func (s *State) roleChanged(actor id.UserID, c *eventv1.RoleChanged) Verdict {
	if v, ok := s.admin(actor); !ok {
		return v
	}
	u, err := id.From[id.UserID](c.GetMemberId())
	role := Role(c.GetRole())
	if err != nil || role != RoleMember && role != RoleAdmin {
		return reject(Malformed)
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

func idsOf(raw [][]byte) ([]id.UserID, bool) {
	if len(raw) > MaxMembers {
		return nil, false
	}
	out := make([]id.UserID, len(raw))
	for i, b := range raw {
		u, err := id.From[id.UserID](b)
		if err != nil || u.IsZero() {
			return nil, false
		}
		out[i] = u
	}
	return out, true
}

// ValidTitle tells whether a text can be a group's title: 1 to MaxTitle bytes of UTF-8 without control characters that
// are not all blank.
func ValidTitle(t string) bool {
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	return len(t) <= MaxTitle && utf8.ValidString(t) && !strings.ContainsFunc(t, control) && strings.TrimSpace(t) != ""
}

// checkSealed tells whether content keeps to the limits and, when plain, can be read.
func checkSealed(c *eventv1.Sealed) bool {
	if c == nil || len(c.GetData()) > MaxSealed || len(c.GetNonce()) > 32 {
		return false
	}
	if c.GetKeyId() != 0 {
		return true
	}
	_, ok := Text(c)
	return ok
}

// Text opens plain content: its text, and whether it is plain, well formed and not too long.
func Text(c *eventv1.Sealed) (string, bool) {
	if c.GetKeyId() != 0 {
		return "", false
	}
	var content eventv1.Content
	if err := proto.Unmarshal(c.GetData(), &content); err != nil {
		return "", false
	}
	t := content.GetText()
	return t, len(t) <= MaxText && utf8.ValidString(t)
}

func preview(c *eventv1.Sealed) string {
	t, ok := Text(c)
	if !ok {
		return ""
	}
	if len(t) > MaxPreview {
		cut := MaxPreview
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
