package query

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/singleflight"

	"heliograph/edge/auth"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Limits of one request.
const (
	maxThreads = 200
	maxHistory = 500
	maxUsers   = 200
	// maxPage bounds the bytes of events in a page of history, so that it fits a frame.
	maxPage = wire.MaxServerFrame - 64<<10
	// perEvent is what an event takes in a page beside its bytes.
	perEvent = 64
	// behindRetry is after how long to ask views again that have not got as far as what a request asks about.
	behindRetry = 200 * time.Millisecond
)

// Config of New.
type Config struct {
	// UserKey is the secret from which user ids are derived; the same as that of auth.
	UserKey []byte
	// Partitions is P.
	Partitions int
	// Lookups bounds the phone numbers that one user may look up.
	Lookups auth.Rate
}

// Queries answers requests. Its methods may be called concurrently; their errors are *wire.Error.
type Queries struct {
	cfg     Config
	pool    *pgxpool.Pool
	history driver.Conn
	limiter *auth.Limiter
	log     *slog.Logger
	views   singleflight.Group // by slot
}

// New returns Queries over a pool whose search_path reaches the views, and a connection whose default database is the
// history.
func New(cfg Config, pool *pgxpool.Pool, history driver.Conn, limiter *auth.Limiter, log *slog.Logger) *Queries {
	return &Queries{cfg: cfg, pool: pool, history: history, limiter: limiter, log: log}
}

func (q *Queries) unavailable(what string, err error) error {
	if !errors.Is(err, context.Canceled) {
		q.log.Warn("query failed", "query", what, "err", err)
	}
	return wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "%s: the view is not available now", what)
}

func notMember() error {
	return wire.Errorf(wirev1.Code_CODE_NOT_A_MEMBER, "no such thread, or not a member of it")
}

// seenTime is the time of the thread's last message as the asking user may know it. It orders his list and is in its
// page tokens, so for a former member it stands still too.
const seenTime = `CASE WHEN m.active OR t.last_position <= m.spans[cardinality(m.spans)] THEN t.last_time ELSE 'epoch' END`

// SummarySQL selects what ScanSummary reads, from t (threads), m (members of the asking user) and w (his watermarks,
// may be null).
const SummarySQL = `t.thread_id, t.kind, t.title, t.last_position, t.last_ordinal, ` + seenTime + `, t.last_sender, t.preview,
	m.role, m.active, m.spans, m.base_ordinal, m.end_ordinal,
	coalesce(w.delivered_position, 0), coalesce(w.delivered_ordinal, 0), coalesce(w.read_position, 0), coalesce(w.read_ordinal, 0),
	(SELECT count(*) FROM members n WHERE n.thread_id = t.thread_id AND n.active),
	(SELECT n.user_id FROM members n WHERE t.kind = 1 AND n.thread_id = t.thread_id AND n.user_id <> m.user_id LIMIT 1)`

// Summary is a row of SummarySQL.
type Summary struct {
	Thread    id.ThreadID
	Member    thread.Member
	LastTime  time.Time // the list's sort key
	Watermark thread.Watermark
	Wire      *wirev1.ThreadSummary
}

