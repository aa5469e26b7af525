package query

import (
	"context"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// Archive reads threads forwards from the history in ClickHouse, for catch-ups that go further back than Postgres'
// tail. Its methods may be called concurrently.
type Archive struct {
	history    driver.Conn
	partitions int
}

// NewArchive returns an Archive over a connection whose default database is the history of a deployment with so many
// partitions.
func NewArchive(history driver.Conn, partitions int) *Archive {
	return &Archive{history: history, partitions: partitions}
}

// Events returns the accepted events of a thread at positions after < p <= upTo with a log time of at least floorMS
// (Unix milliseconds), in order, the first limit of them. It looks at nobody's membership. A history that has not got
// beyond upTo is an error, not a hole.
func (a *Archive) Events(
	ctx context.Context, t id.ThreadID, after, upTo topic.Position, floorMS int64, limit int,
) ([]*wirev1.Event, error) {
	next, err := historyNext(ctx, a.history, topic.SlotOf(topic.Subject(t), a.partitions))
	if err != nil {
		return nil, err
	}
	if next <= upTo {
		return nil, fmt.Errorf("thread %v up to position %d: %w", t, upTo, errBehind)
	}
	const where = "thread_id = toUUID(?) AND position > ? AND position <= ? AND log_time >= fromUnixTimestamp64Milli(toInt64(?))"
	args := []any{t.String(), int64(after), int64(upTo), floorMS, limit}
	rows, err := a.history.Query(ctx, `SELECT position, ordinal, log_time, event FROM (
			SELECT position, ordinal, log_time, event FROM messages FINAL WHERE `+where+` ORDER BY position LIMIT ?
			UNION ALL
			SELECT position, ordinal, log_time, event FROM thread_events FINAL WHERE `+where+` ORDER BY position LIMIT ?
		) ORDER BY position LIMIT ?`, append(append(append([]any{}, args...), args...), limit)...)
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	defer func() { _ = rows.Close() }() // its error comes by rows.Err
	return historyEvents(t, rows)
}
