package history

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"heliograph/infra/kafka"
	"heliograph/projector"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// readPositions reads a slot's positions: the highest done, and the highest that was begun from there.
func (s *Sink) readPositions(ctx context.Context, slot topic.Slot) (next, pending kafka.Positions, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if err := CheckGeneration(ctx, s.conn, s.cfg.Generation); err != nil {
		return nil, nil, err
	}
	rows, err := s.conn.Query(
		ctx,
		fmt.Sprintf(
			"SELECT topic, toString(state), from_position, next FROM positions WHERE slot = %d AND generation = %d",
			slot, s.cfg.Generation,
		),
	)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	type begun struct {
		topic      topic.Topic
		from, next topic.Position
	}
	next, pending = kafka.Positions{}, kafka.Positions{}
	var open []begun
	for rows.Next() {
		var n int16
		var state string
		var from, to int64
		if err := rows.Scan(&n, &state, &from, &to); err != nil {
			return nil, nil, err
		}
		t, err := topic.FromNumber(int32(n))
		if err != nil {
			return nil, nil, err
		}
		if state == stateDone {
			next[t] = max(next[t], topic.Position(to))
			continue
		}
		open = append(open, begun{t, topic.Position(from), topic.Position(to)})
	}
	if err := rows.Err(); err != nil {
		return nil, nil, err
	}
	for _, b := range open {
		if b.from == next[b.topic] && b.next > b.from {
			pending[b.topic] = max(pending[b.topic], b.next)
		}
	}
	return next, pending, nil
}

// readHeld reads which subjects are parked by what lies before the positions.
func (s *Sink) readHeld(ctx context.Context, slot topic.Slot, next kafka.Positions) ([]projector.Held, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	rows, err := s.conn.Query(
		ctx,
		fmt.Sprintf(
			"SELECT topic, subject, min(position) FROM quarantine WHERE slot = %d AND subject != toUUID('%s') GROUP BY topic, subject",
			slot, uuid.Nil,
		),
	)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var held []projector.Held
	for rows.Next() {
		var n int16
		var subject uuid.UUID
		var first int64
		if err := rows.Scan(&n, &subject, &first); err != nil {
			return nil, err
		}
		t, err := topic.FromNumber(int32(n))
		if err != nil {
			return nil, err
		}
		if topic.Position(first) < next[t] {
			held = append(held, projector.Held{Topic: t, Subject: topic.Subject(subject)})
		}
	}
	return held, rows.Err()
}

// loadAtOnce bounds the threads and the messages that one query names, so that its text stays below the server's
// max_query_size.
const loadAtOnce = 2000

// load brings the thread states that the events touch into w: from the cache, and the rest from the tables as of the
// batch's first position.
func (s *Sink) load(ctx context.Context, st *slotState, b kafka.Batch, events []projector.Event, w *writes) error {
	var missing []id.ThreadID
	from := b.From[topic.Threads]
	for i := range events {
		if events[i].Topic != topic.Threads {
			continue
		}
		t := id.ThreadID(events[i].Subject)
		if w.states[t] != nil {
			continue
		}
		state, ok := st.threads.Get(t)
		if !ok {
			state = thread.New(t)
			state.Next = from
			missing = append(missing, t)
		}
		w.states[t] = state
	}
	if from == 0 {
		return nil // nothing can have been stored before
	}
	for some := range slices.Chunk(missing, loadAtOnce) {
		if err := s.loadThreads(ctx, some, from, w.states); err != nil {
			return err
		}
		s.metrics.loaded.Add(float64(len(some)))
	}
	var unsure []sent
	for i := range events {
		if e := &events[i]; e.Topic == topic.Threads {
			if key, ok := w.states[id.ThreadID(e.Subject)].Unsure(e.Body); ok {
				unsure = append(unsure, sent{id.ThreadID(e.Subject), key.Message})
			}
		}
	}
	for some := range slices.Chunk(unsure, loadAtOnce) {
		if err := s.lookUp(ctx, some, from, w.states); err != nil {
			return err
		}
		s.metrics.lookedUp.Add(float64(len(some)))
	}
	return nil
}

// sent is a message that may have been accepted before.
type sent struct {
	thread  id.ThreadID
	message id.MessageID
}

// list writes ids as ClickHouse takes them after IN.
func list[T fmt.Stringer](ids []T) string {
	var out strings.Builder
	for i, t := range ids {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteByte('\'')
		out.WriteString(t.String())
		out.WriteByte('\'')
	}
	return out.String()
}

func (s *Sink) loadThreads(
	ctx context.Context, ids []id.ThreadID, from topic.Position, states map[id.ThreadID]*thread.State,
) error {
	in := list(ids)
	if err := s.loadMembers(ctx, in, from, states); err != nil {
		return err
	}
	for _, t := range ids {
		states[t].Restore()
	}
	return s.loadMessages(ctx, in, from, states)
}

