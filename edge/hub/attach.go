package hub

import (
	"context"
	"slices"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Attach registers a session and returns its device once its user's state is live here: nothing older than the device's
// SinceMS is pushed. A revoked device is refused with a *wire.Error. The device was proved before: when its
// registration, or a store or a link, does not come in time, that is CODE_UNAVAILABLE. After an error the session is
// not registered. An older session of the same device is closed with CODE_SUPERSEDED.
func (h *Hub) Attach(ctx context.Context, sess Session) (user.Device, error) {
	c := &client{sess: sess, device: sess.Device(), turn: make(chan struct{}, 1)}
	var older []*client
	s := h.slotOf(topic.Subject(sess.User()))
	s.mu.Lock()
	u := s.users[sess.User()]
	if u == nil {
		u = s.addUser(sess.User())
	}
	c.user = u
	delete(s.idle, &u.subject)
	now := make([]*client, 0, len(u.sessions())+1)
	for _, o := range u.sessions() {
		if o.device == c.device {
			older = append(older, o)
		} else {
			now = append(now, o)
		}
	}
	now = append(now, c)
	u.clients.Store(&now)
	s.mu.Unlock()
	h.metrics.sessions.Add(float64(1 - len(older)))
	for _, o := range older {
		h.cut(o)
		o.sess.Close(wirev1.Code_CODE_SUPERSEDED)
	}
	dev, err := h.admit(ctx, u, c.device)
	if err != nil {
		h.Detach(sess)
		return user.Device{}, err
	}
	c.floor.Store(dev.SinceMS)
	return dev, nil
}

// admit waits until the user is live and the device is known.
func (h *Hub) admit(ctx context.Context, u *userSub, d id.DeviceID) (user.Device, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Wait)
	defer cancel()
	for {
		s := u.slot
		s.mu.Lock()
		isLive := u.phase == live
		var dev user.Device
		found := false
		if isLive { // a device that is not here yet was proved a moment ago: its registration is still on its way
			if known := u.state.Devices[d]; known != nil {
				found, dev = true, *known
			}
		}
		news := u.changed()
		s.mu.Unlock()
		switch {
		case found && dev.Revoked:
			return user.Device{}, wire.Errorf(wirev1.Code_CODE_DEVICE_REVOKED, "the device was revoked")
		case found:
			return dev, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return user.Device{}, unavailable(context.Cause(ctx))
		}
	}
}

// Detach forgets a session. It may be called again, and for a session whose Attach failed. Session.Close must not call
// it on the same goroutine.
func (h *Hub) Detach(sess Session) {
	s := h.slotOf(topic.Subject(sess.User()))
	s.mu.Lock()
	var gone *client
	if u := s.users[sess.User()]; u != nil {
		if i := slices.IndexFunc(u.sessions(), func(c *client) bool { return c.sess == sess }); i >= 0 {
			gone = u.sessions()[i]
			rest := slices.Concat(u.sessions()[:i], u.sessions()[i+1:])
			u.clients.Store(&rest)
			s.idleSince(&u.subject, len(rest) == 0)
		}
	}
	s.mu.Unlock()
	if gone != nil {
		h.metrics.sessions.Dec()
		h.cut(gone)
	}
}

// client finds the registration of a session.
func (h *Hub) client(sess Session) *client {
	s := h.slotOf(topic.Subject(sess.User()))
	s.mu.RLock()
	defer s.mu.RUnlock()
	if u := s.users[sess.User()]; u != nil {
		for _, c := range u.sessions() {
			if c.sess == sess {
				return c
			}
		}
	}
	return nil
}

// DeviceKey returns a device of a user, revoked or not: from live state, else from Postgres. A device that nobody knows
// is CODE_AUTHENTICATION_FAILED, after a little wait, because its registration may be milliseconds old.
func (h *Hub) DeviceKey(ctx context.Context, u id.UserID, d id.DeviceID) (user.Device, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Wait)
	defer cancel()
	deadline := time.Now().Add(h.cfg.DeviceWait)
	for delay := h.cfg.RetryMin; ; delay = min(4*delay, h.cfg.DeviceWait/2) {
		if dev, ok := h.liveDevice(u, d); ok {
			return dev, nil
		}
		found, err := h.devices.get(ctx, []userDevice{{u, d}})
		switch {
		case err != nil:
			return user.Device{}, unavailable(err)
		case found[0] != nil:
			return *found[0], nil
		case time.Now().Add(delay).After(deadline):
			return user.Device{}, wire.Errorf(wirev1.Code_CODE_AUTHENTICATION_FAILED, "the device is not known")
		}
		if !sleep(ctx, delay) {
			return user.Device{}, unavailable(context.Cause(ctx))
		}
	}
}

func (h *Hub) liveDevice(u id.UserID, d id.DeviceID) (user.Device, bool) {
	s := h.slotOf(topic.Subject(u))
	s.mu.RLock()
	defer s.mu.RUnlock()
	us := s.users[u]
	if us == nil || us.phase != live || s.deaf() || us.state.Devices[d] == nil {
		return user.Device{}, false
	}
	return *us.state.Devices[d], true
}

// EnsureThread makes a thread live here on behalf of a user who is about to join it, and waits until it is. It stays so
// for Linger unless a user of this edge has joined it.
func (h *Hub) EnsureThread(ctx context.Context, t id.ThreadID) error {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Wait)
	defer cancel()
	s := h.slotOf(topic.Subject(t))
	for {
		s.mu.Lock()
		ts := s.threads[t]
		if ts == nil {
			ts = s.addThread(t)
		}
		if len(ts.locals) == 0 {
			s.idle[&ts.subject] = time.Now()
		}
		if ts.state != nil {
			s.mu.Unlock()
			return nil
		}
		news := ts.changed()
		s.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			return unavailable(context.Cause(ctx))
		}
	}
}
