package replica

import (
	"fmt"
	"strings"
)

// Describe says what a replica waits for, in lines.
func (r *Replica) Describe() string {
	var out strings.Builder
	at, _, _ := r.clock.look()
	fmt.Fprintf(&out, "views at %v\n", at)
	for _, s := range r.slots {
		s.mu.RLock()
		name := "nobody"
		if s.owner != nil {
			name = s.owner.to.Name
		}
		fmt.Fprintf(&out, "slot %d of %s cursor %v read %v: %d unacked, %d requests, %d to ask, %d notes\n",
			s.n, name, s.cursor, s.read, len(s.unacked), len(s.requests), len(s.toAsk), len(s.notes))
		for sub := range s.waiting {
			fmt.Fprintf(&out, "  %x %v since %v, live from %v, a backlog of %d\n",
				sub.key[:4], sub.phase, sub.pending.since, sub.pending.liveFrom, len(sub.pending.backlog.list))
		}
		s.mu.RUnlock()
	}
	return out.String()
}
