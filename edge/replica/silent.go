package replica

import (
	"context"
	"slices"
	"sync"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// A slot is silent without an owner, or when that has not said for silentAfter how far it is: a live one does every
// second. What is revoked meanwhile only the views tell, which are asked every askEvery.
const (
	silentAfter = 3 * time.Second
	askEvery    = 500 * time.Millisecond
)

// isSilent tells whether no event of the slot is heard now. The caller holds the slot's lock.
func (s *slot) isSilent() bool { return s.owner == nil || time.Since(s.heard) > silentAfter }

// silentSlots is the slots with users that are silent. slot.silent says of each whether it is in.
type silentSlots struct {
	wake  chan struct{} // capacity 1: it is not empty
	mu    sync.Mutex    // taken inside slots' locks
	slots map[*slot]struct{}
}

func (x *silentSlots) enter(s *slot) {
	s.silent = true
	x.mu.Lock()
	x.slots[s] = struct{}{}
	x.mu.Unlock()
	poke(x.wake)
}

func (x *silentSlots) leave(s *slot) {
	s.silent = false
	x.mu.Lock()
	delete(x.slots, s)
	x.mu.Unlock()
}

func (x *silentSlots) all() []*slot {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := make([]*slot, 0, len(x.slots))
	for s := range x.slots {
		out = append(out, s)
	}
	return out
}

// listen notes that a slot is silent, or has it looked at when it would be. The caller holds the slot's lock.
func (r *Replica) listen(s *slot) {
	switch silent := len(s.users) > 0 && s.isSilent(); {
	case silent && !s.silent:
		r.silent.enter(s)
	case !silent && s.silent:
		r.silent.leave(s)
	}
	if len(s.users) > 0 && !s.silent {
		r.agenda.set(s, s.heard.Add(silentAfter+time.Millisecond))
	}
}

// askSilent revokes devices that were revoked while the slot of their user is silent.
func (r *Replica) askSilent(ctx context.Context) error {
	for {
		select {
		case <-r.silent.wake:
		case <-ctx.Done():
			return nil
		}
		for slots := r.silent.all(); len(slots) > 0; slots = r.silent.all() {
			var keys []DeviceKey
			for _, s := range slots {
				s.mu.Lock()
				for _, u := range s.users {
					if u.state == nil || u.follower.Load() == nil {
						continue
					}
					for d, dev := range u.state.Devices {
						if !dev.Revoked {
							keys = append(keys, DeviceKey{u.id, d})
						}
					}
				}
				r.listen(s)
				s.mu.Unlock()
			}
			for part := range slices.Chunk(keys, r.cfg.Batch) {
				if !r.askRevoked(ctx, part) {
					break // the store does not answer either: that is counted, and asked again
				}
			}
			if !sleep(ctx, askEvery) {
				return nil
			}
		}
	}
}

// askRevoked asks the views for devices and tells the followers of those that were revoked. False: they did not answer.
func (r *Replica) askRevoked(ctx context.Context, keys []DeviceKey) bool {
	qctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	defer cancel()
	found, err := r.devices.get(qctx, keys)
	if err != nil {
		return false
	}
	for i, k := range keys {
		if found[i] != nil && found[i].Revoked {
			r.revoke(k.User, k.Device)
		}
	}
	return true
}

// revoke takes a device for revoked although the event has not come.
func (r *Replica) revoke(u id.UserID, d id.DeviceID) {
	s := r.slotOf(topic.Subject(u))
	r.in(s, func(*actions) {
		us := s.users[u]
		if us == nil || us.state == nil {
			return
		}
		if dev := us.state.Devices[d]; dev != nil {
			dev.Revoked = true // so that it is not admitted again; the fold makes nothing of it when the event comes
		}
		s.note(revoked(d), us)
	})
}