// ScanSummary reads a row of SummarySQL for a user. What a former member sees ends where his membership did: once the
// thread has gone on, it has no title, time or preview for him (the views keep only the latest), and how many are in it
// he is never told. What a new one sees begins with his: the preview is of a message of his time.
func ScanSummary(row pgx.CollectableRow, u id.UserID) (Summary, error) {
	var (
		s                                   Summary
		tid, sender                         [16]byte
		peer                                *[16]byte
		kind, role                          int16
		title, preview                      string
		lastPosition, lastOrdinal, count    int64
		active                              bool
		spans                               []int64
		dPos, dOrd, rPos, rOrd, base, ended int64
	)
	if err := row.Scan(&tid, &kind, &title, &lastPosition, &lastOrdinal, &s.LastTime, &sender, &preview, &role, &active, &spans, &base, &ended,
		&dPos, &dOrd, &rPos, &rOrd, &count, &peer); err != nil {
		return s, fmt.Errorf("scan thread summary: %w", err)
	}
	s.Thread = tid
	s.Member = thread.Member{Role: thread.Role(role), Spans: Spans(spans), BaseOrdinal: base, EndOrdinal: ended}
	s.Watermark = thread.Watermark{
		DeliveredPosition: topic.Position(dPos),
		DeliveredOrdinal:  dOrd,
		ReadPosition:      topic.Position(rPos),
		ReadOrdinal:       rOrd,
	}
	if !active && len(s.Member.Spans) > 0 {
		count = 0
		last := s.Member.Spans[len(s.Member.Spans)-1]
		if lastPosition > int64(last.To) {
			lastPosition, lastOrdinal, title, preview, sender = int64(last.To), ended, "", "", [16]byte{}
		}
	}
	if lastOrdinal <= base { // the last message is from before his time
		preview, sender = "", [16]byte{}
	}
	b := wirev1.ThreadSummary_builder{
		ThreadId: tid[:], Kind: wirev1.ThreadKind(kind), Title: title,
		LastPosition: lastPosition, LastOrdinal: lastOrdinal, LastSender: sender[:], Preview: preview,
		Own: wirev1.MemberWatermark_builder{
			UserId: u[:], DeliveredPosition: dPos, DeliveredOrdinal: dOrd, ReadPosition: rPos, ReadOrdinal: rOrd,
		}.Build(),
		Unread: s.Member.Unread(
			lastOrdinal, rOrd,
		), MemberCount: uint32(count), Member: active, Role: eventv1.Role(role),
	}
	if s.LastTime.UnixMilli() > 0 {
		b.LastTimeMs = s.LastTime.UnixMilli()
	}
	if thread.Kind(kind) == thread.Direct {
		b.DirectPeer = u[:]
		if peer != nil {
			b.DirectPeer = peer[:]
		}
	}
	s.Wire = b.Build()
	return s, nil
}

// Spans reads the members table's array: from, to, from, to ….
func Spans(raw []int64) []thread.Span {
	out := make([]thread.Span, 0, len(raw)/2)
	for i := 0; i+1 < len(raw); i += 2 {
		out = append(out, thread.Span{From: topic.Position(raw[i]), To: topic.Position(raw[i+1])})
	}
	return out
}

// ListThreads returns a page of the user's thread list, the one with the newest message first and those that went on
// without him last.
func (q *Queries) ListThreads(ctx context.Context, u id.UserID, r *wirev1.ListThreads) (*wirev1.Threads, error) {
	limit := int(r.GetLimit())
	switch {
	case limit == 0:
		limit = 50
	case limit > maxThreads:
		return nil, wire.Errorf(wirev1.Code_CODE_INVALID, "limit %d is above %d", limit, maxThreads)
	}
	// The token is the sort key of the last row: 8 bytes of microseconds, 16 of the thread.
	before, beforeThread := time.Now().Add(1000*time.Hour), [16]byte{}
	for i := range beforeThread {
		beforeThread[i] = 0xff
	}
	if tok := r.GetPageToken(); len(tok) != 0 {
		if len(tok) != 24 {
			return nil, wire.Errorf(wirev1.Code_CODE_INVALID, "page_token is not one of this server's")
		}
		if before = time.UnixMicro(int64(binary.BigEndian.Uint64(tok))).UTC(); before.Year() < 1970 ||
			before.Year() > 9999 {
			return nil, wire.Errorf(wirev1.Code_CODE_INVALID, "page_token is not one of this server's")
		}
		copy(beforeThread[:], tok[8:])
	}
	rows, err := q.pool.Query(ctx, `SELECT `+SummarySQL+`
		FROM user_threads ut JOIN threads t USING (thread_id) JOIN members m ON m.thread_id = ut.thread_id AND m.user_id = ut.user_id
		LEFT JOIN watermarks w ON w.thread_id = ut.thread_id AND w.user_id = ut.user_id
		WHERE ut.user_id = $1 AND (`+seenTime+`, t.thread_id) < ($2, $3)
		ORDER BY `+seenTime+` DESC, t.thread_id DESC LIMIT $4`, [16]byte(u), before, beforeThread, limit+1)
	if err != nil {
		return nil, q.unavailable("thread list", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Summary, error) { return ScanSummary(row, u) })
	if err != nil {
		return nil, q.unavailable("thread list", err)
	}
	out := wirev1.Threads_builder{}
	if len(list) > limit {
		list = list[:limit]
		last := list[limit-1]
		out.PageToken = append(binary.BigEndian.AppendUint64(nil, uint64(last.LastTime.UnixMicro())), last.Thread[:]...)
	}
	for _, s := range list {
		out.Threads = append(out.Threads, s.Wire)
	}
	return out.Build(), nil
}

