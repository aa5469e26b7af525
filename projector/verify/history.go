package verify

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// The times that the history can hold; a client's clock may say anything.
const (
	earliestMS = -2208988800000
	latestMS   = 10413791999999
)

// kindMessage is the kind of an accepted event that is a message.
var kindMessage = int16(eventv1.Event_MessageSent_case)

// changeOf names what a change does to a message.
var changeOf = map[int16]string{
	int16(eventv1.Event_MessageEdited_case):  "edited",
	int16(eventv1.Event_MessageDeleted_case): "deleted",
	int16(eventv1.Event_ReactionSet_case):    "reaction",
}

// historyRows returns what the history should hold.
func (r *Reference) historyRows() tables {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := tables{}
	for n, s := range r.slots {
		for t, next := range s.next {
			if next > 0 && t != topic.Users {
				out.put("positions", keyOf(t, n), int64(next))
			}
		}
		for _, q := range s.quarantined {
			if q.Topic != topic.Users {
				out.put(
					"quarantine", keyOf(q.Topic, q.Slot, q.Position), id.ThreadID(q.Subject).String(), q.Reason,
					q.TimeMS,
				)
			}
		}
		for _, a := range s.accepted {
			key := keyOf(a.thread, int64(a.at))
			if a.kind == kindMessage {
				out.put(
					"messages", key, a.ordinal, int(n), a.sender.String(), canonicalOrZero(a.device), zeroID(a.message),
					zeroID(a.replyTo), a.timeMS, min(max(a.client, earliestMS), latestMS), a.keyID, a.body, a.event,
				)
			} else {
				out.put("thread_events", key, a.ordinal, int(n), a.name, a.sender.String(), a.timeMS, a.title, a.event)
			}
			if c, ok := changeOf[a.kind]; ok {
				out.put(
					"message_changes", keyOf(key, zeroID(a.author), zeroID(a.message)), int(n), c, a.sender.String(),
					a.timeMS, a.keyID, a.body, a.emoji,
				)
			}
			for _, m := range a.members {
				out.put(
					"memberships", keyOf(key, m.user), int(n), int16(m.kind), m.active, int16(m.role), m.ordinal,
					a.timeMS,
				)
			}
		}
		for _, c := range s.receipts {
			out.put("receipts", keyOf(c.thread, c.user, c.device, int64(c.at)), int(n), c.mark, c.timeMS)
		}
	}
	return out
}

func canonicalOrZero(b []byte) string { return zeroID(canonical(b)) }

// CompareHistory compares the history with the reference, which should have been filled from the same topics, and
// returns the differences. The connection's default database is that of the history. With final, rows that
// ReplacingMergeTree has yet to make one count once; without, a row that is there twice is a difference.
func CompareHistory(ctx context.Context, conn driver.Conn, ref *Reference, final bool) ([]Difference, error) {
	got, twice, err := readHistory(ctx, conn, final)
	if err != nil {
		return nil, fmt.Errorf("verify: read the history: %w", err)
	}
	return append(diff(ref.historyRows(), got, "receipts"), twice...), nil
}

type historyReader struct {
	table, columns string
	row            func(driver.Rows) (key string, fields []any, err error)
}

func readHistory(ctx context.Context, conn driver.Conn, final bool) (tables, []Difference, error) {
	out := tables{}
	var twice []Difference
	for _, r := range historyReaders() {
		sql := "SELECT " + r.columns + " FROM " + r.table
		if final && r.table != "positions" {
			sql += " FINAL"
		}
		if r.table == "positions" {
			sql += " WHERE state = 'done' GROUP BY topic, slot"
		}
		rows, err := conn.Query(ctx, sql)
		if err != nil {
			return nil, nil, err
		}
		for rows.Next() {
			key, fields, err := r.row(rows)
			if err != nil {
				rows.Close()
				return nil, nil, err
			}
			if _, ok := out[r.table][key]; ok {
				twice = append(twice, Difference{Table: r.table, Key: key, Got: "the row is there twice"})
			}
			out.put(r.table, key, fields...)
		}
		err = rows.Err()
		rows.Close()
		if err != nil {
			return nil, nil, err
		}
	}
	return out, twice, nil
}

func historyReaders() []historyReader {
	var a, b, c, d, e uuid.UUID
	var s1, s2, s3 string
	var n16, m16 int16
	var n32 int32
	var n64, m64 int64
	var u64 uint64
	var flag bool
	var at, at2 time.Time
	return []historyReader{
		{"positions", "topic, slot, max(next)", func(r driver.Rows) (string, []any, error) {
			if err := r.Scan(&n16, &n32, &n64); err != nil {
				return "", nil, err
			}
			t, err := topic.FromNumber(int32(n16))
			return keyOf(t, n32), []any{n64}, err
		}},
		{"quarantine", "topic, slot, position, subject, reason, log_time", func(r driver.Rows) (string, []any, error) {
			if err := r.Scan(&n16, &n32, &n64, &a, &s1, &at); err != nil {
				return "", nil, err
			}
			t, err := topic.FromNumber(int32(n16))
			return keyOf(t, n32, n64), []any{a.String(), s1, at.UnixMilli()}, err
		}},
		{
			"messages",
			"thread_id, position, ordinal, slot, sender_id, sender_device, message_id, reply_to, log_time, client_time, key_id, body, event",
			func(r driver.Rows) (string, []any, error) {
				err := r.Scan(&a, &n64, &m64, &n32, &b, &c, &d, &e, &at, &at2, &u64, &s1, &s2)
				return keyOf(
						a, n64,
					), []any{
						m64,
						n32,
						b.String(),
						c.String(),
						d.String(),
						e.String(),
						at.UnixMilli(),
						at2.UnixMilli(),
						u64,
						digest([]byte(s1)),
						digest([]byte(s2)),
					}, err
			},
		},
		{
			"thread_events",
			"thread_id, position, ordinal, slot, kind, actor_id, log_time, title, event",
			func(r driver.Rows) (string, []any, error) {
				err := r.Scan(&a, &n64, &m64, &n32, &s1, &b, &at, &s2, &s3)
				return keyOf(a, n64), []any{m64, n32, s1, b.String(), at.UnixMilli(), s2, digest([]byte(s3))}, err
			},
		},
		{
			"message_changes",
			"thread_id, author_id, message_id, position, slot, change, actor_id, log_time, key_id, body, emoji",
			func(r driver.Rows) (string, []any, error) {
				err := r.Scan(&a, &b, &c, &n64, &n32, &s1, &d, &at, &u64, &s2, &s3)
				return keyOf(
						keyOf(a, n64), b, c,
					), []any{
						n32,
						s1,
						d.String(),
						at.UnixMilli(),
						u64,
						digest([]byte(s2)),
						s3,
					}, err
			},
		},
		{
			"memberships",
			"thread_id, user_id, position, slot, kind, active, role, ordinal, log_time",
			func(r driver.Rows) (string, []any, error) {
				err := r.Scan(&a, &b, &n64, &n32, &n16, &flag, &m16, &m64, &at)
				return keyOf(keyOf(a, n64), b), []any{n32, n16, flag, m16, m64, at.UnixMilli()}, err
			},
		},
		{
			"receipts",
			"thread_id, user_id, device_id, position, slot, delivered_position, delivered_ordinal, read_position, read_ordinal, log_time",
			func(r driver.Rows) (string, []any, error) {
				var w [4]int64
				err := r.Scan(&a, &b, &c, &n64, &n32, &w[0], &w[1], &w[2], &w[3], &at)
				return keyOf(a, b, c, n64), []any{n32, markOf(w), at.UnixMilli()}, err
			},
		},
	}
}
