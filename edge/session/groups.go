package session

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"heliograph/edge/auth"
	"heliograph/edge/replica"
	"heliograph/edge/wording"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// maxLookup is how many users one query takes.
const maxLookup = 200

// group returns a group of which the session's user is a member, and an admin when that is needed.
func (s *Session) group(ctx context.Context, raw []byte, admin bool) (id.ThreadID, View, error) {
	t, err := threadID(raw)
	if err != nil {
		return t, View{}, err
	}
	v, err := s.member(ctx, t)
	switch {
	case err != nil:
		return t, v, err
	case v.Kind != thread.Group:
		return t, v, wire.Errorf(wirev1.Code_CODE_NOT_ALLOWED, "not a group")
	case admin && v.Roster.Role(s.user) != thread.RoleAdmin:
		return t, v, wire.Errorf(wirev1.Code_CODE_NOT_ALLOWED, "only admins may do that")
	}
	return t, v, nil
}

func titleOf(raw string) (string, error) {
	t, err := wording.Title(raw)
	switch {
	case errors.Is(err, wording.ErrLong):
		return "", wire.Errorf(wirev1.Code_CODE_TOO_LARGE, "title is longer than %d characters or %d bytes",
			wording.TitleChars, thread.MaxTitle)
	case err != nil:
		return "", invalid("title is %v", err)
	}
	return t, nil
}

// users reads a list of user ids, without repetitions and without those that skip names.
func users(raw [][]byte, skip func(id.UserID) bool) ([]id.UserID, error) {
	if len(raw) > 2*thread.MaxMembers {
		return nil, fullGroup()
	}
	seen := map[id.UserID]bool{}
	var out []id.UserID
	for _, b := range raw {
		u, err := userID("member_ids", b)
		if err != nil {
			return nil, err
		}
		if !seen[u] && !skip(u) {
			seen[u] = true
			out = append(out, u)
		}
	}
	return out, nil
}

// mayJoin judges by its rate whether the session may put n users into a group.
func (s *Session) mayJoin(n int) error {
	s.mu.Lock()
	if s.joins == nil {
		s.joins = rate.NewLimiter(rate.Limit(s.srv.cfg.JoinRate), max(s.srv.cfg.JoinBurst, thread.MaxMembers))
	}
	lim := s.joins
	s.mu.Unlock()
	r := lim.ReserveN(time.Now(), n)
	wait := r.Delay()
	if wait == 0 {
		return nil
	}
	r.Cancel()
	return &wire.Error{Code: wirev1.Code_CODE_RATE_LIMITED, Message: "too many users put into groups", RetryAfter: wait}
}

// spend takes n of what the session's user may do in a day (wire 7.12).
func (s *Session) spend(ctx context.Context, what auth.Spending, n int) error {
	if n == 0 {
		return nil
	}
	_, err := inTurn(ctx, s.asking, func() (struct{}, error) {
		return struct{}{}, s.srv.auth.Spend(ctx, s.user, what, n)
	})
	return err
}

// mayAdd judges whether the session's user may put some users into a group (wire 7.13): they exist, and none of them
// has blocked him, lets nobody add him, or is in too many threads. Which of these it is, is not told; but a client that
// can invite them in place of that is told all of them. To be told so costs as many additions as are named, of what he
// may do in a day, and nothing else: so nobody finds out without end who has blocked him.
func (s *Session) mayAdd(ctx context.Context, members []id.UserID) error {
	if err := s.allExist(ctx, members); err != nil {
		return err
	}
	not, err := s.asking.Unaddable(ctx, s.user, append([]id.UserID{s.user}, members...))
	switch {
	case err != nil:
		return err
	case len(not) > 0 && not[0] == s.user:
		return tooMany()
	}
	if !s.invites {
		not = not[:min(1, len(not))]
	}
	if err := s.spend(ctx, auth.Additions, len(not)); err != nil {
		return err
	}
	switch {
	case len(not) > 0 && s.invites:
		return &wire.Error{
			Code: wirev1.Code_CODE_NOT_ADDABLE, Message: "some users cannot be added, but be invited", Users: not,
		}
	case len(not) > 0:
		return wire.Errorf(wirev1.Code_CODE_NOT_ALLOWED, "user %s cannot be added", not[0])
	}
	return nil
}

func tooMany() *wire.Error {
	return wire.Errorf(wirev1.Code_CODE_NOT_ALLOWED, "a user is in at most %d threads", user.MaxThreads)
}

