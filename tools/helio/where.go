package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/clickhouse"
	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// whereCmd tells how far one message has got. It only reads.
type whereCmd struct {
	kafkaFlags
	postgresFlags
	clickhouseFlags
	localFlags
	outputFlags
	Message string `arg:"" help:"The message's id."`
}

// Help shows how it is used.
func (whereCmd) Help() string {
	return "Examples:\n  helio where 01938f2e-5b7c-7cc0-8f0a-4a1b2c3d4e5f\n  helio where 01938f2e-5b7c-7cc0-8f0a-4a1b2c3d4e5f -o json"
}

// place is where a message is.
type place struct {
	Message    string     `json:"message"`
	Thread     string     `json:"thread,omitempty"`
	Sender     string     `json:"sender,omitempty"`
	Log        *logPlace  `json:"log,omitempty"`
	Postgres   viewPlace  `json:"postgres"`
	ClickHouse viewPlace  `json:"clickhouse"`
	Devices    []received `json:"devices"`
}

type logPlace struct {
	Topic    string    `json:"topic"`
	Slot     int32     `json:"slot"`
	Position int64     `json:"position"`
	Ordinal  int64     `json:"ordinal,omitempty"`
	Time     time.Time `json:"time"`
}

type viewPlace struct {
	Has   bool   `json:"has"`
	Next  int64  `json:"next"` // the view has every event before it
	Error string `json:"error,omitempty"`
}

type received struct {
	User      string `json:"user"`
	Device    string `json:"device"`
	Name      string `json:"name,omitempty"`
	Delivered bool   `json:"delivered"`
	Read      bool   `json:"read"`
}

// Run asks the views first, because they know the slot, and then the log itself.
func (c *whereCmd) Run(ctx context.Context, log *slog.Logger) error {
	mid, err := id.Parse[id.MessageID](c.Message)
	if err != nil {
		return fmt.Errorf("%q is not a message id: %w", c.Message, err)
	}
	c.fill(&c.kafkaFlags, &c.postgresFlags, &c.clickhouseFlags)
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	out := place{Message: mid.String(), Devices: []received{}}
	pool, err := postgres.Open(ctx, c.postgresFlags.config(log, nil, "where", 2))
	if err != nil {
		return err
	}
	defer pool.Close()
	tid, sender, position, ordinal, err := inPostgres(ctx, pool, mid)
	switch {
	case err == nil:
		out.Postgres.Has = true
	case !errors.Is(err, pgx.ErrNoRows):
		out.Postgres.Error = err.Error()
	}
	history, err := clickhouse.Open(c.clickhouseFlags.config(log, nil, "where"))
	if err != nil {
		return err
	}
	defer func() { _ = history.Close() }() // read only
	var chThread, chSender string
	var chPosition, chOrdinal int64
	err = history.QueryRow(ctx, `SELECT toString(thread_id), toString(sender_id), position, ordinal FROM messages WHERE message_id = toUUID(?) ORDER BY position LIMIT 1`, mid.String()).
		Scan(&chThread, &chSender, &chPosition, &chOrdinal)
	switch {
	case err == nil:
		out.ClickHouse.Has = true
		if !out.Postgres.Has {
			t, perr := id.Parse[id.ThreadID](chThread)
			u, uerr := id.Parse[id.UserID](chSender)
			if perr != nil || uerr != nil {
				return fmt.Errorf("the history has a malformed id in thread %s", chThread)
			}
			tid, sender, position, ordinal = t, u, chPosition, chOrdinal
		}
	case !errors.Is(err, sql.ErrNoRows):
		out.ClickHouse.Error = err.Error()
	}
	if !out.Postgres.Has && !out.ClickHouse.Has {
		if out.Postgres.Error != "" || out.ClickHouse.Error != "" {
			return fmt.Errorf("neither view could tell (Postgres: %s; ClickHouse: %s); 'helio log tail threads' shows the log itself",
				orWord(out.Postgres.Error, "does not have it"), orWord(out.ClickHouse.Error, "does not have it"))
		}
		return fmt.Errorf("no view has message %s: it was never accepted, or the views are behind ('helio log tail threads' shows the log itself)", mid)
	}
	out.Thread, out.Sender = tid.String(), sender.String()
	out.Log, err = c.inLog(ctx, log, tid, position)
	if err != nil {
		return err
	}
	out.Log.Ordinal = ordinal
	if out.Postgres.Error == "" {
		if err := pool.QueryRow(ctx, `SELECT next FROM positions WHERE topic = 1 AND slot = $1`, out.Log.Slot).Scan(&out.Postgres.Next); err != nil {
			out.Postgres.Error = err.Error()
		}
		if out.Devices, err = devices(ctx, pool, tid, position); err != nil {
			return err
		}
	}
	if out.ClickHouse.Error == "" {
		if err := history.QueryRow(ctx, `SELECT max(next) FROM positions WHERE topic = 1 AND slot = ? AND state = 'done'`, out.Log.Slot).Scan(&out.ClickHouse.Next); err != nil {
			out.ClickHouse.Error = err.Error()
		}
	}
	rows := []table.Row{
		{"log", "yes", fmt.Sprintf("%s slot %d position %d at %s", out.Log.Topic, out.Log.Slot, out.Log.Position, out.Log.Time.Local().Format(time.DateTime))},
		{"postgres", out.Postgres.word(), fmt.Sprintf("has everything before %d", out.Postgres.Next)},
		{"clickhouse", out.ClickHouse.word(), fmt.Sprintf("has everything before %d", out.ClickHouse.Next)},
	}
	for _, d := range out.Devices {
		state := "not yet"
		switch {
		case d.Read:
			state = "read"
		case d.Delivered:
			state = "delivered"
		}
		rows = append(rows, table.Row{"device", state, fmt.Sprintf("%s %s of %s", d.Device, d.Name, d.User)})
	}
	return c.print(out, table.Row{"where", "state", "detail"}, rows)
}

