package verify

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// threadRows returns what the thread views should hold. Messages older than retention before the latest log time of
// their slot are left out; 0 leaves out none.
func (r *Reference) threadRows(retention time.Duration) tables {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := tables{}
	for n, s := range r.slots {
		for t, next := range s.next {
			if next > 0 {
				out.put("positions", keyOf(t, n), int64(next))
			}
		}
		for _, q := range s.quarantined {
			out.put(
				"quarantine", keyOf(q.Topic, q.Slot, q.Position), id.ThreadID(q.Subject).String(), q.Reason, q.TimeMS,
			)
		}
		for t, st := range s.threads {
			if st.Kind == 0 {
				continue
			}
			out.put(
				"threads", keyOf(t), st.Kind, st.Title, int64(st.LastPosition), st.LastOrdinal, st.LastTimeMS,
				st.LastSender.String(), st.Preview,
			)
			for u, m := range st.Members {
				out.put("members", keyOf(t, u), m.Role, m.Active(), flatten(m.Spans), m.BaseOrdinal, m.EndOrdinal)
			}
		}
		for _, a := range s.accepted {
			if retention > 0 && a.timeMS < s.latest[topic.Threads]-retention.Milliseconds() {
				continue
			}
			out.put(
				"messages", keyOf(a.thread, int64(a.at)), a.ordinal, a.kind, a.sender.String(), a.message, a.timeMS,
				int(n), a.event,
			)
		}
		for k, m := range s.marks {
			out.put("watermarks", keyOf(id.ThreadID(k[0]), id.UserID(k[1])), m)
		}
		for k, d := range s.devices {
			out.put("device_watermarks", keyOf(id.ThreadID(k[0]), id.DeviceID(k[1]), id.UserID(k[2])), d)
		}
		for u, st := range s.users {
			if st.Generation > 0 {
				out.put("users", keyOf(u), id.UserID(st.PhoneHash).String(), st.Generation, st.Name, st.RegisteredMS)
			}
			for d, dev := range st.Devices {
				out.put(
					"devices", keyOf(u, d), digest(dev.Key[:]), dev.Name, dev.Primary, dev.Revoked, int64(dev.Since),
					dev.SinceMS,
				)
			}
			for h, name := range st.Contacts {
				out.put("contacts", keyOf(u, id.UserID(h)), name)
			}
			for b := range st.Blocked {
				out.put("blocks", keyOf(u, b), true)
			}
			for t, j := range st.Threads {
				out.put("user_threads", keyOf(u, t), int64(j.At), j.Left)
			}
		}
	}
	return out
}

// CompareThreads compares the thread views with the reference and returns the differences. The pool's search_path names
// the views' schema; retention is the projector's, and 0 expects every message.
func CompareThreads(
	ctx context.Context, pool *pgxpool.Pool, ref *Reference, retention time.Duration,
) ([]Difference, error) {
	got, err := readThreads(ctx, pool, ref, retention)
	if err != nil {
		return nil, fmt.Errorf("verify: read the thread views: %w", err)
	}
	return diff(ref.threadRows(retention), got), nil
}

func readThreads(ctx context.Context, pool *pgxpool.Pool, ref *Reference, retention time.Duration) (tables, error) {
	out := tables{}
	err := pgx.BeginTxFunc(
		ctx,
		pool,
		pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly},
		func(tx pgx.Tx) error {
			for _, r := range threadReaders(out, ref, retention) {
				rows, err := tx.Query(ctx, r.sql)
				if err != nil {
					return err
				}
				for rows.Next() {
					if err := r.row(rows); err != nil {
						rows.Close()
						return err
					}
				}
				if err := rows.Err(); err != nil {
					return err
				}
			}
			return nil
		},
	)
	return out, err
}

type reader struct {
	sql string
	row func(pgx.Rows) error
}

