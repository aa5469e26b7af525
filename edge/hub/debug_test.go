package hub

import "fmt"

// describe says what a hub waits for.
func (h *Hub) describe() (out []string) {
	at, _ := h.views.look()
	out = append(out, fmt.Sprintf("views at %v", at))
	for _, s := range h.slots {
		s.mu.RLock()
		name := "nobody"
		if s.owner != nil {
			name = s.owner.to.Name
		}
		out = append(
			out,
			fmt.Sprintf(
				"slot %d of %s cursor %v read %v: %d unacked, %d requests, %d to ask, %d parked", s.n, name, s.cursor,
				s.read, len(s.unacked), len(s.requests), len(s.toAsk), len(s.parked),
			),
		)
		for sub := range s.waiting {
			out = append(
				out,
				fmt.Sprintf("  %x phase %d live from %v, %d held", sub.key[:4], sub.phase, sub.liveFrom, len(sub.held)),
			)
		}
		s.mu.RUnlock()
	}
	return out
}
