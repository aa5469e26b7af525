package views

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// The numbers by which the tables name things, as text for the statements.
var (
	kindMessage = strconv.Itoa(int(eventv1.Event_MessageSent_case))
	kindDirect  = strconv.Itoa(int(thread.Direct))
	// window is that of the rule on retries.
	window = fmt.Sprintf("interval '%d seconds'", int64(thread.Window/time.Second))
)

// Views asks the thread views. Its methods may be called concurrently.
type Views struct {
	pool *pgxpool.Pool
}

// New returns Views over a pool whose search_path reaches the schema of the views. The caller closes the pool.
func New(pool *pgxpool.Pool) *Views { return &Views{pool: pool} }

// Questions are put together, to be asked in one round trip. Each has a function that takes its rows, one after the
// other, in the goroutine that asks; an error of it ends the asking.
type Questions struct {
	batch pgx.Batch
}

// Moment asks the questions that ask puts, in one read-only transaction that sees one moment, in one round trip.
func (v *Views) Moment(ctx context.Context, ask func(q *Questions)) error {
	var q Questions
	q.batch.BeginTx(pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	ask(&q)
	q.batch.Queue("COMMIT")
	res := v.pool.SendBatch(ctx, &q.batch)
	err := res.Close()
	if tx := res.Tx(); tx != nil {
		// after the COMMIT only gives the connection back, which the transaction and not the batch holds
		_ = tx.Rollback(ctx)
	}
	return err
}

// Together asks the questions that ask puts in one round trip, in which each sees a moment of its own, not before that
// of the one before it. It is for who knows that nobody else writes what he asks for. Without a question it asks
// nothing.
func (v *Views) Together(ctx context.Context, ask func(q *Questions)) error {
	var q Questions
	ask(&q)
	if q.batch.Len() == 0 {
		return nil
	}
	return v.pool.SendBatch(ctx, &q.batch).Close()
}

// row is a type of rows: targets are where its columns go.
type row[T any] interface {
	*T
	targets() []any
}

// put adds a question. Its rows are read into one T after the other.
func put[T any, P row[T]](q *Questions, what, sql string, fn func(*T) error, args ...any) {
	q.batch.Queue(sql, args...).Query(func(rows pgx.Rows) error { return forEach[T, P](what, rows, fn) })
}

func forEach[T any, P row[T]](what string, rows pgx.Rows, fn func(*T) error) error {
	var r T
	if _, err := pgx.ForEachRow(rows, P(&r).targets(), func() error { return fn(&r) }); err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return nil
}

// each asks one question.
func each[T any, P row[T]](ctx context.Context, v *Views, what, sql string, fn func(*T) error, args ...any) error {
	rows, err := v.pool.Query(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return forEach[T, P](what, rows, fn)
}

// all asks one question and collects its rows.
func all[T any, P row[T]](ctx context.Context, v *Views, what, sql string, args ...any) ([]T, error) {
	var out []T
	err := each[T, P](ctx, v, what, sql, func(r *T) error { out = append(out, *r); return nil }, args...)
	return out, err
}

// one asks a question that has at most one row.
func one[T any, P row[T]](ctx context.Context, v *Views, what, sql string, args ...any) (r T, ok bool, err error) {
	err = each[T, P](ctx, v, what, sql, func(got *T) error { r, ok = *got, true; return nil }, args...)
	return r, ok, err
}

func uuid[T ~[id.Size]byte](v T) pgtype.UUID { return pgtype.UUID{Bytes: v, Valid: true} }

func uuids[T ~[id.Size]byte](in []T) []pgtype.UUID {
	out := make([]pgtype.UUID, len(in))
	for i, v := range in {
		out[i] = uuid(v)
	}
	return out
}

// key is where a column of type uuid goes that is never null.
type key = [id.Size]byte

// nullable is where a column of type uuid goes that may be null: all zero.
type nullable [id.Size]byte

// ScanUUID takes the column's value.
func (n *nullable) ScanUUID(v pgtype.UUID) error {
	*n = nullable{}
	if v.Valid {
		*n = v.Bytes
	}
	return nil
}

// bits is where a column of type bigint goes that may be null, and stands for 64 bits: 0.
type bits uint64

// ScanInt64 takes the column's value.
func (b *bits) ScanInt64(v pgtype.Int8) error {
	*b = bits(v.Int64)
	return nil
}

// topicName is where a topic's number goes.
type topicName topic.Topic

// ScanInt64 takes the column's value.
func (t *topicName) ScanInt64(v pgtype.Int8) error {
	known, err := topic.FromNumber(int32(v.Int64))
	if err != nil {
		known = ""
	}
	*t = topicName(known)
	return nil
}

// spanPairs is where the array goes that is from, to, from, to ….
type spanPairs []thread.Span

// SetDimensions makes room.
func (s *spanPairs) SetDimensions(dims []pgtype.ArrayDimension) error {
	n := 0
	for i, d := range dims {
		if i > 0 {
			return fmt.Errorf("spans of %d dimensions", len(dims))
		}
		n = int(d.Length)
	}
	if n%2 != 0 {
		return fmt.Errorf("spans of odd length %d", n)
	}
	*s = make(spanPairs, n/2)
	return nil
}

// ScanIndex is where element i goes.
func (s spanPairs) ScanIndex(i int) any {
	if i%2 == 0 {
		return (*int64)(&s[i/2].From)
	}
	return (*int64)(&s[i/2].To)
}

// ScanIndexType is what every element is.
func (s spanPairs) ScanIndexType() any { return new(int64) }

// publicKey is where a key goes.
type publicKey [32]byte

// ScanBytes takes the column's value.
func (k *publicKey) ScanBytes(v []byte) error {
	if len(v) != len(k) {
		return fmt.Errorf("public key of %d bytes", len(v))
	}
	*k = publicKey(v)
	return nil
}

func markTargets(w *thread.Watermark) []any {
	return []any{
		(*int64)(&w.DeliveredPosition), &w.DeliveredOrdinal, (*int64)(&w.ReadPosition), &w.ReadOrdinal,
	}
}
