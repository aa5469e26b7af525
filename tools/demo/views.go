package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// waitViews waits until both stores have every event before the ends.
func waitViews(ctx context.Context, pool *pgxpool.Pool, history driver.Conn, ends map[place]topic.Position) error {
	for {
		behind := ""
		for p, end := range ends {
			var next int64
			if err := pool.QueryRow(ctx, `SELECT coalesce(max(next), 0) FROM positions WHERE topic = $1 AND slot = $2`, p.topic.Number(), int32(p.slot)).Scan(&next); err != nil {
				return fmt.Errorf("position of Postgres: %w", err)
			}
			if next < int64(end) {
				behind = fmt.Sprintf("Postgres has %s of slot %d up to %d of %d", p.topic, p.slot, next, end)
				break
			}
			if p.topic == topic.Users {
				continue // the history has no users
			}
			if err := history.QueryRow(ctx, `SELECT max(next) FROM positions WHERE topic = ? AND slot = ? AND state = 'done'`, p.topic.Number(), int32(p.slot)).Scan(&next); err != nil {
				return fmt.Errorf("position of ClickHouse: %w", err)
			}
			if next < int64(end) {
				behind = fmt.Sprintf("ClickHouse has %s of slot %d up to %d of %d", p.topic, p.slot, next, end)
				break
			}
		}
		if behind == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", behind, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// fromPostgres reads every event of every thread, and how far members have got.
func fromPostgres(ctx context.Context, pool *pgxpool.Pool) (entries, map[mark]thread.Watermark, error) {
	out := entries{}
	rows, err := pool.Query(
		ctx,
		`SELECT thread_id, position, ordinal, sender_id, message_id, event FROM messages ORDER BY thread_id, position`,
	)
	if err != nil {
		return nil, nil, fmt.Errorf("messages of Postgres: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var (
			t, sender         [id.Size]byte
			message           *[id.Size]byte
			position, ordinal int64
			event             []byte
		)
		if err := rows.Scan(&t, &position, &ordinal, &sender, &message, &event); err != nil {
			return nil, nil, fmt.Errorf("messages of Postgres: %w", err)
		}
		e, err := decodeEntry(event, topic.Position(position), ordinal)
		if err != nil {
			return nil, nil, fmt.Errorf("messages of Postgres: %w", err)
		}
		e.Sender, e.Message = sender, id.MessageID{} // the columns, not the event again
		if message != nil {
			e.Message = *message
		}
		out[t] = append(out[t], e)
	}
	if err := rows.Err(); err != nil {
		return nil, nil, fmt.Errorf("messages of Postgres: %w", err)
	}
	marks := map[mark]thread.Watermark{}
	rows, err = pool.Query(
		ctx,
		`SELECT thread_id, user_id, delivered_position, delivered_ordinal, read_position, read_ordinal FROM watermarks`,
	)
	if err != nil {
		return nil, nil, fmt.Errorf("watermarks of Postgres: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var t, u [id.Size]byte
		var w thread.Watermark
		if err := rows.Scan(&t, &u, &w.DeliveredPosition, &w.DeliveredOrdinal, &w.ReadPosition, &w.ReadOrdinal); err != nil {
			return nil, nil, fmt.Errorf("watermarks of Postgres: %w", err)
		}
		marks[mark{t, u}] = w
	}
	if err := rows.Err(); err != nil {
		return nil, nil, fmt.Errorf("watermarks of Postgres: %w", err)
	}
	return out, marks, nil
}

// fromClickHouse reads the same from the history.
func fromClickHouse(ctx context.Context, history driver.Conn) (entries, map[mark]thread.Watermark, error) {
	out := entries{}
	rows, err := history.Query(ctx, `
		SELECT * FROM (
			SELECT thread_id, position, ordinal, 'message_sent' AS kind, sender_id, message_id, reply_to, body, event FROM messages FINAL
			UNION ALL
			SELECT thread_id, position, ordinal, kind, actor_id, defaultValueOfTypeName('UUID'), defaultValueOfTypeName('UUID'), title, event FROM thread_events FINAL
		) ORDER BY thread_id, position`)
	if err != nil {
		return nil, nil, fmt.Errorf("messages of ClickHouse: %w", err)
	}
	defer func() { _ = rows.Close() }() // read only
	for rows.Next() {
		var (
			t, sender, message, reply uuid.UUID
			position, ordinal         int64
			kind, body, event         string
		)
		if err := rows.Scan(&t, &position, &ordinal, &kind, &sender, &message, &reply, &body, &event); err != nil {
			return nil, nil, fmt.Errorf("messages of ClickHouse: %w", err)
		}
		out[id.ThreadID(t)] = append(out[id.ThreadID(t)], Entry{
			Position: topic.Position(
				position,
			), Ordinal: ordinal, Kind: kind, Sender: id.UserID(sender), Message: id.MessageID(message), ReplyTo: id.MessageID(reply),
			Text: body, Raw: []byte(event),
		})
	}
	if err := rows.Err(); err != nil {
		return nil, nil, fmt.Errorf("messages of ClickHouse: %w", err)
	}
	marks := map[mark]thread.Watermark{}
	rows, err = history.Query(ctx, `
		SELECT thread_id, user_id, max(delivered_position), max(delivered_ordinal), max(read_position), max(read_ordinal) FROM receipts GROUP BY thread_id, user_id`)
	if err != nil {
		return nil, nil, fmt.Errorf("receipts of ClickHouse: %w", err)
	}
	defer func() { _ = rows.Close() }() // read only
	for rows.Next() {
		var t, u uuid.UUID
		var dp, do, rp, ro int64
		if err := rows.Scan(&t, &u, &dp, &do, &rp, &ro); err != nil {
			return nil, nil, fmt.Errorf("receipts of ClickHouse: %w", err)
		}
		marks[mark{id.ThreadID(t), id.UserID(u)}] = thread.Watermark{
			DeliveredPosition: topic.Position(
				dp,
			), DeliveredOrdinal: do, ReadPosition: topic.Position(rp), ReadOrdinal: ro,
		}
	}
	if err := rows.Err(); err != nil {
		return nil, nil, fmt.Errorf("receipts of ClickHouse: %w", err)
	}
	return out, marks, nil
}
