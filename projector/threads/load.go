package threads

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"heliograph/infra/kafka"
	"heliograph/projector"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

const (
	sqlPositions = `SELECT topic, next, log_time FROM positions WHERE slot = $1`
	sqlHeld      = `SELECT DISTINCT topic, subject FROM quarantine WHERE slot = $1 AND subject <> '00000000-0000-0000-0000-000000000000'`

	sqlThreads = `SELECT thread_id, kind, title, last_position, last_ordinal, last_time, last_sender, preview FROM threads WHERE thread_id = ANY($1::uuid[])`
	sqlMembers = `SELECT thread_id, user_id, role, spans, base_ordinal, end_ordinal FROM members WHERE thread_id = ANY($1::uuid[])`
	// In position order: of an id that was used again after the window, the later one counts. OFFSET 0 keeps it a
	// search for one after the other: a join would be planned by how many messages there were when the connection first
	// asked. What a next owner may have stored already is not of this state.
	sqlSent = `SELECT k.thread_id, k.sender_id, k.message_id, m.position, m.ordinal, m.log_time
  FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS k (thread_id, sender_id, message_id)
 CROSS JOIN LATERAL (
       SELECT position, ordinal, log_time FROM messages
        WHERE kind = 10 AND message_id = k.message_id AND thread_id = k.thread_id AND sender_id = k.sender_id AND position < $4 OFFSET 0
       ) m
 ORDER BY m.position`

	sqlUsers    = `SELECT user_id, phone_hash, generation, name, registered FROM users WHERE user_id = ANY($1::uuid[])`
	sqlDevices  = `SELECT user_id, device_id, public_key, name, is_primary, revoked, since_position, since FROM devices WHERE user_id = ANY($1::uuid[])`
	sqlContacts = `SELECT user_id, phone_hash, name FROM contacts WHERE user_id = ANY($1::uuid[])`
	sqlBlocks   = `SELECT user_id, blocked_id FROM blocks WHERE user_id = ANY($1::uuid[])`
	sqlLists    = `SELECT user_id, thread_id, joined_position, has_left FROM user_threads WHERE user_id = ANY($1::uuid[])`
)

// readSlot reads what is stored about a slot: positions, the latest log time of its threads and the subjects that are
// parked.
func (s *Sink) readSlot(
	ctx context.Context, slot topic.Slot,
) (next kafka.Positions, latest int64, held []projector.Held, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	next = kafka.Positions{}
	var b pgx.Batch
	b.Queue(sqlPositions, int32(slot)).Query(func(rows pgx.Rows) error {
		return each(rows, func() error {
			var n int16
			var pos int64
			var at time.Time
			if err := rows.Scan(&n, &pos, &at); err != nil {
				return err
			}
			t, err := topic.FromNumber(int32(n))
			if err != nil {
				return err
			}
			next[t] = topic.Position(pos)
			if t == topic.Threads {
				latest = at.UnixMilli()
			}
			return nil
		})
	})
	b.Queue(sqlHeld, int32(slot)).Query(func(rows pgx.Rows) error {
		return each(rows, func() error {
			var n int16
			var subject [16]byte
			if err := rows.Scan(&n, &subject); err != nil {
				return err
			}
			t, err := topic.FromNumber(int32(n))
			if err != nil {
				return err
			}
			held = append(held, projector.Held{Topic: t, Subject: subject})
			return nil
		})
	})
	if err := s.pool.SendBatch(ctx, &b).Close(); err != nil {
		return nil, 0, nil, err
	}
	return next, latest, held, nil
}

func each(rows pgx.Rows, fn func() error) error {
	for rows.Next() {
		if err := fn(); err != nil {
			return err
		}
	}
	return rows.Err()
}

// load brings the states that the events touch into w: from the caches, and the rest from the tables in one round trip.
// Of a thread's recent messages it brings those that the events may repeat.
func (s *Sink) load(ctx context.Context, st *slotState, b kafka.Batch, events []projector.Event, w *writes) error {
	var threads, users []pgtype.UUID
	var unsure sent
	for i := range events {
		switch e := &events[i]; e.Topic {
		case topic.Threads:
			t := id.ThreadID(e.Subject)
			state := w.threadStates[t]
			if state == nil {
				var ok bool
				if state, ok = st.threads.Get(t); !ok {
					state = thread.Unloaded(t)
					threads = append(threads, uuid(t))
				}
				w.threadStates[t] = state
			}
			if key, ok := state.Unsure(e.Body); ok {
				unsure.add(t, key)
			}
		case topic.Users:
			u := id.UserID(e.Subject)
			if w.userStates[u] != nil {
				continue
			}
			state, ok := st.users.Get(u)
			if !ok {
				state = user.New(u)
				users = append(users, uuid(u))
			}
			w.userStates[u] = state
		}
	}
	var q pgx.Batch
	if len(threads) > 0 {
		queueThreads(&q, threads, w.threadStates)
	}
	if len(unsure.threads) > 0 {
		unsure.queue(&q, b.From[topic.Threads], w.threadStates)
	}
	if len(users) > 0 {
		queueUsers(&q, users, w.userStates)
	}
	if q.Len() == 0 {
		return nil
	}
	if err := s.pool.SendBatch(ctx, &q).Close(); err != nil {
		return err
	}
	for _, k := range threads {
		state := w.threadStates[k.Bytes]
		state.Next = b.From[topic.Threads]
		state.RestoreWithoutRecent()
	}
	for _, k := range users {
		w.userStates[k.Bytes].Next = b.From[topic.Users]
	}
	s.metrics.loaded.WithLabelValues("thread").Add(float64(len(threads)))
	s.metrics.loaded.WithLabelValues("user").Add(float64(len(users)))
	s.metrics.lookedUp.Add(float64(len(unsure.threads)))
	return nil
}

