package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"heliograph/infra/clickhouse"
	"heliograph/infra/postgres"
	"heliograph/schemas/id"
)

// viewTime bounds each question to a view: one that does not answer is told, and the log is asked all the same.
const viewTime = 10 * time.Second

// viewPlace is what a view knows of a message.
type viewPlace struct {
	Has    bool   `json:"has"`
	Next   int64  `json:"next"` // the view has taken in every event before it
	State  string `json:"state"`
	Parked string `json:"parked,omitempty"` // why the fold could not apply it, or that it waits behind such an event
	Error  string `json:"error,omitempty"`

	missing string // what it means that the view has passed the message without having it
}

// The states of a view.
const (
	stateHas     = "yes"
	stateNotYet  = "not yet"
	statePassed  = "no"
	stateParked  = "parked"
	stateUnknown = "unknown"
)

// passed tells whether the view has taken in what is at a position, without having the message, and without having
// parked it.
func (v *viewPlace) passed(position int64) bool {
	return v.Error == "" && !v.Has && v.Parked == "" && v.Next > position
}

func (v *viewPlace) word() string {
	switch {
	case v.Error != "":
		return stateUnknown
	case v.Has:
		return stateHas
	case v.Parked != "":
		return stateParked
	case v.missing != "":
		return statePassed
	}
	return stateNotYet
}

func (v *viewPlace) detail() string {
	switch {
	case v.Error != "":
		return v.Error
	case v.Parked != "":
		return v.Parked
	case v.missing != "":
		return v.missing
	case v.Next == 0:
		return ""
	}
	return fmt.Sprintf("has everything before %d", v.Next)
}

func (v *viewPlace) fail(err error) {
	if err != nil && v.Error == "" {
		v.Error = err.Error()
	}
}

// received is a device that may see the message.
type received struct {
	User      string `json:"user"`
	Device    string `json:"device"`
	Name      string `json:"name,omitempty"`
	Delivered bool   `json:"delivered"`
	Read      bool   `json:"read"`
}

// views are the connections to both.
type views struct {
	pool    *pgxpool.Pool
	history driver.Conn
}

func openViews(ctx context.Context, log *slog.Logger, p postgresFlags, c clickhouseFlags) (*views, error) {
	pool, err := postgres.Open(ctx, p.config(log, nil, "where", 2))
	if err != nil {
		return nil, err
	}
	history, err := clickhouse.Open(c.config(log, nil, "where"))
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &views{pool: pool, history: history}, nil
}

func (v *views) close() {
	v.pool.Close()
	_ = v.history.Close() // read only
}

// message asks both views for a message and returns where it is by those that have it; nil when none has.
func (v *views) message(ctx context.Context, m id.MessageID, out *place) *known {
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	var k *known
	var t [id.Size]byte
	var position, ordinal int64
	err := v.pool.QueryRow(
		ctx,
		`SELECT thread_id, position, ordinal FROM messages WHERE message_id = $1 AND kind = 10 ORDER BY position LIMIT 1`,
		[id.Size]byte(m),
	).
		Scan(
			&t, &position, &ordinal,
		)
	switch {
	case err == nil:
		out.Postgres.Has, k = true, &known{id.ThreadID(t), position, ordinal}
	case !errors.Is(err, pgx.ErrNoRows):
		out.Postgres.fail(err)
	}
	var word string
	err = v.history.QueryRow(
		ctx,
		`SELECT toString(thread_id), position, ordinal FROM messages WHERE message_id = toUUID(?) ORDER BY position LIMIT 1`,
		m.String(),
	).
		Scan(
			&word, &position, &ordinal,
		)
	switch {
	case err == nil:
		out.ClickHouse.Has = true
		if k == nil {
			t, err := id.Parse[id.ThreadID](word)
			out.ClickHouse.fail(err)
			k = &known{t, position, ordinal}
		}
	case !errors.Is(err, sql.ErrNoRows):
		out.ClickHouse.fail(err)
	}
	return k
}

// progress asks both views how far they have got in the message's slot, and whether they parked it.
func (v *views) progress(ctx context.Context, at logPlace, out *place) {
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	if out.Postgres.Error == "" {
		err := v.pool.QueryRow(ctx, `SELECT coalesce((SELECT next FROM positions WHERE topic = 1 AND slot = $1), 0),
			coalesce((SELECT reason FROM quarantine WHERE topic = 1 AND slot = $1 AND position = $2), '')`, at.Slot, at.Position).Scan(&out.Postgres.Next, &out.Postgres.Parked)
		out.Postgres.fail(err)
	}
	if out.ClickHouse.Error == "" {
		err := v.history.QueryRow(
			ctx,
			`SELECT (SELECT max(next) FROM positions WHERE topic = 1 AND slot = ? AND state = 'done'
				AND generation = (SELECT max(generation) FROM positions)),
			(SELECT max(reason) FROM quarantine WHERE topic = 1 AND slot = ? AND position = ?)`,
			at.Slot,
			at.Slot,
			at.Position,
		).Scan(
			&out.ClickHouse.Next, &out.ClickHouse.Parked,
		)
		out.ClickHouse.fail(err)
	}
	if out.Postgres.passed(at.Position) {
		out.Postgres.missing = "it has taken in what is behind it, and does not have it"
		if out.ClickHouse.Has {
			out.Postgres.missing = "no longer: only the recent tail is kept there"
		}
	}
	if out.ClickHouse.passed(at.Position) {
		out.ClickHouse.missing = "it has taken in what is behind it, and does not have it"
	}
}

// devices lists the devices of everybody who may see the message.
func (v *views) devices(ctx context.Context, t id.ThreadID, position int64, out *place) {
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	rows, err := v.pool.Query(ctx, `
		SELECT d.user_id, d.device_id, d.name, coalesce(w.delivered_position >= $2, false), coalesce(w.read_position >= $2, false)
		FROM members m JOIN devices d USING (user_id) LEFT JOIN device_watermarks w ON w.thread_id = m.thread_id AND w.device_id = d.device_id AND w.user_id = d.user_id
		WHERE m.thread_id = $1 AND NOT d.revoked AND EXISTS (
			SELECT 1 FROM generate_series(1, cardinality(m.spans), 2) i WHERE $2 >= m.spans[i] AND (m.spans[i + 1] = 0 OR $2 <= m.spans[i + 1]))
		ORDER BY d.user_id, d.device_id`, [id.Size]byte(t), position)
	if err != nil {
		out.Postgres.fail(fmt.Errorf("read devices: %w", err))
		return
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (received, error) {
		var u, d [id.Size]byte
		var r received
		err := row.Scan(&u, &d, &r.Name, &r.Delivered, &r.Read)
		r.User, r.Device = id.UserID(u).String(), id.DeviceID(d).String()
		return r, err
	})
	if err != nil {
		out.Postgres.fail(fmt.Errorf("read devices: %w", err))
		return
	}
	if found != nil {
		out.Devices = found
	}
}
