package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// oneAnswer is how long a store may take to tell its positions before that is what the test complains of, and not the
// positions.
const oneAnswer = 20 * time.Second

// caughtUp waits until both views have taken in everything that the log holds now.
func (e *env) caughtUp(t *testing.T) {
	t.Helper()
	ctx := e.context(t)
	ends, err := e.ends(ctx)
	must(t, err)
	settled(t, "Postgres has caught up", func() string {
		ctx, cancel := context.WithTimeout(t.Context(), oneAnswer)
		defer cancel()
		rows, err := e.pg.Query(ctx, `SELECT topic, slot, next FROM views.positions`)
		if err != nil {
			return err.Error()
		}
		have := map[topic.Topic]map[int32]int64{topic.Threads: {}, topic.Receipts: {}, topic.Users: {}}
		var n, slot int32
		var next int64
		if _, err := pgx.ForEachRow(rows, []any{&n, &slot, &next}, func() error {
			tp, err := topic.FromNumber(n)
			if err == nil {
				have[tp][slot] = next
			}
			return err
		}); err != nil {
			return err.Error()
		}
		return behind(ends, have, topic.Threads, topic.Receipts, topic.Users)
	})
	settled(t, "ClickHouse has caught up", func() string {
		ctx, cancel := context.WithTimeout(t.Context(), oneAnswer)
		defer cancel()
		rows, err := e.ch.Query(
			ctx, `SELECT topic, slot, max(next) FROM positions WHERE state = 'done' GROUP BY topic, slot`,
		)
		if err != nil {
			return err.Error()
		}
		have := map[topic.Topic]map[int32]int64{topic.Threads: {}, topic.Receipts: {}}
		for rows.Next() {
			var n int16
			var slot int32
			var next int64
			if err := rows.Scan(&n, &slot, &next); err != nil {
				return err.Error()
			}
			if tp, err := topic.FromNumber(int32(n)); err == nil && have[tp] != nil {
				have[tp][slot] = next
			}
		}
		if err := rows.Err(); err != nil {
			return err.Error()
		}
		return behind(ends, have, topic.Threads, topic.Receipts)
	})
}

// watchPositions looks at the positions of the thread views all the time, until the returned function is called, which
// says whether one ever went back.
func (e *env) watchPositions(t *testing.T) func() string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	said := make(chan string, 1)
	go func() {
		highest := map[[2]int32]int64{}
		complaint := ""
		for complaint == "" && ctx.Err() == nil {
			rows, err := e.pg.Query(ctx, `SELECT topic, slot, next FROM views.positions`)
			if err != nil {
				continue
			}
			var n, slot int32
			var next int64
			_, _ = pgx.ForEachRow(rows, []any{&n, &slot, &next}, func() error { // a failed look is no look
				key := [2]int32{n, slot}
				if next < highest[key] {
					complaint = fmt.Sprintf(
						"the position of topic %d in slot %d went from %d to %d", n, slot, highest[key], next,
					)
				}
				highest[key] = max(highest[key], next)
				return nil
			})
		}
		said <- complaint
	}()
	return sync.OnceValue(func() string {
		cancel()
		return <-said
	})
}

func behind(ends, have map[topic.Topic]map[int32]int64, topics ...topic.Topic) string {
	for _, tp := range topics {
		for slot, end := range ends[tp] {
			if have[tp][slot] < end {
				return fmt.Sprintf("%s/%d: %d of %d", tp, slot, have[tp][slot], end)
			}
		}
	}
	return ""
}

// row is a message or another event as a view has it.
type row struct {
	At      int64
	Ordinal int64
	Sender  id.UserID
	Message id.MessageID
	TimeMS  int64
	Event   string // as it stands in the log
}

func (c *chronicle) rows() []row {
	out := make([]row, len(c.accepted))
	for i, s := range c.accepted {
		out[i] = row{int64(s.At), s.Ordinal, s.Sender, s.Message, s.TimeMS, string(c.raw[i])}
	}
	return out
}