func fullGroup() *wire.Error {
	return wire.Errorf(wirev1.Code_CODE_GROUP_FULL, "a group has at most %d members", thread.MaxMembers)
}

func rawUsers(users []id.UserID) [][]byte {
	out := make([][]byte, len(users))
	for k := range users {
		out[k] = users[k][:]
	}
	return out
}

// was is the ack of a request that was done before: a place by which the thread has it.
func (s *Session) was(t id.ThreadID, v View) wirev1.ServerFrame_builder {
	return ack(t, nil, topic.SlotOf(topic.Subject(t), s.srv.cfg.Partitions), v.LastPosition, 0)
}

func (s *Session) createGroup(ctx context.Context, r *wirev1.CreateGroup) (wirev1.ServerFrame_builder, error) {
	var none wirev1.ServerFrame_builder
	t, err := threadID(r.GetThreadId())
	if err != nil {
		return none, err
	}
	if !t.IsGroup() {
		return none, invalid("thread_id is not a UUIDv7")
	}
	title, err := titleOf(r.GetTitle())
	if err != nil {
		return none, err
	}
	members, err := users(r.GetMemberIds(), func(u id.UserID) bool { return u == s.user })
	if err != nil {
		return none, err
	}
	if len(members)+1 > thread.MaxMembers {
		return none, fullGroup()
	}
	// Whoever has it already gets what he got then; others pay before this edge loads anything.
	if v, known := s.srv.replica.View(t); known && !v.Quarantined && v.Roster.IsMember(s.user) {
		return s.was(t, v), nil
	}
	if err := s.mayJoin(len(members)); err != nil {
		return none, err
	}
	if err := s.mayAdd(ctx, members); err != nil {
		return none, err
	}
	if err := s.spend(ctx, auth.Groups, 1); err != nil {
		return none, err
	}
	// A group's id is anybody's word. That it is unused only the thread's own state can tell: one that is merely not
	// known at this edge, announced as new, would be taken for empty by every edge without it, and who announced it for
	// its creator.
	if err := s.srv.replica.EnsureThread(ctx, t); err != nil {
		return none, err
	}
	since := s.cursor(t)
	switch v, ok := s.srv.replica.View(t); {
	case !ok:
		return none, wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "the thread cannot be looked at now")
	case v.Quarantined && (v.Roster.IsMember(s.user) || s.srv.replica.Listed(s.user, t)):
		return none, parked()
	case v.Kind == thread.None && !v.Quarantined:
	case v.Roster.IsMember(s.user):
		return s.was(t, v), nil // repeating is safe
	default:
		return none, wire.Errorf(wirev1.Code_CODE_CONFLICT, "the thread id cannot be used: make another")
	}
	if err := s.spend(ctx, auth.Additions, len(members)); err != nil {
		return none, err
	}
	if err := s.join(ctx, t, append([]id.UserID{s.user}, members...), since); err != nil {
		return none, err
	}
	out, err := s.appendThread(ctx, t, eventv1.Event_builder{
		ThreadCreated: eventv1.ThreadCreated_builder{Title: title, MemberIds: rawUsers(members)}.Build(),
	})
	if errors.Is(err, rejection{thread.Exists}) { // somebody was faster, another device of the user's perhaps
		if err := s.notAdded(ctx, t, append([]id.UserID{s.user}, members...)); err != nil {
			return none, err
		}
		if v, ok := s.srv.replica.View(t); ok && v.Roster.IsMember(s.user) {
			return s.was(t, v), nil
		}
		return none, wire.Errorf(wirev1.Code_CODE_CONFLICT, "the thread id was used before")
	}
	if err != nil {
		return none, err
	}
	s.srv.metrics.begun.Inc()
	return out, nil
}