func queueThreads(q *pgx.Batch, ids []pgtype.UUID, states map[id.ThreadID]*thread.State) {
	q.Queue(sqlThreads, ids).Query(func(rows pgx.Rows) error {
		return each(rows, func() error {
			var t, sender [16]byte
			var kind int16
			var title, preview string
			var pos, ordinal int64
			var last time.Time
			if err := rows.Scan(&t, &kind, &title, &pos, &ordinal, &last, &sender, &preview); err != nil {
				return err
			}
			s := states[t]
			s.Kind, s.Title, s.Preview, s.LastSender = thread.Kind(kind), title, preview, sender
			s.LastPosition, s.LastOrdinal, s.LastTimeMS = topic.Position(pos), ordinal, last.UnixMilli()
			return nil
		})
	})
	q.Queue(sqlMembers, ids).Query(func(rows pgx.Rows) error {
		return each(rows, func() error {
			var t, u [16]byte
			var role int16
			var spans []int64
			m := &thread.Member{}
			if err := rows.Scan(&t, &u, &role, &spans, &m.BaseOrdinal, &m.EndOrdinal); err != nil {
				return err
			}
			if len(spans)%2 != 0 {
				return errors.New("a member's spans are not pairs")
			}
			m.Role = thread.Role(role)
			for i := 0; i < len(spans); i += 2 {
				m.Spans = append(m.Spans, thread.Span{From: topic.Position(spans[i]), To: topic.Position(spans[i+1])})
			}
			states[t].Members[u] = m
			return nil
		})
	})
}

// sent are messages that may have been accepted before: they are looked up by their ids, because a busy thread has more
// of them within the window than are worth loading for the next one.
type sent struct{ threads, senders, messages []pgtype.UUID }

func (l *sent) add(t id.ThreadID, k thread.Key) {
	l.threads, l.senders, l.messages = append(
		l.threads, uuid(t),
	), append(
		l.senders, uuid(k.Sender),
	), append(
		l.messages, uuid(k.Message),
	)
}

func (l *sent) queue(q *pgx.Batch, before topic.Position, states map[id.ThreadID]*thread.State) {
	q.Queue(sqlSent, l.threads, l.senders, l.messages, int64(before)).Query(func(rows pgx.Rows) error {
		return each(rows, func() error {
			var t, sender, message [16]byte
			var pos, ordinal int64
			var at time.Time
			if err := rows.Scan(&t, &sender, &message, &pos, &ordinal, &at); err != nil {
				return err
			}
			states[t].Recent[thread.Key{Sender: sender, Message: message}] = thread.Seen{
				Position: topic.Position(pos), TimeMS: at.UnixMilli(), Ordinal: ordinal,
			}
			return nil
		})
	})
}

func queueUsers(q *pgx.Batch, ids []pgtype.UUID, states map[id.UserID]*user.State) {
	q.Queue(sqlUsers, ids).Query(func(rows pgx.Rows) error {
		return each(rows, func() error {
			var u, hash [16]byte
			var generation int32
			var name string
			var registered time.Time
			if err := rows.Scan(&u, &hash, &generation, &name, &registered); err != nil {
				return err
			}
			s := states[u]
			s.PhoneHash, s.Generation, s.Name, s.RegisteredMS = hash, uint32(generation), name, registered.UnixMilli()
			return nil
		})
	})
	q.Queue(sqlDevices, ids).Query(func(rows pgx.Rows) error {
		return each(rows, func() error {
			var u, d [16]byte
			var key []byte
			var pos int64
			var since time.Time
			dev := &user.Device{}
			if err := rows.Scan(&u, &d, &key, &dev.Name, &dev.Primary, &dev.Revoked, &pos, &since); err != nil {
				return err
			}
			if copy(dev.Key[:], key) != len(dev.Key) || len(key) != len(dev.Key) {
				return fmt.Errorf("a device's key has %d bytes", len(key))
			}
			dev.Since, dev.SinceMS = topic.Position(pos), since.UnixMilli()
			states[u].Devices[d] = dev
			return nil
		})
	})
	q.Queue(sqlContacts, ids).Query(func(rows pgx.Rows) error {
		return each(rows, func() error {
			var u, hash [16]byte
			var name string
			if err := rows.Scan(&u, &hash, &name); err != nil {
				return err
			}
			states[u].Contacts[hash] = name
			return nil
		})
	})
	q.Queue(sqlBlocks, ids).Query(func(rows pgx.Rows) error {
		return each(rows, func() error {
			var u, other [16]byte
			if err := rows.Scan(&u, &other); err != nil {
				return err
			}
			states[u].Blocked[other] = true
			return nil
		})
	})
	q.Queue(sqlLists, ids).Query(func(rows pgx.Rows) error {
		return each(rows, func() error {
			var u, t [16]byte
			var pos int64
			var left bool
			if err := rows.Scan(&u, &t, &pos, &left); err != nil {
				return err
			}
			states[u].Threads[t] = user.Joined{At: topic.Position(pos), Left: left}
			return nil
		})
	})
}

func uuid[T ~[id.Size]byte](v T) pgtype.UUID { return pgtype.UUID{Bytes: v, Valid: true} }
