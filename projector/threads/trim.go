package threads

import (
	"context"
	"fmt"
	"time"

	"heliograph/projector"
	"heliograph/schemas/topic"
)

const sqlTrim = `DELETE FROM messages m USING (
  SELECT thread_id, position FROM messages WHERE slot = $1 AND log_time < $2 LIMIT $3
) d WHERE m.thread_id = d.thread_id AND m.position = d.position`

// TrimLoop trims the slots that are open, every TrimEvery, until ctx is cancelled. What fails is counted and tried again the next time.
func (s *Sink) TrimLoop(ctx context.Context) {
	t := time.NewTicker(s.cfg.TrimEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := s.Trim(ctx); err != nil && ctx.Err() == nil {
			s.metrics.trimFails.Inc()
			s.log.Warn("the tail could not be trimmed", "err", err)
		}
	}
}

// Trim removes, from every open slot, messages whose log time is more than Retention before the latest log time that the slot has taken in. It goes in statements
// of TrimRows, so that no transaction is long. It may run beside Apply: it takes only rows that no batch writes any more.
func (s *Sink) Trim(ctx context.Context) error {
	s.mu.Lock()
	latest := make(map[topic.Slot]int64, len(s.slots))
	states := make(map[topic.Slot]*slotState, len(s.slots))
	for n, st := range s.slots {
		latest[n], states[n] = st.latest, st
	}
	s.mu.Unlock()
	for n, ms := range latest {
		cutoff := ms - s.cfg.Retention.Milliseconds()
		if cutoff <= 0 || cutoff <= states[n].trimmed {
			continue
		}
		for {
			bounded, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
			tag, err := s.pool.Exec(bounded, sqlTrim, int32(n), projector.Time(cutoff), s.cfg.TrimRows)
			cancel()
			if err != nil {
				return fmt.Errorf("threads: trim slot %d: %w", n, err)
			}
			s.metrics.trimmed.Add(float64(tag.RowsAffected()))
			if tag.RowsAffected() < int64(s.cfg.TrimRows) {
				break
			}
		}
		states[n].trimmed = cutoff
	}
	return nil
}