func (s *Session) addMembers(ctx context.Context, r *wirev1.AddMembers) (wirev1.ServerFrame_builder, error) {
	var none wirev1.ServerFrame_builder
	t, v, err := s.group(ctx, r.GetThreadId(), true)
	if err != nil {
		return none, err
	}
	if len(r.GetMemberIds()) == 0 {
		return none, invalid("member_ids is empty")
	}
	fresh, err := users(r.GetMemberIds(), v.Roster.IsMember)
	if err != nil {
		return none, err
	}
	if len(fresh) == 0 {
		return s.was(t, v), nil
	}
	if v.ActiveMembers+len(fresh) > thread.MaxMembers {
		return none, fullGroup()
	}
	if err := s.mayJoin(len(fresh)); err != nil {
		return none, err
	}
	if err := s.mayAdd(ctx, fresh); err != nil {
		return none, err
	}
	if err := s.spend(ctx, auth.Additions, len(fresh)); err != nil {
		return none, err
	}
	if err := s.join(ctx, t, fresh, notNew); err != nil {
		return none, err
	}
	out, err := s.appendThread(
		ctx, t, eventv1.Event_builder{MemberAdded: eventv1.MemberAdded_builder{MemberIds: rawUsers(fresh)}.Build()},
	)
	var no rejection
	if errors.As(err, &no) {
		if err := s.notAdded(ctx, t, fresh); err != nil {
			return none, err
		}
		if v, ok := s.srv.replica.View(t); ok && no.reason == thread.Exists { // another has added them all meanwhile
			return s.was(t, v), nil
		}
	}
	return out, err
}

// notAdded takes a thread off the lists of those whom join has told of it and whom a rejected event has not made
// members, unless they are by another.
func (s *Session) notAdded(ctx context.Context, t id.ThreadID, users []id.UserID) error {
	v, ok := s.srv.replica.View(t)
	if !ok {
		return nil
	}
	out := slices.DeleteFunc(slices.Clone(users), v.Roster.IsMember)
	return s.inform(ctx, out, eventv1.Event_builder{
		ThreadLeft: eventv1.ThreadLeft_builder{ThreadId: t[:]}.Build(),
	})
}

func (s *Session) removeMember(ctx context.Context, r *wirev1.RemoveMember) (wirev1.ServerFrame_builder, error) {
	t, v, err := s.group(ctx, r.GetThreadId(), true)
	if err != nil {
		return wirev1.ServerFrame_builder{}, err
	}
	u, err := userID("member_id", r.GetMemberId())
	if err != nil {
		return wirev1.ServerFrame_builder{}, err
	}
	if !v.Roster.WasMember(u) {
		return wirev1.ServerFrame_builder{}, invalid("member_id is not a member")
	}
	if err := s.spend(ctx, auth.Changes, 1); err != nil {
		return wirev1.ServerFrame_builder{}, err
	}
	// Also one who is none any more by what this edge knows: another may just have taken him back, and an acknowledged
	// removal must be one.
	out, err := s.appendThread(
		ctx, t, eventv1.Event_builder{MemberRemoved: eventv1.MemberRemoved_builder{MemberId: u[:]}.Build()},
	)
	if errors.Is(err, rejection{thread.Missing}) { // he is out, and his list may not know of it yet
		return s.was(t, v), s.unlist(ctx, t, u, nil)
	}
	if err != nil {
		return out, err
	}
	return out, s.unlist(ctx, t, u, causeOf(out.Ack))
}

func (s *Session) leaveThread(ctx context.Context, r *wirev1.LeaveThread) (wirev1.ServerFrame_builder, error) {
	t, _, err := s.group(ctx, r.GetThreadId(), false)
	if errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_NOT_A_MEMBER}) && t.IsGroup() {
		// Whoever asks again, since the answer was lost, has left; and this edge need not know the thread any more,
		// since a list without it does not bring it. For who never was in it nothing is loaded.
		if was, wasErr := s.wasIn(ctx, t); wasErr != nil || !was {
			return wirev1.ServerFrame_builder{}, cmp.Or(wasErr, err)
		}
		if err := s.srv.replica.EnsureThread(ctx, t); err != nil {
			return wirev1.ServerFrame_builder{}, err
		}
		if v, ok := s.srv.replica.View(t); ok && v.Kind == thread.Group && v.Roster.WasMember(s.user) &&
			!v.Roster.IsMember(s.user) {
			if err := s.spend(ctx, auth.Changes, 1); err != nil {
				return wirev1.ServerFrame_builder{}, err
			}
			// The list may not know of it yet, when the event that tells it was what failed; else the fold ignores a
			// second.
			return wirev1.ServerFrame_builder{Done: &wirev1.Done{}}, s.unlist(ctx, t, s.user, nil)
		}
		t, _, err = s.group(ctx, r.GetThreadId(), false)
	}
	if err != nil {
		return wirev1.ServerFrame_builder{}, err
	}
	if err := s.spend(ctx, auth.Changes, 1); err != nil {
		return wirev1.ServerFrame_builder{}, err
	}
	out, err := s.appendThread(ctx, t, eventv1.Event_builder{MemberLeft: &eventv1.MemberLeft{}})
	if errors.Is(err, rejection{thread.NotMember}) { // an admin was faster
		return wirev1.ServerFrame_builder{Done: &wirev1.Done{}}, s.unlist(ctx, t, s.user, nil)
	}
	if err != nil {
		return out, err
	}
	return out, s.unlist(ctx, t, s.user, causeOf(out.Ack))
}

