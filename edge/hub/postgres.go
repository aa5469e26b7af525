package hub

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// postgresStore asks the thread views in Postgres.
type postgresStore struct {
	pool       *pgxpool.Pool
	partitions int
}

// maxRecent is the most messages of a thread that a snapshot loads for the rule on retries; keptSent is how many it
// looks at in any case, to find who has sent something lately. What is repeated after more than maxRecent others within
// the rule's window is taken here for a message of its own, as no view does: so it must be more than a thread sees in a
// day by any ordinary use.
const (
	maxRecent = 1 << 16
	keptSent  = 64
)

// OFFSET 0 keeps a search by several keys a search for one after the other. A join would be planned by how many rows
// there were when the connection first asked, and might read all of them from then on.
const (
	sqlPositions = `SELECT topic, slot, next FROM positions`

	sqlThreadsPositions = `SELECT slot, next FROM positions WHERE topic = 1 AND slot = ANY($1)`

	sqlThreads = `SELECT thread_id, kind, title, last_position, last_ordinal, last_time, last_sender, preview FROM threads WHERE thread_id = ANY($1)`

	sqlMembers = `SELECT thread_id, user_id, role, spans, base_ordinal, end_ordinal FROM members WHERE thread_id = ANY($1)`

	sqlWatermarks = `SELECT thread_id, user_id, delivered_position, delivered_ordinal, read_position, read_ordinal FROM watermarks WHERE thread_id = ANY($1)`

	// The window is counted on the thread's clock, as the fold does.
	sqlRecent = `
SELECT t.thread_id, m.position, m.ordinal, m.sender_id, m.message_id, m.log_time, m.log_time >= t.last_time - interval '24 hours'
  FROM threads t
 CROSS JOIN LATERAL (
       SELECT n.*, row_number() OVER (ORDER BY n.position DESC) AS nth
         FROM (SELECT position, ordinal, sender_id, message_id, log_time FROM messages
                WHERE thread_id = t.thread_id AND kind = 10 ORDER BY position DESC LIMIT $2) n
       ) m
 WHERE t.thread_id = ANY($1) AND (m.nth <= $3 OR m.log_time >= t.last_time - interval '24 hours')`

	sqlUsers = `SELECT user_id, phone_hash, generation, name, registered FROM users WHERE user_id = ANY($1)`

	sqlDevices = `SELECT user_id, device_id, public_key, name, is_primary, revoked, since_position, since FROM devices WHERE user_id = ANY($1)`

	sqlUserThreads = `SELECT user_id, thread_id, joined_position, has_left FROM user_threads WHERE user_id = ANY($1)`

	sqlQuarantine = `SELECT DISTINCT topic, subject FROM quarantine WHERE subject = ANY($1)`

	sqlCursors = `
SELECT k.nth, w.delivered_position, w.delivered_ordinal
  FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) WITH ORDINALITY AS k (thread_id, device_id, user_id, nth)
 CROSS JOIN LATERAL (
       SELECT delivered_position, delivered_ordinal FROM device_watermarks
        WHERE thread_id = k.thread_id AND device_id = k.device_id AND user_id = k.user_id OFFSET 0
       ) w`

	sqlTails = `
SELECT k.nth, m.position, m.ordinal, m.log_time, m.event
  FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::bigint[], $6::bigint[])
       WITH ORDINALITY AS k (thread_id, after, up_to, since, most, bytes, nth)
 CROSS JOIN LATERAL (
       SELECT position, ordinal, log_time, event, sum(octet_length(event)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) - octet_length(event) AS before
         FROM messages
        WHERE thread_id = k.thread_id AND position > k.after AND position <= k.up_to AND log_time >= k.since
        ORDER BY position LIMIT k.most
       ) m
 WHERE m.before < k.bytes
 ORDER BY k.nth, m.position`

	sqlTrimmed = `SELECT thread_id, position, log_time FROM trimmed WHERE thread_id = ANY($1)`

	sqlOneDevice = `
SELECT k.nth, d.public_key, d.name, d.is_primary, d.revoked, d.since_position, d.since
  FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS k (user_id, device_id, nth)
 CROSS JOIN LATERAL (
       SELECT public_key, name, is_primary, revoked, since_position, since FROM devices
        WHERE user_id = k.user_id AND device_id = k.device_id OFFSET 0
       ) d`
)