// loadMembers rebuilds the members and their spans from what each event made of them.
func (s *Sink) loadMembers(
	ctx context.Context, in string, from topic.Position, states map[id.ThreadID]*thread.State,
) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	rows, err := s.conn.Query(
		ctx,
		fmt.Sprintf(`SELECT thread_id, user_id, position, kind, active, role, ordinal FROM memberships FINAL
WHERE thread_id IN (%s) AND position < %d ORDER BY thread_id, user_id, position`, in, from),
	)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var t, u uuid.UUID
		var pos, ordinal int64
		var kind, role int16
		var active bool
		if err := rows.Scan(&t, &u, &pos, &kind, &active, &role, &ordinal); err != nil {
			return err
		}
		state := states[id.ThreadID(t)]
		state.Kind = thread.Kind(kind)
		m := state.Members[id.UserID(u)]
		if m == nil {
			m = &thread.Member{}
			state.Members[id.UserID(u)] = m
		}
		m.Role = thread.Role(role)
		switch {
		case active && !m.Active():
			m.Spans = append(m.Spans, thread.Span{From: topic.Position(pos)})
			m.BaseOrdinal, m.EndOrdinal = ordinal, 0
		case !active && m.Active():
			m.Spans[len(m.Spans)-1].To = topic.Position(pos)
			m.EndOrdinal = ordinal
		}
	}
	return rows.Err()
}

// loadMessages finds the last ordinal, the thread's clock and the last messages within the window before it. The stamps
// of a log may go back, so neither the clock nor the ordinal need be those of the last messages; the one with the
// highest stamp is always within the window.
func (s *Sink) loadMessages(
	ctx context.Context, in string, from topic.Position, states map[id.ThreadID]*thread.State,
) error {
	counts := map[id.ThreadID]int{}
	var last time.Time
	var ordinals int64
	err := s.eachMessage(
		ctx,
		fmt.Sprintf(
			`SELECT m.thread_id, m.sender_id, m.message_id, m.position, m.ordinal, m.log_time, l.last, l.ordinals
FROM messages AS m INNER JOIN (
  SELECT thread_id, max(log_time) AS last, max(ordinal) AS ordinals FROM messages WHERE thread_id IN (%[1]s) AND position < %[2]d GROUP BY thread_id
) AS l ON l.thread_id = m.thread_id
WHERE m.thread_id IN (%[1]s) AND m.position < %[2]d AND (m.log_time >= l.last - INTERVAL 24 HOUR)
ORDER BY m.thread_id, m.position DESC LIMIT %[3]d BY m.thread_id`,
			in,
			from,
			s.cfg.Recent,
		),
		states,
		func(state *thread.State) {
			state.LastOrdinal, state.LastTimeMS = ordinals, max(0, last.UnixMilli())
			counts[state.ID]++
		},
		&last,
		&ordinals,
	)
	if err != nil {
		return err
	}
	for t, n := range counts {
		if n == s.cfg.Recent {
			states[t].RestoreWithoutRecent()
		}
	}
	return nil
}

// lookUp finds messages that may have been accepted before.
func (s *Sink) lookUp(
	ctx context.Context, some []sent, from topic.Position, states map[id.ThreadID]*thread.State,
) error {
	threads, messages := map[id.ThreadID]bool{}, map[id.MessageID]bool{}
	since := int64(math.MaxInt64)
	for _, m := range some {
		threads[m.thread], messages[m.message] = true, true
		since = min(since, states[m.thread].LastTimeMS-thread.Window.Milliseconds())
	}
	return s.eachMessage(
		ctx,
		fmt.Sprintf(
			`SELECT thread_id, sender_id, message_id, position, ordinal, log_time FROM messages
WHERE thread_id IN (%s) AND message_id IN (%s) AND position < %d AND log_time >= fromUnixTimestamp64Milli(%d)`,
			list(
				slices.Collect(maps.Keys(threads)),
			),
			list(slices.Collect(maps.Keys(messages))),
			from,
			since,
		),
		states,
		func(*thread.State) {},
	)
}

// eachMessage reads messages into the states' Recent, and tells of each once its row's further columns are in more. Of
// an id that was used again after the window, the later one counts.
func (s *Sink) eachMessage(
	ctx context.Context, query string, states map[id.ThreadID]*thread.State, each func(*thread.State), more ...any,
) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	rows, err := s.conn.Query(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var t, sender, message uuid.UUID
		var pos, ordinal int64
		var at time.Time
		if err := rows.Scan(append([]any{&t, &sender, &message, &pos, &ordinal, &at}, more...)...); err != nil {
			return err
		}
		state := states[id.ThreadID(t)]
		key := thread.Key{Sender: id.UserID(sender), Message: id.MessageID(message)}
		if known, ok := state.Recent[key]; !ok || known.Position < topic.Position(pos) {
			state.Recent[key] = thread.Seen{Position: topic.Position(pos), TimeMS: at.UnixMilli(), Ordinal: ordinal}
		}
		each(state)
	}
	return rows.Err()
}
