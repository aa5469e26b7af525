package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// AtOnce is how many threads, and how many messages, one question may name: its text stays below the server's
// max_query_size. EachAtOnce is how many threads when each has a limit of its own (Before.Each).
const (
	AtOnce     = 2000
	EachAtOnce = 500
)

// History asks the history. Its methods may be called concurrently.
type History struct {
	conn driver.Conn
}

// New returns a History over a connection whose default database is the history's. The caller closes the connection.
func New(conn driver.Conn) *History { return &History{conn: conn} }

// row is a type of rows: scan reads the columns of one.
type row[T any] interface {
	*T
	scan(into func(...any) error) error
}

// each asks a question and hands its rows to fn, one after the other.
func each[T any, P row[T]](ctx context.Context, h *History, what, query string, fn func(*T) error, args ...any) error {
	rows, err := h.conn.Query(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	defer func() { _ = rows.Close() }() // its error comes by rows.Err
	for rows.Next() {
		var r T
		if err := P(&r).scan(rows.Scan); err != nil {
			return fmt.Errorf("scan %s: %w", what, err)
		}
		if err := fn(&r); err != nil {
			return fmt.Errorf("read %s: %w", what, err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return nil
}

// all asks a question and collects its rows.
func all[T any, P row[T]](ctx context.Context, h *History, what, query string, args ...any) ([]T, error) {
	var out []T
	err := each[T, P](ctx, h, what, query, func(r *T) error { out = append(out, *r); return nil }, args...)
	return out, err
}

// one asks a question that has at most one row.
func one[T any, P row[T]](ctx context.Context, h *History, what, query string, args ...any) (r T, ok bool, err error) {
	err = P(&r).scan(h.conn.QueryRow(ctx, query, args...).Scan)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return r, false, nil
	case err != nil:
		return r, false, fmt.Errorf("read %s: %w", what, err)
	}
	return r, true, nil
}

// key is what a column of type UUID is read as.
type key = uuid.UUID

// list writes ids as they stand after IN.
func list[T fmt.Stringer](ids []T) string {
	var out strings.Builder
	for i, v := range ids {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteByte('\'')
		out.WriteString(v.String())
		out.WriteByte('\'')
	}
	return out.String()
}

// scanTopic reads a topic's number, and the columns behind it.
func scanTopic(into func(...any) error, t *topic.Topic, more ...any) error {
	var n int16
	if err := into(append([]any{&n}, more...)...); err != nil {
		return err
	}
	known, err := topic.FromNumber(int32(n))
	if err != nil {
		known = ""
	}
	*t = known
	return nil
}

func canonical[T ~[id.Size]byte](v T) string { return uuid.UUID(v).String() }
