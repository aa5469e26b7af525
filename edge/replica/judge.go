package replica

import (
	"context"
	"errors"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// Errors of Judge.
var (
	// ErrParked: the thread is in quarantine, so nobody can tell yet what becomes of the event.
	ErrParked = errors.New("the thread is in quarantine")
	// ErrUntold: the views have got past the event without it, and do not say why.
	ErrUntold = errors.New("the event has no effect, for a reason that is not known here")
)

// judging is what is wanted to be known of a thread while somebody waits for verdicts. Guarded by the slot's mu.
type judging struct {
	waiting  int
	verdicts map[topic.Position]thread.Verdict // of changes: of everything but messages
}

// judged notes the verdict on an event for whoever waits. The caller holds the slot's lock.
func (s *slot) judged(t id.ThreadID, at topic.Position, v thread.Verdict) {
	if j := s.judging[t]; j != nil {
		j.verdicts[at] = v
	}
}

// Judge has put append an event to a thread that is live here, and returns the fold's verdict on that one event once
// this edge has come to it. It fails with put; thereafter the log has the event, and when this edge does not come to it
// within Config.Wait, that is CODE_UNAVAILABLE; a thread that is or gets into quarantine is ErrParked. An event that
// came to this edge with a snapshot was judged elsewhere: then the views tell whether it was accepted.
func (r *Replica) Judge(
	ctx context.Context, t id.ThreadID, put func(context.Context) (topic.Position, error),
) (thread.Verdict, error) {
	s := r.slotOf(topic.Subject(t))
	s.mu.Lock()
	j := s.judging[t]
	if j == nil {
		j = &judging{verdicts: map[topic.Position]thread.Verdict{}}
		if s.judging == nil {
			s.judging = map[id.ThreadID]*judging{}
		}
		s.judging[t] = j
	}
	j.waiting++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if j.waiting--; j.waiting == 0 {
			delete(s.judging, t)
		}
	}()
	at, err := put(ctx)
	if err != nil {
		return thread.Verdict{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	defer cancel()
	v, _, err := r.Await(ctx, t, func(v View, known bool) bool { return known && (v.Next > at || v.Quarantined) })
	if err != nil {
		return thread.Verdict{}, Unavailable(err)
	}
	s.mu.RLock()
	verdict, known := j.verdicts[at]
	s.mu.RUnlock()
	switch {
	case known:
		return verdict, nil
	case v.Quarantined:
		return thread.Verdict{}, ErrParked
	}
	tails, err := r.Tails(ctx, []Range{{Thread: t, After: at - 1, UpTo: at, Limit: 1, Bytes: 1}})
	switch {
	case err != nil:
		return thread.Verdict{}, err
	case len(tails[0].Rows) == 0:
		return thread.Verdict{}, ErrUntold
	}
	return thread.Verdict{Ordinal: tails[0].Rows[0].Ordinal}, nil
}
