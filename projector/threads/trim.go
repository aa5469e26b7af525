package threads

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"heliograph/projector"
	"heliograph/schemas/topic"
)

// In the order of their keys, so that two writers cannot deadlock.
const sqlTrim = `
WITH gone AS (
  DELETE FROM messages m USING (
    SELECT thread_id, position FROM messages t WHERE slot = $1 AND log_time < least($2, now() - $5::interval)
       AND NOT EXISTS (SELECT 1 FROM quarantine q WHERE q.topic = $4 AND q.subject = t.thread_id) LIMIT $3
  ) d WHERE m.thread_id = d.thread_id AND m.position = d.position
  RETURNING m.thread_id, m.position, m.log_time
), noted AS (
  INSERT INTO trimmed AS t (thread_id, position, log_time)
  SELECT thread_id, max(position), max(log_time) FROM gone GROUP BY thread_id ORDER BY thread_id
  ON CONFLICT (thread_id) DO UPDATE SET
    position = greatest(t.position, excluded.position), log_time = greatest(t.log_time, excluded.log_time)
)
SELECT count(*) FROM gone`

// Few are ever rejected: one statement takes them all. No verdict needs them, so quarantine keeps none.
const sqlTrimRejected = `DELETE FROM rejected WHERE slot = $1 AND log_time < least($2, now() - $3::interval)`

// TrimLoop trims the slots that are open, every trimEvery, until ctx is cancelled. What fails is counted and tried
// again the next time.
func (s *Sink) TrimLoop(ctx context.Context) {
	t := time.NewTicker(trimEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := s.Trim(ctx); err != nil && ctx.Err() == nil {
			s.store.metrics.trimFails.Inc()
			s.store.log.Warn("trimming the tail failed", "err", err)
		}
	}
}

// Trim removes, from every open slot, messages whose log time is more than Retention before the latest log time that
// the slot has taken in, and before the time that it is: one stamp that is ahead takes nothing along. It goes in
// statements of trimRows, so that no transaction is long; each notes in the table trimmed how far it went in each
// thread, so that nobody takes the tail for the whole. It may run beside Apply: it takes only rows that no batch writes
// any more. A thread in quarantine keeps its tail, however old that becomes: it is folded on from there, and a message
// that comes again must be found.
func (s *Sink) Trim(ctx context.Context) error {
	now := time.Now().UnixMilli() // a slot whose latest stamp is ahead of it is trimmed as time goes on
	for n, ms := range s.Latest(topic.Threads) {
		cutoff := min(ms, now) - s.store.cfg.Retention.Milliseconds()
		s.mu.Lock()
		before := s.trimmed[n]
		s.mu.Unlock()
		if cutoff <= 0 || cutoff <= before {
			continue
		}
		for {
			bounded, cancel := context.WithTimeout(ctx, s.store.cfg.timeout)
			var gone int64
			// Planned each time: a plan for the table as it once was could read all of it for each row.
			err := s.store.pool.QueryRow(bounded, sqlTrim, pgx.QueryExecModeCacheDescribe,
				int32(n), projector.Time(cutoff), s.store.cfg.trimRows, topic.Threads.Number(), s.store.cfg.Retention,
			).Scan(&gone)
			cancel()
			if err != nil {
				return fmt.Errorf("threads: trim slot %d: %w", n, err)
			}
			s.store.metrics.trimmed.Add(float64(gone))
			if gone < int64(s.store.cfg.trimRows) {
				break
			}
		}
		bounded, cancel := context.WithTimeout(ctx, s.store.cfg.timeout)
		_, err := s.store.pool.Exec(
			bounded, sqlTrimRejected, int32(n), projector.Time(cutoff), s.store.cfg.Retention,
		)
		cancel()
		if err != nil {
			return fmt.Errorf("threads: trim what slot %d rejected: %w", n, err)
		}
		s.mu.Lock()
		s.trimmed[n] = cutoff
		s.mu.Unlock()
	}
	return nil
}