func (v viewPlace) word() string {
	switch {
	case v.Error != "":
		return "unknown: " + v.Error
	case v.Has:
		return "yes"
	}
	return "not yet"
}

func orWord(s, word string) string {
	if s == "" {
		return word
	}
	return s
}

func inPostgres(ctx context.Context, pool *pgxpool.Pool, m id.MessageID) (t id.ThreadID, u id.UserID, position, ordinal int64, err error) {
	var tid, uid [16]byte
	err = pool.QueryRow(ctx, `SELECT thread_id, sender_id, position, ordinal FROM messages WHERE message_id = $1 AND kind = 10 ORDER BY position LIMIT 1`, [16]byte(m)).
		Scan(&tid, &uid, &position, &ordinal)
	return tid, uid, position, ordinal, err
}

// inLog reads the record itself, so that the answer rests on the log and on no view.
func (c *whereCmd) inLog(ctx context.Context, log *slog.Logger, t id.ThreadID, position int64) (*logPlace, error) {
	cfg := c.kafkaFlags.config(log, nil, "helio-where")
	cl, err := kafka.Dial(cfg)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	name := cfg.Name(topic.Threads)
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("ask the log: %w", err)
	}
	p := len(ends[name])
	if p == 0 {
		return nil, fmt.Errorf("there is no topic %s", name)
	}
	slot := topic.SlotOf(topic.Subject(t), p)
	bases, err := kafka.LoadBases(ctx, cl, cfg, []topic.Topic{topic.Threads}, p)
	if err != nil {
		return nil, err
	}
	offset := position - int64(bases.Of(topic.Threads, slot))
	reader, err := kafka.Dial(cfg, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: {int32(slot): kgo.NewOffset().At(offset)}}))
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	for {
		fs := reader.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			return nil, fmt.Errorf("read the log: %w", err)
		}
		for _, r := range fs.Records() {
			if r.Offset != offset {
				return nil, fmt.Errorf("the views place the message at slot %d position %d, where the log has nothing", slot, position)
			}
			return &logPlace{Topic: name, Slot: int32(slot), Position: position, Time: r.Timestamp.UTC()}, nil
		}
	}
}

// devices lists the devices of everybody who may see the message.
func devices(ctx context.Context, pool *pgxpool.Pool, t id.ThreadID, position int64) ([]received, error) {
	rows, err := pool.Query(ctx, `
		SELECT d.user_id, d.device_id, d.name, coalesce(w.delivered_position >= $2, false), coalesce(w.read_position >= $2, false)
		FROM members m JOIN devices d USING (user_id) LEFT JOIN device_watermarks w ON w.thread_id = m.thread_id AND w.device_id = d.device_id AND w.user_id = d.user_id
		WHERE m.thread_id = $1 AND NOT d.revoked AND EXISTS (
			SELECT 1 FROM generate_series(1, cardinality(m.spans), 2) i WHERE $2 >= m.spans[i] AND (m.spans[i + 1] = 0 OR $2 <= m.spans[i + 1]))
		ORDER BY d.user_id, d.device_id`, [16]byte(t), position)
	if err != nil {
		return nil, fmt.Errorf("read devices: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (received, error) {
		var u, d [16]byte
		var r received
		err := row.Scan(&u, &d, &r.Name, &r.Delivered, &r.Read)
		r.User, r.Device = id.UserID(u).String(), id.DeviceID(d).String()
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("read devices: %w", err)
	}
	return out, nil
}
