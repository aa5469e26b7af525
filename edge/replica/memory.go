package replica

import "heliograph/infra/budget"

// What a subject may have in its backlog, in bytes, as long as memory is free and however little is; and what counts
// for an event besides its own bytes.
const (
	mostBacklog  = 8 << 20
	leastBacklog = 64 << 10
	queuedWeight = 192
)

// recentWeight is what a message within the window of the rule on repeats takes in the state of a thread, in bytes.
const recentWeight = 112

// backlog is events that wait for their subject to go on, in order. It is guarded by the slot's lock.
type backlog struct {
	list  []queued
	bytes int
}

func (q *queued) weight() int { return queuedWeight + len(q.rec.GetKey()) + len(q.rec.GetValue()) }

// add puts an event behind the others; false: there is no room for it. An empty backlog has room for one.
func (b *backlog) add(e queued, cfg *Config) bool {
	w := e.weight()
	if n := len(b.list); n >= cfg.Backlog ||
		n > 0 && b.bytes+w > min(mostBacklog, max(leastBacklog, cfg.Budget.Most(mostBacklog))) {
		return false
	}
	b.list = append(b.list, e)
	b.bytes += w
	cfg.Budget.Add(w)
	return true
}

// take empties the backlog.
func (b *backlog) take(memory *budget.Budget) (list []queued) {
	memory.Add(-b.bytes)
	list, *b = b.list, backlog{}
	return list
}

// weigh has the budget know what the window of a thread takes now, packed or not, once it has changed. The caller holds
// the slot's lock.
func (t *threadEntry) weigh() {
	w := len(t.packed)
	switch {
	case t.gone:
		w = 0
	case t.warm != nil:
		w = recentWeight * len(t.state.Recent)
	}
	t.slot.memory.Keep(w - t.weight)
	t.weight = w
}
