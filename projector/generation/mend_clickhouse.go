package generation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/uuid"

	"heliograph/infra/history"
	"heliograph/infra/kafka"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// ofThread are the tables of the history that have rows of a thread, and the topic of their positions. Of receipts the
// log may have compacted away what the history has, which is not undue.
var ofThread = []struct {
	table string
	topic topic.Topic
	all   bool
}{
	{"messages", topic.Threads, true}, {"thread_events", topic.Threads, true}, {"message_changes", topic.Threads, true},
	{"memberships", topic.Threads, true}, {"invitations", topic.Threads, true}, {"receipts", topic.Receipts, false},
}

// Reached implements Mender.
func (c *ClickHouse) Reached(ctx context.Context, slot topic.Slot) (kafka.Positions, error) {
	ends, err := c.history.Ends(ctx)
	return reached(ends, slot, func(e history.End) topic.Position { return e.Done }), err
}

func reached(ends []history.End, slot topic.Slot, of func(history.End) topic.Position) kafka.Positions {
	out := kafka.Positions{}
	for _, e := range ends {
		if e.Slot == slot {
			out[e.Topic] = of(e)
		}
	}
	return out
}

// Mend implements Mender. The right rows are inserted first, which replaces wrong ones of the same key for whoever asks
// with FINAL; then what is otherwise is deleted. Nothing is missing at any moment.
//
// What a writer has begun and not done counts as taken in: some of its rows may be there, and its tokens keep them from
// being inserted again.
func (c *ClickHouse) Mend(
	ctx context.Context, g Generation, s Subject, slot topic.Slot, fill Filling,
) (out []Mended, err error) {
	if s.Kind != ThreadSubject {
		return nil, errors.New("the history has nothing of users: mend them in Postgres")
	}
	live, err := c.history.Building(ctx)
	if err != nil {
		return nil, err
	}
	sw := history.Switching{Open: true, Beside: g.Place, Number: live.Number, Leaves: live.Number}
	sw.Tables, sw.Was, sw.Becomes = []string{}, []uuid.UUID{}, []uuid.UUID{} // nothing is exchanged
	if err := c.seal(ctx, sw); err != nil {
		return nil, err
	}
	defer func() {
		sw.Open = false
		err = errors.Join(err, c.seal(context.WithoutCancel(ctx), sw))
	}()
	ends, err := c.takeAll(ctx)
	if err != nil {
		return nil, err
	}
	at := reached(ends, slot, func(e history.End) topic.Position { return e.Begun })
	if err := fill(ctx, at); err != nil {
		return nil, err
	}
	thread := uuid.UUID(id.ThreadID(s.ID))
	for _, t := range ofThread {
		m, err := c.mendTable(ctx, g.Place, t.table, thread, at[t.topic], t.all)
		if err != nil {
			return out, fmt.Errorf("mend %s of thread %v: %w", t.table, thread, err)
		}
		out = append(out, m)
	}
	m, err := c.mendQuarantine(ctx, g.Place, thread)
	if err != nil {
		return out, fmt.Errorf("mend the quarantine of thread %v: %w", thread, err)
	}
	return append(out, m), nil
}

// once has an insert taken for no repetition of any other.
func once(ctx context.Context) context.Context {
	return clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
		"insert_deduplicate": 1, "insert_deduplication_token": "once/" + uuid.NewString(),
	}))
}

