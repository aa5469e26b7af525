package session

import (
	"context"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// How long a request waits for a thread to appear at this edge.
const (
	// waitStarting: the thread is on its way for sure, or the session has not synced yet.
	waitStarting = 3 * time.Second
	// waitUnknown: nothing speaks for the thread but the device's word.
	waitUnknown = 300 * time.Millisecond
	// waitUser: for a user who may have registered a moment ago.
	waitUser = time.Second
)

// member returns a thread of which the session's user is a member, waiting a little for one that is on its way.
func (s *Session) member(ctx context.Context, t id.ThreadID) (View, error) {
	v, err := s.own(ctx, t)
	if err != nil {
		return v, err
	}
	if e := v.closed(s.user, true); e != nil {
		return v, e
	}
	return v, nil
}

// own returns a thread of which the session's user is or was a member, or is about to be, waiting a little for one that
// is on its way (wire 7.11). Who is a stranger to a thread waits as long as if it did not exist, and is told the same.
func (s *Session) own(ctx context.Context, t id.ThreadID) (View, error) {
	whole, cancel := context.WithTimeout(ctx, waitStarting)
	defer cancel()
	own := func(v View, known bool) bool {
		return known && (v.Kind != thread.None && v.Roster.WasMember(s.user) ||
			v.Quarantined && s.srv.replica.Listed(s.user, t))
	}
	limited, stop := context.WithTimeout(whole, waitUnknown)
	v, _, err := s.srv.replica.Await(limited, t, own)
	stop()
	if err != nil && !s.hasSynced() {
		limited, stop = s.untilSynced(whole)
		v, _, err = s.srv.replica.Await(limited, t, own)
		stop()
	}
	if err != nil && s.srv.replica.Listed(s.user, t) {
		v, _, err = s.srv.replica.Await(whole, t, own)
	}
	switch {
	case ctx.Err() != nil:
		return v, ctx.Err()
	case err != nil:
		return v, notMember()
	}
	return v, nil
}

// hasSynced tells whether a Sync has ended well.
func (s *Session) hasSynced() bool {
	select {
	case <-s.syncedOnce():
		return true
	default:
		return false
	}
}

// syncedOnce returns a channel that is closed once a Sync has ended well.
func (s *Session) syncedOnce() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.synced == nil {
		s.synced = make(chan struct{})
	}
	return s.synced
}

// setSynced notes that a Sync has ended well.
func (s *Session) setSynced() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.synced {
	case nil:
		s.synced = alwaysClosed
	default:
		select {
		case <-s.synced:
		default:
			close(s.synced)
		}
	}
}

var alwaysClosed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// untilSynced returns a context that ends when the session has synced.
func (s *Session) untilSynced(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if !s.spawn(func() {
		select {
		case <-s.syncedOnce():
			cancel()
		case <-ctx.Done():
		}
	}) {
		cancel()
	}
	return ctx, cancel
}

// registered asks whether all of some users exist until ask says so, or until waitUser has passed. One who registered a
// moment ago may not be in the view yet: it asks again when the view has got as far as this edge, and whenever more is
// read here of the slot of some that is missing, which ask returns. While the view is behind this edge, nobody can tell
// a new user from none: that is an error, and the device asks again.
func (s *Session) registered(ctx context.Context, ask func() (missing id.UserID, all bool, err error)) (bool, error) {
	limited, cancel := context.WithTimeout(ctx, waitUser)
	defer cancel()
	read := map[topic.Slot]topic.Position{}
	behind := false
	for {
		missing, all, err := ask()
		switch {
		case all || err != nil:
			return all, err
		case limited.Err() != nil && behind:
			return false, wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "the view of the users is behind the log")
		case limited.Err() != nil:
			return false, nil
		}
		slot := topic.SlotOf(topic.Subject(missing), s.srv.cfg.Partitions)
		before, asked := read[slot]
		if !asked {
			before = -1
		}
		at, err := s.srv.replica.WaitViews(limited, topic.Users, topic.Subject(missing), before)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err == nil {
			read[slot] = at
		}
		behind = err != nil && !asked
	}
}

// exists refuses an unknown user.
func (s *Session) exists(ctx context.Context, u id.UserID) error {
	all, err := s.registered(ctx, func() (id.UserID, bool, error) {
		found, err := s.asking.UserExists(ctx, u)
		return u, found, err
	})
	if err == nil && !all {
		return wire.Errorf(wirev1.Code_CODE_UNKNOWN_USER, "the user does not exist")
	}
	return err
}

// allExist refuses unknown users.
func (s *Session) allExist(ctx context.Context, want []id.UserID) error {
	for len(want) > 0 {
		part := want[:min(len(want), maxLookup)]
		want = want[len(part):]
		missing := map[id.UserID]bool{}
		for _, u := range part {
			missing[u] = true
		}
		var one id.UserID
		all, err := s.registered(ctx, func() (id.UserID, bool, error) {
			raw := make([][]byte, 0, len(missing))
			for u := range missing {
				raw = append(raw, u[:])
			}
			got, err := s.asking.GetUsers(ctx, raw)
			if err != nil {
				return one, false, err
			}
			for _, u := range got.GetUsers() {
				if k, err := id.From[id.UserID](u.GetUserId()); err == nil {
					delete(missing, k)
				}
			}
			for one = range missing {
				break
			}
			return one, len(missing) == 0, nil
		})
		if err != nil {
			return err
		}
		if !all {
			return wire.Errorf(wirev1.Code_CODE_UNKNOWN_USER, "user %s does not exist", one)
		}
	}
	return nil
}