func (q *Queries) summary(ctx context.Context, u id.UserID, t id.ThreadID) (Summary, error) {
	rows, err := q.pool.Query(ctx, `SELECT `+SummarySQL+`
		FROM members m JOIN threads t USING (thread_id) LEFT JOIN watermarks w ON w.thread_id = m.thread_id AND w.user_id = m.user_id
		WHERE m.thread_id = $1 AND m.user_id = $2`, [16]byte(t), [16]byte(u))
	if err != nil {
		return Summary{}, q.unavailable("thread", err)
	}
	s, err := pgx.CollectExactlyOneRow(
		rows, func(row pgx.CollectableRow) (Summary, error) { return ScanSummary(row, u) },
	)
	if errors.Is(err, pgx.ErrNoRows) {
		return Summary{}, notMember()
	}
	if err != nil {
		return Summary{}, q.unavailable("thread", err)
	}
	return s, nil
}

// GetThread returns a thread with its members, for one who is or was a member; a former member gets no list of members,
// and the summary that ends with his time.
func (q *Queries) GetThread(ctx context.Context, u id.UserID, t id.ThreadID) (*wirev1.Thread, error) {
	s, err := q.summary(ctx, u, t)
	if err != nil {
		return nil, err
	}
	out := wirev1.Thread_builder{Summary: s.Wire}
	if !s.Member.Active() {
		return out.Build(), nil
	}
	rows, err := q.pool.Query(ctx, `
		SELECT m.user_id, m.role, coalesce(u.name, ''), coalesce(w.delivered_position, 0), coalesce(w.delivered_ordinal, 0), coalesce(w.read_position, 0), coalesce(w.read_ordinal, 0)
		FROM members m LEFT JOIN users u USING (user_id) LEFT JOIN watermarks w ON w.thread_id = m.thread_id AND w.user_id = m.user_id
		WHERE m.thread_id = $1 AND m.active ORDER BY m.user_id`, [16]byte(t))
	if err != nil {
		return nil, q.unavailable("members", err)
	}
	out.Members, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*wirev1.Member, error) {
		var m [16]byte
		var role int16
		var name string
		var w wirev1.MemberWatermark_builder
		if err := row.Scan(&m, &role, &name, &w.DeliveredPosition, &w.DeliveredOrdinal, &w.ReadPosition, &w.ReadOrdinal); err != nil {
			return nil, fmt.Errorf("scan member: %w", err)
		}
		w.UserId = m[:]
		return wirev1.Member_builder{Watermark: w.Build(), Role: eventv1.Role(role), Name: name}.Build(), nil
	})
	if err != nil {
		return nil, q.unavailable("members", err)
	}
	return out.Build(), nil
}

// LookupUsers returns which of the phone numbers are users; each number counts against the user's limit.
func (q *Queries) LookupUsers(ctx context.Context, u id.UserID, phones []string) (*wirev1.Users, error) {
	if len(phones) > maxUsers {
		return nil, wire.Errorf(wirev1.Code_CODE_INVALID, "%d phone numbers, at most %d", len(phones), maxUsers)
	}
	ok, retry, err := q.limiter.Take(ctx, "lookup:"+u.String(), q.cfg.Lookups, len(phones))
	if err != nil {
		return nil, q.unavailable("lookup limit", err)
	}
	if !ok {
		return nil, &wire.Error{
			Code:       wirev1.Code_CODE_RATE_LIMITED,
			Message:    "too many phone numbers looked up",
			RetryAfter: retry,
		}
	}
	asked := map[[16]byte]string{}
	hashes := make([][16]byte, 0, len(phones))
	for _, p := range phones {
		e164, err := auth.ParsePhone(p)
		if err != nil {
			continue // what is no number is no user
		}
		h := id.PhoneHash(q.cfg.UserKey, e164)
		asked[h] = p
		hashes = append(hashes, h)
	}
	rows, err := q.pool.Query(
		ctx,
		`SELECT DISTINCT ON (phone_hash) phone_hash, user_id, name FROM users WHERE phone_hash = ANY($1::uuid[]) ORDER BY phone_hash, generation DESC`,
		hashes,
	)
	if err != nil {
		return nil, q.unavailable("lookup", err)
	}
	users, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*wirev1.User, error) {
		var h, uid [16]byte
		var name string
		if err := row.Scan(&h, &uid, &name); err != nil {
			return nil, fmt.Errorf("scan user: %w", err)
		}
		return wirev1.User_builder{UserId: uid[:], Name: name, Phone: asked[h]}.Build(), nil
	})
	if err != nil {
		return nil, q.unavailable("lookup", err)
	}
	return wirev1.Users_builder{Users: users}.Build(), nil
}