// viewsAgree compares threads in both views with the log, row by row. Nothing may be written to them meanwhile.
func (e *env) viewsAgree(t *testing.T, tr *truth, threads ...id.ThreadID) {
	t.Helper()
	e.caughtUp(t)
	ctx := e.context(t)
	for _, th := range threads {
		c := tr.threads[th]
		if c == nil {
			t.Errorf("thread %s is not in the log", th)
			continue
		}
		got, err := e.postgresRows(ctx, th)
		must(t, err)
		if diff := cmp.Diff(c.rows(), got); diff != "" {
			t.Errorf("thread %s in Postgres (-log +view):\n%s", th, clip(diff))
		}
		got, err = e.clickhouseRows(ctx, th)
		must(t, err)
		if diff := cmp.Diff(c.rows(), got); diff != "" {
			t.Errorf("thread %s in ClickHouse (-log +view):\n%s", th, clip(diff))
		}
		if s := e.threadRow(ctx, c, th); s != "" {
			t.Errorf("thread %s in Postgres: %s", th, s)
		}
	}
}

func clip(s string) string {
	const most = 3000
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

func (e *env) postgresRows(ctx context.Context, th id.ThreadID) ([]row, error) {
	rows, err := e.pg.Query(
		ctx,
		`SELECT position, ordinal, sender_id, message_id, log_time, event FROM views.messages WHERE thread_id = $1 ORDER BY position`,
		[16]byte(th),
	)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (row, error) {
		var out row
		var sender, message pgtype.UUID
		var at time.Time
		var event []byte
		err := r.Scan(&out.At, &out.Ordinal, &sender, &message, &at, &event)
		out.Sender, out.Message, out.TimeMS, out.Event = sender.Bytes, message.Bytes, at.UnixMilli(), string(event)
		return out, err
	})
}

func (e *env) clickhouseRows(ctx context.Context, th id.ThreadID) ([]row, error) {
	rows, err := e.ch.Query(ctx, `SELECT position, ordinal, sender, message, log_time, event FROM (
		SELECT position, ordinal, sender_id AS sender, message_id AS message, log_time, event FROM messages FINAL WHERE thread_id = ?
		UNION ALL SELECT position, ordinal, actor_id, toUUID('00000000-0000-0000-0000-000000000000'), log_time, event FROM thread_events FINAL WHERE thread_id = ?
	) ORDER BY position`, uuid.UUID(th), uuid.UUID(th))
	if err != nil {
		return nil, err
	}
	var out []row
	for rows.Next() {
		var r row
		var sender, message uuid.UUID
		var at time.Time
		if err := rows.Scan(&r.At, &r.Ordinal, &sender, &message, &at, &r.Event); err != nil {
			return nil, err
		}
		r.Sender, r.Message, r.TimeMS = id.UserID(sender), id.MessageID(message), at.UnixMilli()
		out = append(out, r)
	}
	return out, rows.Err()
}

// threadRow compares a thread's own row and its members with the fold.
func (e *env) threadRow(ctx context.Context, c *chronicle, th id.ThreadID) string {
	var title, preview string
	var position, ordinal int64
	var members int
	err := e.pg.QueryRow(
		ctx,
		`SELECT title, preview, last_position, last_ordinal, (SELECT count(*) FROM views.members m WHERE m.thread_id = t.thread_id AND m.active)
		FROM views.threads t WHERE thread_id = $1`,
		[16]byte(th),
	).Scan(
		&title, &preview, &position, &ordinal, &members,
	)
	if err != nil {
		return err.Error()
	}
	s := c.state
	want := fmt.Sprintf("%q %q %d %d %d", s.Title, s.Preview, s.LastPosition, s.LastOrdinal, s.ActiveMembers())
	if got := fmt.Sprintf("%q %q %d %d %d", title, preview, position, ordinal, members); got != want {
		return fmt.Sprintf("is %s, want %s", got, want)
	}
	return ""
}

// rowsOf dumps a table of the thread views, for a comparison of two states of it.
func (e *env) rowsOf(t *testing.T, table string) map[string]int {
	t.Helper()
	rows, err := e.pg.Query(e.context(t), `SELECT to_jsonb(x)::text FROM views.`+table+` x`)
	must(t, err)
	out := map[string]int{}
	var line string
	_, err = pgx.ForEachRow(rows, []any{&line}, func() error { out[line]++; return nil })
	must(t, err)
	return out
}

// historyOf dumps what a query of the history finds.
func (e *env) historyOf(t *testing.T, query string) map[string]int {
	t.Helper()
	rows, err := e.ch.Query(e.context(t), `SELECT toJSONString(tuple(*)) FROM (`+query+`)`)
	must(t, err)
	out := map[string]int{}
	for rows.Next() {
		var line string
		must(t, rows.Scan(&line))
		out[line]++
	}
	must(t, rows.Err())
	return out
}
