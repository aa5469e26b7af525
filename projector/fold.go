package projector

import (
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

type outcome struct {
	topic   topic.Topic
	outcome string
}

// pass is one folding of a batch.
type pass[R Rows] struct {
	states   *States
	rows     R
	outcomes map[outcome]int
	folded   func(*eventv1.Event) // of the Sink
}

// fold applies one event. The states that it needs are there: the store has loaded them.
func (p *pass[R]) fold(e *Event) {
	p.outcomes[outcome{e.Topic, p.apply(e)}]++
}

// apply returns the outcome as a metric's label.
func (p *pass[R]) apply(e *Event) string {
	switch e.Topic {
	case topic.Threads:
		state := p.states.Threads[id.ThreadID(e.Subject)]
		v := state.Apply(e.Body, e.Position, e.TimeMS)
		if p.folded != nil {
			p.folded(e.Body.Event)
		}
		switch v.Outcome {
		case thread.Stale:
			return outcomeStale
		case thread.Duplicate:
			return outcomeDuplicate
		case thread.Rejected:
			if thread.TellsLater(e.Body) {
				p.rows.Rejected(e, v)
			}
			return string(v.Reason)
		}
		p.rows.Thread(e, state, v)
	case topic.Receipts:
		u, mark, ok := thread.Receipt(e.Key, e.Body)
		if !ok {
			return string(thread.Malformed)
		}
		p.rows.Receipt(e, u, mark)
	case topic.Users:
		state := p.states.Users[id.UserID(e.Subject)]
		v := state.Apply(e.Body, e.Position, e.TimeMS)
		switch v.Outcome {
		case user.Stale:
			return outcomeStale
		case user.Rejected:
			return outcomeRejected
		}
		p.rows.User(e, state, v)
	}
	return outcomeAccepted
}