// GetUsers returns profiles by id.
func (q *Queries) GetUsers(ctx context.Context, ids [][]byte) (*wirev1.Users, error) {
	if len(ids) > maxUsers {
		return nil, wire.Errorf(wirev1.Code_CODE_INVALID, "%d users, at most %d", len(ids), maxUsers)
	}
	if len(ids) == 0 {
		return &wirev1.Users{}, nil
	}
	want := make([][16]byte, 0, len(ids))
	for _, b := range ids {
		u, err := id.From[id.UserID](b)
		if err != nil {
			return nil, wire.Errorf(wirev1.Code_CODE_INVALID, "user_ids: %v", err)
		}
		want = append(want, u)
	}
	rows, err := q.pool.Query(ctx, `SELECT user_id, name FROM users WHERE user_id = ANY($1::uuid[])`, want)
	if err != nil {
		return nil, q.unavailable("users", err)
	}
	users, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*wirev1.User, error) {
		var uid [16]byte
		var name string
		if err := row.Scan(&uid, &name); err != nil {
			return nil, fmt.Errorf("scan user: %w", err)
		}
		return wirev1.User_builder{UserId: uid[:], Name: name}.Build(), nil
	})
	if err != nil {
		return nil, q.unavailable("users", err)
	}
	return wirev1.Users_builder{Users: users}.Build(), nil
}

// UserExists tells whether a user is registered.
func (q *Queries) UserExists(ctx context.Context, u id.UserID) (bool, error) {
	var ok bool
	if err := q.pool.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM users WHERE user_id = $1)`, [16]byte(u)).Scan(&ok); err != nil {
		return false, q.unavailable("user", err)
	}
	return ok, nil
}

// ListDevices returns the devices of a user that may connect.
func (q *Queries) ListDevices(ctx context.Context, u id.UserID) (*wirev1.Devices, error) {
	rows, err := q.pool.Query(
		ctx,
		`SELECT device_id, name, is_primary, since FROM devices WHERE user_id = $1 AND NOT revoked ORDER BY since_position`,
		[16]byte(u),
	)
	if err != nil {
		return nil, q.unavailable("devices", err)
	}
	devices, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*wirev1.Device, error) {
		var d [16]byte
		var b wirev1.Device_builder
		var since time.Time
		if err := row.Scan(&d, &b.DeviceName, &b.Primary, &since); err != nil {
			return nil, fmt.Errorf("scan device: %w", err)
		}
		b.DeviceId, b.SinceMs = d[:], since.UnixMilli()
		return b.Build(), nil
	})
	if err != nil {
		return nil, q.unavailable("devices", err)
	}
	return wirev1.Devices_builder{Devices: devices}.Build(), nil
}

// Views returns how far each view has got in the slot of a thread. A view that cannot be asked counts as -1. Those who
// ask for one slot at the same time share one answer, so no number of them keeps others from the stores.
func (q *Queries) Views(ctx context.Context, t id.ThreadID) (*wirev1.Views, error) {
	slot := topic.SlotOf(topic.Subject(t), q.cfg.Partitions)
	asked := q.views.DoChan(strconv.Itoa(int(slot)), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return q.viewsOf(ctx, slot), nil
	})
	select {
	case got := <-asked:
		v, _ := got.Val.(*wirev1.Views)
		return v, nil
	case <-ctx.Done():
		return nil, q.unavailable("views", context.Cause(ctx))
	}
}

func (q *Queries) viewsOf(ctx context.Context, slot topic.Slot) *wirev1.Views {
	out := wirev1.Views_builder{Slot: int32(slot), PostgresNext: -1, ClickhouseNext: -1}
	err := q.pool.QueryRow(
		ctx, `SELECT next FROM positions WHERE topic = $1 AND slot = $2`, topic.Threads.Number(), int32(slot),
	).Scan(
		&out.PostgresNext,
	)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		out.PostgresNext = 0
	case err != nil:
		out.PostgresNext = -1
		q.log.Warn("postgres position unknown", "slot", slot, "err", err)
	}
	if next, err := historyNext(ctx, q.history, slot); err != nil {
		q.log.Warn("clickhouse position unknown", "slot", slot, "err", err)
	} else {
		out.ClickhouseNext = int64(next)
	}
	return out.Build()
}
