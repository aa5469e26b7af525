package hub

import (
	"context"
	"slices"
	"time"
)

// A slot is deaf without an owner, or when that has not said for deafAfter how far it is: a live one does every second.
// What is revoked meanwhile only the views tell, which are asked every askEvery.
const (
	deafAfter = 3 * time.Second
	askEvery  = 500 * time.Millisecond
)

// deaf tells whether no event of the slot is heard now. The caller holds the slot's lock.
func (s *slot) deaf() bool { return s.owner == nil || time.Since(s.heard) > deafAfter }

// watchDeaf cuts devices that were revoked while the slot of their user is deaf.
func (h *Hub) watchDeaf(ctx context.Context) error {
	for sleep(ctx, askEvery) {
		var ask []*client
		for _, s := range h.slots {
			s.mu.RLock()
			if s.deaf() {
				for _, u := range s.users {
					ask = append(ask, u.sessions()...)
				}
			}
			s.mu.RUnlock()
		}
		for part := range slices.Chunk(ask, h.cfg.Batch) {
			if !h.cutRevoked(ctx, part) {
				break // the store does not answer either: that is counted, and asked again
			}
		}
	}
	return nil
}

// cutRevoked asks the views for the clients' devices and cuts those that were revoked. False: they did not answer.
func (h *Hub) cutRevoked(ctx context.Context, clients []*client) bool {
	keys := make([]userDevice, len(clients))
	for i, c := range clients {
		keys[i] = userDevice{c.user.id, c.device}
	}
	qctx, cancel := context.WithTimeout(ctx, h.cfg.Wait)
	defer cancel()
	found, err := h.devices.get(qctx, keys)
	if err != nil {
		return false
	}
	for i, c := range clients {
		if found[i] == nil || !found[i].Revoked {
			continue
		}
		var after actions
		c.user.slot.mu.Lock()
		if c.user.state != nil {
			if d := c.user.state.Devices[c.device]; d != nil {
				d.Revoked = true // so that it is not admitted again; the fold makes nothing of it when the event comes
			}
		}
		if slices.Contains(c.user.sessions(), c) {
			h.revoke(c, &after)
		}
		c.user.slot.mu.Unlock()
		after.run()
	}
	return true
}