func threadReaders(out tables, ref *Reference, retention time.Duration) []reader {
	cutoffs := map[int32]int64{}
	if retention > 0 {
		ref.mu.Lock()
		for n, s := range ref.slots {
			cutoffs[int32(n)] = s.latest[topic.Threads] - retention.Milliseconds()
		}
		ref.mu.Unlock()
	}
	var a, b, c, d [16]byte
	var s1, s2 string
	var n16, m16 int16
	var n32 int32
	var n64, m64 int64
	var b1, b2 bool
	var raw []byte
	var at time.Time
	uuid := func(v [16]byte) string { return id.UserID(v).String() }
	return []reader{
		{"SELECT topic, slot, next FROM positions", func(r pgx.Rows) error {
			if err := r.Scan(&n16, &n32, &n64); err != nil {
				return err
			}
			t, err := topic.FromNumber(int32(n16))
			out.put("positions", keyOf(t, n32), n64)
			return err
		}},
		{"SELECT topic, slot, position, subject, reason, log_time FROM quarantine", func(r pgx.Rows) error {
			if err := r.Scan(&n16, &n32, &n64, &a, &s1, &at); err != nil {
				return err
			}
			t, err := topic.FromNumber(int32(n16))
			out.put("quarantine", keyOf(t, n32, n64), uuid(a), s1, at.UnixMilli())
			return err
		}},
		{
			"SELECT thread_id, kind, title, last_position, last_ordinal, last_time, last_sender, preview FROM threads",
			func(r pgx.Rows) error {
				err := r.Scan(&a, &n16, &s1, &n64, &m64, &at, &b, &s2)
				out.put("threads", keyOf(id.ThreadID(a)), n16, s1, n64, m64, at.UnixMilli(), uuid(b), s2)
				return err
			},
		},
		{
			"SELECT thread_id, user_id, role, active, spans, base_ordinal, end_ordinal FROM members",
			func(r pgx.Rows) error {
				var spans []int64
				err := r.Scan(&a, &b, &n16, &b1, &spans, &n64, &m64)
				out.put("members", keyOf(uuid(a), uuid(b)), n16, b1, spans, n64, m64)
				return err
			},
		},
		{
			"SELECT thread_id, position, ordinal, kind, sender_id, message_id, log_time, slot, event FROM messages",
			func(r pgx.Rows) error {
				var message pgtype.UUID
				if err := r.Scan(&a, &n64, &m64, &m16, &b, &message, &at, &n32, &raw); err != nil {
					return err
				}
				if cut, ok := cutoffs[n32]; ok && at.UnixMilli() < cut {
					return nil
				}
				s1 = ""
				if message.Valid {
					s1 = uuid(message.Bytes)
				}
				out.put("messages", keyOf(uuid(a), n64), m64, m16, uuid(b), s1, at.UnixMilli(), n32, digest(raw))
				return nil
			},
		},
		{
			"SELECT thread_id, user_id, delivered_position, delivered_ordinal, read_position, read_ordinal FROM watermarks",
			func(r pgx.Rows) error {
				var w [4]int64
				err := r.Scan(&a, &b, &w[0], &w[1], &w[2], &w[3])
				out.put("watermarks", keyOf(uuid(a), uuid(b)), markOf(w))
				return err
			},
		},
		{
			"SELECT thread_id, device_id, user_id, delivered_position, delivered_ordinal, read_position, read_ordinal FROM device_watermarks",
			func(r pgx.Rows) error {
				var w [4]int64
				err := r.Scan(&a, &b, &c, &w[0], &w[1], &w[2], &w[3])
				out.put("device_watermarks", keyOf(uuid(a), uuid(b), uuid(c)), markOf(w))
				return err
			},
		},
		{"SELECT user_id, phone_hash, generation, name, registered FROM users", func(r pgx.Rows) error {
			err := r.Scan(&a, &b, &n32, &s1, &at)
			out.put("users", keyOf(uuid(a)), uuid(b), uint32(n32), s1, at.UnixMilli())
			return err
		}},
		{
			"SELECT user_id, device_id, public_key, name, is_primary, revoked, since_position, since FROM devices",
			func(r pgx.Rows) error {
				err := r.Scan(&a, &b, &raw, &s1, &b1, &b2, &n64, &at)
				out.put("devices", keyOf(uuid(a), uuid(b)), digest(raw), s1, b1, b2, n64, at.UnixMilli())
				return err
			},
		},
		{"SELECT user_id, phone_hash, name FROM contacts", func(r pgx.Rows) error {
			err := r.Scan(&a, &b, &s1)
			out.put("contacts", keyOf(uuid(a), uuid(b)), s1)
			return err
		}},
		{"SELECT user_id, blocked_id FROM blocks", func(r pgx.Rows) error {
			err := r.Scan(&a, &d)
			out.put("blocks", keyOf(uuid(a), uuid(d)), true)
			return err
		}},
		{"SELECT user_id, thread_id, joined_position, has_left FROM user_threads", func(r pgx.Rows) error {
			err := r.Scan(&a, &b, &n64, &b1)
			out.put("user_threads", keyOf(uuid(a), uuid(b)), n64, b1)
			return err
		}},
	}
}