type uuid = [id.Size]byte

func uuids[T ~uuid](in []T) []pgtype.UUID {
	out := make([]pgtype.UUID, len(in))
	for i, v := range in {
		out[i] = pgtype.UUID{Bytes: v, Valid: true}
	}
	return out
}

func (p *postgresStore) addPosition(at []marks, t int16, slot int32, next int64) {
	if slot >= 0 && int(slot) < len(at) && t >= 1 && int(t) <= len(at[0]) {
		at[slot][t-1] = topic.Position(next)
	}
}

func (p *postgresStore) positions(ctx context.Context) ([]marks, error) {
	at := make([]marks, p.partitions)
	rows, err := p.pool.Query(ctx, sqlPositions)
	if err != nil {
		return nil, fmt.Errorf("read positions: %w", err)
	}
	var t int16
	var slot int32
	var next int64
	_, err = pgx.ForEachRow(
		rows, []any{&t, &slot, &next}, func() error { p.addPosition(at, t, slot, next); return nil },
	)
	if err != nil {
		return nil, fmt.Errorf("read positions: %w", err)
	}
	return at, nil
}

// moment runs queries in one transaction that sees one moment, in one round trip.
func (p *postgresStore) moment(ctx context.Context, queries func(each eachFunc)) error {
	var b pgx.Batch
	b.BeginTx(pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	queries(func(what, sql string, args []any, scan []any, fn func() error) {
		b.Queue(sql, args...).Query(func(rows pgx.Rows) error {
			if _, err := pgx.ForEachRow(rows, scan, fn); err != nil {
				return fmt.Errorf("read %s: %w", what, err)
			}
			return nil
		})
	})
	b.Queue("COMMIT")
	res := p.pool.SendBatch(ctx, &b)
	err := res.Close()
	if tx := res.Tx(); tx != nil {
		// after the COMMIT only gives the connection back, which the transaction and not the batch holds
		_ = tx.Rollback(ctx)
	}
	return err
}

// snapshot is one transaction that sees one moment, in one round trip.
func (p *postgresStore) snapshot(ctx context.Context, threads []id.ThreadID, users []id.UserID) (*snapshot, error) {
	out := &snapshot{
		at: make(
			[]marks, p.partitions,
		), threads: make(map[id.ThreadID]*threadState, len(threads)), users: make(map[id.UserID]*user.State, len(users)),
		poisoned: map[poison]bool{},
	}
	var t int16
	var slot int32
	var next int64
	var subject uuid
	err := p.moment(ctx, func(each eachFunc) {
		each(
			"positions", sqlPositions, nil, []any{&t, &slot, &next},
			func() error { p.addPosition(out.at, t, slot, next); return nil },
		)
		if len(threads) > 0 {
			p.threads(each, out, uuids(threads))
		}
		if len(users) > 0 {
			p.users(each, out, uuids(users))
		}
		all := append(uuids(threads), uuids(users)...)
		each("quarantine", sqlQuarantine, []any{all}, []any{&t, &subject}, func() error {
			out.poisoned[poison{int32(t), subject}] = true
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("snapshot of %d threads and %d users: %w", len(threads), len(users), err)
	}
	return out, nil
}

type eachFunc = func(what, sql string, args []any, scan []any, fn func() error)

func (p *postgresStore) threads(each eachFunc, out *snapshot, keys []pgtype.UUID) {
	var (
		th, u           uuid
		message         pgtype.UUID
		kind            int16
		title, text     string
		position        int64
		ordinal, end    int64
		when            time.Time
		spans           []int64
		delivered, read int64
		deliveredO, rdO int64
		withinTheWindow bool
		of              = func() *threadState { return out.threads[th] }
	)
	each(
		"threads",
		sqlThreads,
		[]any{keys},
		[]any{&th, &kind, &title, &position, &ordinal, &when, &u, &text},
		func() error {
			s := newThreadState(th)
			s.Kind, s.Title, s.LastPosition, s.LastOrdinal = thread.Kind(kind), title, topic.Position(position), ordinal
			s.LastTimeMS, s.LastSender, s.Preview = when.UnixMilli(), u, text
			out.threads[th] = s
			return nil
		},
	)
	each("members", sqlMembers, []any{keys}, []any{&th, &u, &kind, &spans, &ordinal, &end}, func() error {
		s := of()
		if s == nil {
			return nil
		}
		m := &thread.Member{Role: thread.Role(kind), BaseOrdinal: ordinal, EndOrdinal: end}
		if len(spans)%2 != 0 {
			return fmt.Errorf("spans of odd length in thread %v", id.ThreadID(th))
		}
		for i := 0; i < len(spans); i += 2 {
			m.Spans = append(m.Spans, thread.Span{From: topic.Position(spans[i]), To: topic.Position(spans[i+1])})
		}
		s.Members[u] = m
		return nil
	})
	each("watermarks", sqlWatermarks, []any{keys}, []any{&th, &u, &delivered, &deliveredO, &read, &rdO}, func() error {
		s := of()
		if s == nil { // receipts may be ahead of their thread
			s = newThreadState(th)
			out.threads[th] = s
		}
		s.watermarks[u] = thread.Watermark{
			DeliveredPosition: topic.Position(
				delivered,
			), DeliveredOrdinal: deliveredO, ReadPosition: topic.Position(read), ReadOrdinal: rdO,
		}
		return nil
	})
	each(
		"recent messages",
		sqlRecent,
		[]any{keys, maxRecent, keptSent},
		[]any{&th, &position, &ordinal, &u, &message, &when, &withinTheWindow},
		func() error {
			s := of()
			if s == nil || !message.Valid {
				return nil
			}
			if s.sent[u].ordinal < ordinal {
				s.sent[u] = sentAt{topic.Position(position), ordinal}
			}
			if withinTheWindow {
				s.Recent[thread.Key{Sender: u, Message: message.Bytes}] = thread.Seen{
					Position: topic.Position(position),
					TimeMS:   when.UnixMilli(),
					Ordinal:  ordinal,
				}
			}
			return nil
		},
	)
}

func (p *postgresStore) users(each eachFunc, out *snapshot, keys []pgtype.UUID) {
	var (
		u, x             uuid
		generation       int32
		name             string
		key              []byte
		primary, flagged bool
		position         int64
		when             time.Time
		of               = func() *user.State {
			s := out.users[u]
			if s == nil {
				s = slimUser(u)
				out.users[u] = s
			}
			return s
		}
	)
	each("users", sqlUsers, []any{keys}, []any{&u, &x, &generation, &name, &when}, func() error {
		s := of()
		s.PhoneHash, s.Generation, s.Name, s.RegisteredMS = x, uint32(generation), name, when.UnixMilli()
		return nil
	})
	each(
		"devices",
		sqlDevices,
		[]any{keys},
		[]any{&u, &x, &key, &name, &primary, &flagged, &position, &when},
		func() error {
			d, err := deviceOf(key, name, primary, flagged, position, when)
			if err != nil {
				return fmt.Errorf("device %v: %w", id.DeviceID(x), err)
			}
			of().Devices[x] = d
			return nil
		},
	)
	each("threads of users", sqlUserThreads, []any{keys}, []any{&u, &x, &position, &flagged}, func() error {
		of().Threads[x] = user.Joined{At: topic.Position(position), Left: flagged}
		return nil
	})
}

func deviceOf(key []byte, name string, primary, revoked bool, since int64, when time.Time) (*user.Device, error) {
	if len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("public key of %d bytes", len(key))
	}
	return &user.Device{
		Key: [ed25519.PublicKeySize]byte(key), Name: name, Primary: primary, Revoked: revoked,
		Since: topic.Position(since), SinceMS: when.UnixMilli(),
	}, nil
}

func (p *postgresStore) cursors(ctx context.Context, keys []deviceThread) ([]topic.Position, error) {
	out := make([]topic.Position, len(keys))
	threads, devices, users := make(
		[]pgtype.UUID, len(keys),
	), make(
		[]pgtype.UUID, len(keys),
	), make(
		[]pgtype.UUID, len(keys),
	)
	for i, k := range keys {
		out[i] = -1
		threads[i], devices[i] = pgtype.UUID{Bytes: k.thread, Valid: true}, pgtype.UUID{Bytes: k.device, Valid: true}
		users[i] = pgtype.UUID{Bytes: k.user, Valid: true}
	}
	rows, err := p.pool.Query(ctx, sqlCursors, threads, devices, users)
	if err != nil {
		return nil, fmt.Errorf("read %d cursors: %w", len(keys), err)
	}
	var nth, position, ordinal int64
	_, err = pgx.ForEachRow(rows, []any{&nth, &position, &ordinal}, func() error {
		if position != 0 || ordinal != 0 { // a row that says nothing of delivery is no cursor: the first position is 0
			out[nth-1] = topic.Position(position)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %d cursors: %w", len(keys), err)
	}
	return out, nil
}

// tails is one transaction that sees one moment, in one round trip.
func (p *postgresStore) tails(ctx context.Context, ranges []tailRange) ([]tail, error) {
	out := make([]tail, len(ranges))
	threads, after, upTo := make([]pgtype.UUID, len(ranges)), make([]int64, len(ranges)), make([]int64, len(ranges))
	since, most, bytes, slots := make(
		[]time.Time, len(ranges),
	), make(
		[]int64, len(ranges),
	), make(
		[]int64, len(ranges),
	), make(
		[]int32, len(ranges),
	)
	for i, r := range ranges {
		threads[i] = pgtype.UUID{Bytes: r.thread, Valid: true}
		after[i], upTo[i], since[i], most[i] = int64(r.after), int64(r.upTo), time.UnixMilli(r.floorMS), int64(r.limit)
		bytes[i] = int64(r.bytes)
		slots[i] = int32(topic.SlotOf(topic.Subject(r.thread), p.partitions))
		out[i].trimmed = -1
	}
	var nth, position, ordinal, next int64
	var slot int32
	var when time.Time
	var event []byte
	var th uuid
	err := p.moment(ctx, func(each eachFunc) {
		each("positions", sqlThreadsPositions, []any{slots}, []any{&slot, &next}, func() error {
			for i := range out {
				if slots[i] == slot {
					out[i].next = topic.Position(next)
				}
			}
			return nil
		})
		each("what was trimmed", sqlTrimmed, []any{threads}, []any{&th, &position, &when}, func() error {
			for i, r := range ranges {
				if r.thread == th {
					out[i].trimmed, out[i].trimmedMS = topic.Position(position), when.UnixMilli()
				}
			}
			return nil
		})
		each(
			"tails",
			sqlTails,
			[]any{threads, after, upTo, since, most, bytes},
			[]any{&nth, &position, &ordinal, &when, &event},
			func() error {
				t := &out[nth-1]
				t.rows = append(t.rows, row{topic.Position(position), ordinal, when.UnixMilli(), event})
				event = nil
				return nil
			},
		)
	})
	if err != nil {
		return nil, fmt.Errorf("read the tails of %d threads: %w", len(ranges), err)
	}
	return out, nil
}

func (p *postgresStore) devices(ctx context.Context, keys []userDevice) ([]*user.Device, error) {
	out := make([]*user.Device, len(keys))
	users, devices := make([]pgtype.UUID, len(keys)), make([]pgtype.UUID, len(keys))
	for i, k := range keys {
		users[i], devices[i] = pgtype.UUID{Bytes: k.user, Valid: true}, pgtype.UUID{Bytes: k.device, Valid: true}
	}
	rows, err := p.pool.Query(ctx, sqlOneDevice, users, devices)
	if err != nil {
		return nil, fmt.Errorf("read %d devices: %w", len(keys), err)
	}
	var (
		nth, position    int64
		key              []byte
		name             string
		primary, revoked bool
		when             time.Time
	)
	_, err = pgx.ForEachRow(rows, []any{&nth, &key, &name, &primary, &revoked, &position, &when}, func() error {
		d, err := deviceOf(key, name, primary, revoked, position, when)
		out[nth-1] = d
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read %d devices: %w", len(keys), err)
	}
	return out, nil
}