// wasIn tells whether the session's user was ever in a thread, without loading it: by this edge's state, his list or
// the views, once these are as far as this edge.
func (s *Session) wasIn(ctx context.Context, t id.ThreadID) (bool, error) {
	if v, known := s.srv.replica.View(t); known {
		return v.Roster.WasMember(s.user), nil
	}
	if s.srv.replica.Listed(s.user, t) {
		return true, nil
	}
	if was, err := s.asking.WasMember(ctx, s.user, t); was || err != nil {
		return was, err
	}
	n := replica.Needs{}
	if at := s.cursor(t); at != notNew {
		n.Add(topic.Threads, topic.SlotOf(topic.Subject(t), s.srv.cfg.Partitions), at-1)
	}
	if err := s.past(ctx, n); err != nil {
		return false, err
	}
	return s.asking.WasMember(ctx, s.user, t)
}

// causeOf names the event that an ack is for as what led to another. A ThreadJoined has no cause: it goes ahead of the
// event in the thread, and has its request in common with that.
func causeOf(a *wirev1.Ack) *eventv1.Cause {
	return eventv1.Cause_builder{Topic: a.GetTopic(), Slot: a.GetSlot(), Position: a.GetPosition()}.Build()
}

// unlist takes a thread off a user's list, after the event that ended the membership: cause, nil when this edge does
// not know its place any more.
func (s *Session) unlist(ctx context.Context, t id.ThreadID, u id.UserID, cause *eventv1.Cause) error {
	return s.inform(ctx, []id.UserID{u}, eventv1.Event_builder{
		Cause: cause, ThreadLeft: eventv1.ThreadLeft_builder{ThreadId: t[:]}.Build(),
	})
}

func (s *Session) renameThread(ctx context.Context, r *wirev1.RenameThread) (wirev1.ServerFrame_builder, error) {
	title, err := titleOf(r.GetTitle())
	if err != nil {
		return wirev1.ServerFrame_builder{}, err
	}
	t, _, err := s.group(ctx, r.GetThreadId(), true)
	if err != nil {
		return wirev1.ServerFrame_builder{}, err
	}
	if err := s.spend(ctx, auth.Changes, 1); err != nil {
		return wirev1.ServerFrame_builder{}, err
	}
	return s.appendThread(
		ctx, t, eventv1.Event_builder{ThreadRenamed: eventv1.ThreadRenamed_builder{Title: title}.Build()},
	)
}

func (s *Session) setRole(ctx context.Context, r *wirev1.SetRole) (wirev1.ServerFrame_builder, error) {
	var none wirev1.ServerFrame_builder
	u, err := userID("member_id", r.GetMemberId())
	if err != nil {
		return none, err
	}
	role := r.GetRole()
	if role != eventv1.Role_ROLE_MEMBER && role != eventv1.Role_ROLE_ADMIN {
		return none, invalid("role is neither member nor admin")
	}
	t, v, err := s.group(ctx, r.GetThreadId(), true)
	if err != nil {
		return none, err
	}
	if !v.Roster.IsMember(u) {
		return none, invalid("member_id is not a member")
	}
	if u == s.user && role == eventv1.Role_ROLE_MEMBER {
		others := false
		for _, w := range v.Roster.Members() {
			others = others || w != u && v.Roster.Role(w) == thread.RoleAdmin
		}
		if !others {
			return none, wire.Errorf(wirev1.Code_CODE_NOT_ALLOWED, "the last admin stays one")
		}
	}
	if err := s.spend(ctx, auth.Changes, 1); err != nil {
		return none, err
	}
	out, err := s.appendThread(
		ctx, t, eventv1.Event_builder{RoleChanged: eventv1.RoleChanged_builder{MemberId: u[:], Role: role}.Build()},
	)
	if errors.Is(err, rejection{thread.Missing}) {
		return none, invalid("member_id is not a member")
	}
	return out, err
}
