package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"heliograph/infra/history"
	"heliograph/infra/kafka"
	"heliograph/infra/views"
	"heliograph/projector/threads"
	"heliograph/projector/verify"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/tools/operator"
)

// caughtUp waits until both views have taken in everything that the log holds now.
func (e *env) caughtUp(t *testing.T) {
	t.Helper()
	listed, err := e.ends(e.context(t))
	must(t, err)
	ends := operator.Ends{}
	for tp, slots := range listed {
		ends[tp] = map[topic.Slot]topic.Position{}
		for slot, end := range slots {
			ends[tp][topic.Slot(slot)] = topic.Position(end)
		}
	}
	v := operator.NewViews(views.New(e.pg), history.New(e.ch))
	settled(t, "both views have caught up", func() string {
		behind, err := v.Behind(t.Context(), ends)
		if err != nil {
			return err.Error()
		}
		return behind
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
					complaint = fmt.Sprintf("the position of topic %d in slot %d went from %d to %d",
						n, slot, highest[key], next)
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

// compare compares both views with a fold of the log, all rows of them.
func (e *env) compare(t *testing.T) []*verify.Report {
	t.Helper()
	cfg := verify.Config{
		Kafka: kafka.Config{Brokers: []string{e.KafkaAddr()}, Partitions: e.Partitions()}, Partitions: e.Partitions(),
		Retention: threads.DefaultRetention,
	}
	ctx := e.context(t)
	inViews, err := verify.Threads(ctx, cfg, e.pg)
	must(t, err)
	inHistory, err := verify.History(ctx, cfg, e.ch)
	must(t, err)
	return []*verify.Report{inViews, inHistory}
}

// viewsAgree waits until both views have everything and compares them with the log, row by row.
func (e *env) viewsAgree(t *testing.T) {
	t.Helper()
	e.caughtUp(t)
	for _, r := range e.compare(t) {
		if !r.Comparable() {
			t.Errorf("the log does not reach as far as the %s: %+v", r.View, r.Places)
		}
		for i, d := range r.Differences {
			if i == 20 {
				t.Errorf("%s: and %d more", r.View, len(r.Differences)-i)
				break
			}
			t.Errorf("%s: %s", r.View, d)
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

// eventsOf counts the accepted events of a thread in both views.
func (e *env) eventsOf(t *testing.T, th id.ThreadID) map[string]int {
	t.Helper()
	var inViews, inHistory uint64
	must(t, e.pg.QueryRow(
		e.context(t), `SELECT count(*) FROM messages WHERE thread_id = $1`, [16]byte(th),
	).Scan(&inViews))
	must(t, e.ch.QueryRow(
		e.context(t), `SELECT (SELECT count() FROM messages FINAL WHERE thread_id = ?)
		+ (SELECT count() FROM thread_events FINAL WHERE thread_id = ?)`, uuid.UUID(th), uuid.UUID(th),
	).Scan(&inHistory))
	return map[string]int{"Postgres": int(inViews), "ClickHouse": int(inHistory)}
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