func (c *ClickHouse) mendTable(
	ctx context.Context, beside, name string, thread uuid.UUID, end topic.Position, all bool,
) (Mended, error) {
	m := Mended{Table: name}
	columns, err := c.columns(ctx, beside, name)
	if err != nil {
		return m, err
	}
	list := strings.Join(columns, ", ")
	right, now := table(beside, name), table(c.live, name)
	const here = " WHERE thread_id = ? AND position < ?"
	digests := func(from string) string { return "SELECT cityHash64(" + list + ") FROM " + from + " FINAL" + here }
	err = c.conn.QueryRow(ctx, `SELECT (SELECT count() FROM `+right+` FINAL`+here+`),
		(SELECT count() FROM (`+digests(right)+` EXCEPT `+digests(now)+`)),
		(SELECT count() FROM (`+digests(now)+` EXCEPT `+digests(right)+`))`,
		thread, int64(end), thread, int64(end), thread, int64(end), thread, int64(end), thread, int64(end),
	).Scan(scanInt64(&m.Rows), scanInt64(&m.Wrong), scanInt64(&m.Undue))
	if err != nil {
		return m, fmt.Errorf("compare: %w", err)
	}
	m.Undue = max(0, m.Undue-m.Wrong) // one that is other than it should be is in both
	if !all {
		m.Undue = 0
	}
	if m.Wrong+m.Undue == 0 {
		return m, nil
	}
	err = c.conn.Exec(once(ctx), "INSERT INTO "+now+" ("+list+") SELECT "+list+" FROM "+right+" FINAL"+here,
		thread, int64(end))
	if err != nil || !all {
		return m, err
	}
	return m, c.conn.Exec(ctx, "DELETE FROM "+now+here+" AND cityHash64("+list+") NOT IN ("+digests(right)+")",
		thread, int64(end), thread, int64(end))
}

// mendQuarantine: what was written last at a position counts.
func (c *ClickHouse) mendQuarantine(ctx context.Context, beside string, thread uuid.UUID) (Mended, error) {
	m := Mended{Table: tableOfQuarantine}
	right, now := table(beside, tableOfQuarantine), table(c.live, tableOfQuarantine)
	const here = " FINAL WHERE subject = ? AND NOT released"
	rows := func(from string) string {
		return "SELECT topic, slot, position, subject, reason, log_time FROM " + from + here
	}
	wrong := rows(right) + " EXCEPT " + rows(now)
	places := func(from string) string { return "SELECT topic, slot, position FROM " + from + here }
	undue := places(now) + " EXCEPT " + places(right)
	err := c.conn.QueryRow(ctx, `SELECT (SELECT count() FROM `+right+here+`), (SELECT count() FROM (`+wrong+`)),
		(SELECT count() FROM (`+undue+`))`, thread, thread, thread, thread, thread,
	).Scan(scanInt64(&m.Rows), scanInt64(&m.Wrong), scanInt64(&m.Undue))
	if err != nil {
		return m, fmt.Errorf("compare: %w", err)
	}
	if m.Wrong > 0 {
		err = c.conn.Exec(once(ctx), "INSERT INTO "+now+" (topic, slot, position, subject, reason, log_time) "+wrong,
			thread, thread)
	}
	if err == nil && m.Undue > 0 {
		err = c.conn.Exec(once(ctx), "INSERT INTO "+now+
			" (topic, slot, position, subject, reason, log_time, released) "+
			"SELECT topic, slot, position, subject, reason, log_time, true FROM "+now+here+
			" AND (topic, slot, position) IN ("+undue+")", thread, thread, thread)
	}
	return m, err
}

// columns lists those of a table.
func (c *ClickHouse) columns(ctx context.Context, database, name string) ([]string, error) {
	var names []string
	err := c.conn.QueryRow(ctx, `
		SELECT groupArray(name) FROM (
			SELECT name FROM system.columns WHERE database = ? AND table = ? ORDER BY position)`, database, name,
	).Scan(&names)
	if err == nil && !slices.Contains(names, "thread_id") {
		err = fmt.Errorf("table %s of database %s has no threads", name, database)
	}
	return names, err
}

// scanInt64 is where a count goes.
func scanInt64(to *int64) *count { return (*count)(to) }

type count int64

// Scan implements sql.Scanner.
func (n *count) Scan(v any) error {
	switch v := v.(type) {
	case uint64:
		*n = count(v)
	case *uint64:
		if v != nil {
			*n = count(*v)
		}
	default:
		return fmt.Errorf("a count is %T", v)
	}
	return nil
}
