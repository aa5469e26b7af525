package replica

import (
	"context"
	"errors"
	"slices"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Follow has a user and his threads followed, and f told of them, until Unfollow. An earlier follower of the same user
// is told nothing more.
func (r *Replica) Follow(f Follower) {
	s := r.slotOf(topic.Subject(f.User()))
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[f.User()]
	if u == nil {
		u = r.addUser(s, f.User())
	}
	u.follower.Store(&f)
	u.idle = 0
	r.again(s, &u.subject)
}

// Unfollow ends what Follow began, once Linger has passed. For one who is not the user's follower it does nothing.
func (r *Replica) Unfollow(f Follower) {
	s := r.slotOf(topic.Subject(f.User()))
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[f.User()]
	if u == nil {
		return
	}
	if now := u.follower.Load(); now != nil && *now == f {
		u.follower.Store(nil)
		r.relax(&u.subject)
	}
}

// entryOf returns the entry of a follower; nil when it is not one.
func (r *Replica) entryOf(f Follower) *userEntry {
	s := r.slotOf(topic.Subject(f.User()))
	s.mu.RLock()
	defer s.mu.RUnlock()
	if u := s.users[f.User()]; u != nil {
		if now := u.follower.Load(); now != nil && *now == f {
			return u
		}
	}
	return nil
}

func ended() error { return wire.Errorf(wirev1.Code_CODE_NOT_AUTHENTICATED, "the session has ended") }

// Admit waits until a followed user is live and returns a device of his. A revoked one is refused with a *wire.Error.
// The device was proved before: when its registration, or a store or a link, does not come in time, that is
// CODE_UNAVAILABLE.
func (r *Replica) Admit(ctx context.Context, f Follower, d id.DeviceID) (dev user.Device, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	defer cancel()
	found := false
	err = r.awaitUser(ctx, f, func(u *userEntry) bool {
		known := u.state.Devices[d]
		if known != nil { // one that is not here yet was proved a moment ago: its registration is still on its way
			found, dev = true, *known
		}
		return found
	})
	if err == nil && dev.Revoked {
		return user.Device{}, wire.Errorf(wirev1.Code_CODE_DEVICE_REVOKED, "the device was revoked")
	}
	return dev, err
}

// Threads waits until a followed user is live and returns the threads in his list.
func (r *Replica) Threads(ctx context.Context, f Follower) (list []id.ThreadID, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	defer cancel()
	err = r.awaitUser(ctx, f, func(u *userEntry) bool {
		list = make([]id.ThreadID, 0, len(u.state.Threads))
		for t := range u.state.Threads {
			list = append(list, t)
		}
		return true
	})
	return list, err
}

// Listed tells whether a thread is in the list of a user who is followed, as this edge knows it. No I/O.
func (r *Replica) Listed(u id.UserID, t id.ThreadID) bool {
	s := r.slotOf(topic.Subject(u))
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.users[u]
	if e == nil || e.state == nil {
		return false
	}
	_, listed := e.state.Threads[t]
	return listed
}

// Invited tells whether a user who is followed has an open invitation into a thread, as this edge knows it. No I/O.
func (r *Replica) Invited(u id.UserID, t id.ThreadID) bool {
	s := r.slotOf(topic.Subject(u))
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.users[u]
	if e == nil || e.state == nil {
		return false
	}
	_, open := e.state.Invitations[t]
	return open
}

// invited tells how an invitation of the user stands now, and forgets its title. The caller holds the slot's lock.
func (u *userEntry) invited(t id.ThreadID) {
	i, open := u.state.Invitations[t]
	u.slot.note(&Invitation{Thread: t, Invitation: i, Ended: !open}, u)
	if open {
		i.Title = ""
		u.state.Invitations[t] = i
	}
}

// invitedSince tells which of the user's invitations are not as they were in a state before, nil: in none that he was
// told of, and forgets the titles. The caller holds the slot's lock.
func (u *userEntry) invitedSince(before *user.State) {
	for t, i := range u.state.Invitations {
		if before != nil && before.Invitations[t].At != i.At {
			u.invited(t)
			continue
		}
		i.Title = ""
		u.state.Invitations[t] = i
	}
	if before == nil {
		return
	}
	for t := range before.Invitations {
		if _, open := u.state.Invitations[t]; !open {
			u.invited(t)
		}
	}
}

// awaitUser returns once the user is live and enough, which is called with his slot's lock held, says so.
func (r *Replica) awaitUser(ctx context.Context, f Follower, enough func(u *userEntry) bool) error {
	u := r.entryOf(f)
	if u == nil {
		return ended()
	}
	for {
		u.slot.mu.Lock()
		var news <-chan struct{}
		done, gone, full := u.phase == live && enough(u), u.gone, u.full()
		if !done && !gone {
			news = waited(&u.news)
		}
		u.slot.mu.Unlock()
		switch {
		case done:
			return nil
		case gone:
			return ended()
		case full != nil:
			return full
		}
		select {
		case <-news:
		case <-ctx.Done():
			return Unavailable(context.Cause(ctx))
		}
	}
}

// DeviceKey returns a device of a user, revoked or not: from live state, else from the views. It is unknown
// (CODE_AUTHENTICATION_FAILED, for which a device gives up for good) only when the views have all that the log had of
// the user when this was asked, and do not know it; else it is CODE_UNAVAILABLE.
func (r *Replica) DeviceKey(ctx context.Context, u id.UserID, d id.DeviceID) (user.Device, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	defer cancel()
	for current := false; ; current = true {
		if dev, ok := r.liveDevice(u, d); ok {
			return dev, nil
		}
		found, err := r.devices.get(ctx, []DeviceKey{{u, d}})
		switch {
		case err != nil:
			return user.Device{}, Unavailable(err)
		case found[0] != nil:
			return *found[0], nil
		case current:
			return user.Device{}, wire.Errorf(wirev1.Code_CODE_AUTHENTICATION_FAILED, "the device is not known")
		}
		if err := r.Current(ctx, u); err != nil {
			return user.Device{}, err
		}
	}
}

// Current returns once the views have taken in all that the log had of some users (helio.users) when it was called.
// When they do not get there in time, or hold something of them in quarantine, it is CODE_UNAVAILABLE.
func (r *Replica) Current(ctx context.Context, users ...id.UserID) error {
	if r.cfg.Log == nil {
		return Unavailable(errNoEnd)
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	defer cancel()
	ends, err := r.cfg.Log.Ends(ctx, topic.Users)
	if err != nil {
		return Unavailable(err)
	}
	behind := func(next topic.Position, u id.UserID) bool { return next < ends[r.slotOf(topic.Subject(u)).n] }
	for {
		err := r.clock.wait(ctx, func(at []topic.Cursor) bool {
			return !slices.ContainsFunc(users, func(u id.UserID) bool {
				return behind(at[r.slotOf(topic.Subject(u)).n].At(topic.Users), u)
			})
		})
		if err != nil {
			return Unavailable(err)
		}
		// What the clock says may be of views that have gone back since.
		found, err := r.standings.get(ctx, users)
		if err != nil {
			return Unavailable(err)
		}
		again := false
		for i, u := range users {
			if found[i].held {
				return Unavailable(errHeld)
			}
			again = again || behind(found[i].next, u)
		}
		if !again {
			return nil
		}
	}
}

// standing is what the views have of a user.
type standing struct {
	next topic.Position // of helio.users in his slot: the first that they do not have
	held bool           // something of him is in quarantine
}

// readStandings is a load of standings.
func (r *Replica) readStandings(ctx context.Context, users []id.UserID) ([]standing, error) {
	asked := r.clock.answered()
	held, at, err := r.store.Quarantine(ctx, nil, users)
	if err != nil {
		return nil, err
	}
	out, found := make([]standing, len(users)), make([]seen, len(users))
	for i, u := range users {
		n := r.slotOf(topic.Subject(u)).n
		out[i] = standing{at[n].At(topic.Users), held[Quarantined{topic.Users.Number(), topic.Subject(u)}]}
		found[i] = seen{n, topic.Users, out[i].next}
	}
	r.clock.take(asked, found...)
	return out, nil
}

var (
	errNoEnd = errors.New("nobody tells where the log ends")
	errHeld  = errors.New("something of the user is in quarantine")
)

func (r *Replica) liveDevice(u id.UserID, d id.DeviceID) (user.Device, bool) {
	s := r.slotOf(topic.Subject(u))
	s.mu.RLock()
	defer s.mu.RUnlock()
	us := s.users[u]
	if us == nil || us.phase != live || s.isSilent() || us.state.Devices[d] == nil {
		return user.Device{}, false
	}
	return *us.state.Devices[d], true
}
