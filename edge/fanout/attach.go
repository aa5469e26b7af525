package fanout

import (
	"context"
	"slices"

	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Attach registers a session and returns its device once its user's state is live here: nothing older than the device's
// floor is pushed. A revoked device is refused with a *wire.Error. The device was proved before: when its
// registration, or a store or a link, does not come in time, that is CODE_UNAVAILABLE. After an error the session is
// not registered. An older session of the same device is closed with CODE_SUPERSEDED, unless one of the two is in the
// background and the other is not.
func (f *Fanout) Attach(ctx context.Context, sess Session) (user.Device, error) {
	d := &device{sess: sess, id: sess.Device(), turn: make(chan struct{}, 1)}
	var older []*device
	f.mu.Lock()
	p := f.people[sess.User()]
	if p == nil {
		p = &person{of: f, user: sess.User()}
		f.people[p.user] = p
	}
	d.person = p
	now := make([]*device, 0, len(p.connected())+1)
	for _, o := range p.connected() {
		if o.id == d.id && background(o.sess) == background(sess) {
			older = append(older, o)
		} else {
			now = append(now, o)
		}
	}
	now = append(now, d)
	p.devices.Store(&now)
	f.mu.Unlock()
	f.metrics.sessions.Add(float64(1 - len(older)))
	for _, o := range older {
		f.cut(o)
		o.sess.Close(wirev1.Code_CODE_SUPERSEDED)
	}
	f.replica.Follow(p)
	f.mu.Lock()
	gone := p.gone
	f.mu.Unlock()
	if gone { // all of his sessions were detached meanwhile, this one too
		f.replica.Unfollow(p)
		return user.Device{}, ended()
	}
	dev, err := f.replica.Admit(ctx, p, d.id)
	if err != nil {
		f.Detach(sess)
		return user.Device{}, err
	}
	floor := dev.Floor()
	d.floor.Store(&floor)
	return dev, nil
}

// Detach forgets a session. It may be called again, and for a session whose Attach failed. Session.Close must not call
// it on the same goroutine.
func (f *Fanout) Detach(sess Session) {
	var gone *device
	f.mu.Lock()
	p := f.people[sess.User()]
	if p != nil {
		if i := slices.IndexFunc(p.connected(), func(d *device) bool { return d.sess == sess }); i >= 0 {
			gone = p.connected()[i]
			rest := slices.Concat(p.connected()[:i], p.connected()[i+1:])
			p.devices.Store(&rest)
			if len(rest) == 0 {
				p.gone = true
				delete(f.people, p.user)
			}
		}
	}
	last := gone != nil && p.gone
	f.mu.Unlock()
	if gone != nil {
		f.metrics.sessions.Dec()
		f.cut(gone)
	}
	if last {
		f.replica.Unfollow(p)
	}
}

// device finds the registration of a session.
func (f *Fanout) device(sess Session) *device {
	f.mu.Lock()
	p := f.people[sess.User()]
	f.mu.Unlock()
	if p != nil {
		for _, d := range p.connected() {
			if d.sess == sess {
				return d
			}
		}
	}
	return nil
}

func ended() error { return wire.Errorf(wirev1.Code_CODE_NOT_AUTHENTICATED, "the session has ended") }
