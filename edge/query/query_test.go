package query

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"google.golang.org/protobuf/proto"

	"heliograph/edge/auth"
	"heliograph/infra/clickhouse"
	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/history"
	"heliograph/infra/postgres"
	"heliograph/infra/views"
	chschema "heliograph/schemas/clickhouse"
	"heliograph/schemas/id"
	pgschema "heliograph/schemas/postgres"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

const partitions = 16

var userKey = []byte("0123456789abcdef0123456789abcdef")

type world struct {
	*Queries
	pg *pgxpool.Pool
	ch driver.Conn
}

func newWorld(t *testing.T) *world {
	t.Helper()
	url := enginetest.NewDatabase(t)
	for dir, schema := range map[string]string{
		"views":        pgschema.ViewsSchema,
		"registration": pgschema.RegistrationSchema,
	} {
		files, err := fs.Sub(pgschema.FS, dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := postgres.Migrate(t.Context(), url, files, schema); err != nil {
			t.Fatal(err)
		}
	}
	pool, err := postgres.Open(
		t.Context(), postgres.Config{URL: url, Params: map[string]string{"search_path": "views,registration"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	addr, password, db := enginetest.NewClickHouseDatabase(t)
	cfg := clickhouse.Config{Addr: []string{addr}, Database: db, Password: password}
	files, err := fs.Sub(chschema.FS, "history")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clickhouse.Migrate(t.Context(), cfg, files); err != nil {
		t.Fatal(err)
	}
	conn, err := clickhouse.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	q := New(
		Config{UserKey: userKey, Partitions: partitions, Lookups: auth.Rate{Burst: 10, Per: time.Hour}},
		views.New(pool), history.New(conn),
		auth.NewLimiter(pool), slog.New(slog.DiscardHandler),
	)
	return &world{Queries: q, pg: pool, ch: conn}
}

func (w *world) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := w.pg.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

var epoch = time.UnixMilli(1_750_000_000_000).UTC()

// logTime is the log time of the event at a position: a second for each.
func logTime(position int64) time.Time { return epoch.Add(time.Duration(position) * time.Second) }

func slotOf(t id.ThreadID) int32 { return int32(topic.SlotOf(topic.Subject(t), partitions)) }

// inTail puts a message into Postgres.
func (w *world) inTail(t *testing.T, th id.ThreadID, position, ordinal int64) {
	w.exec(t, `
		INSERT INTO messages (thread_id, slot, position, ordinal, kind, sender_id, message_id, log_time, event)
		VALUES ($1, $2, $3, $4, 10, $5, $6, $7, $8)`,
		[16]byte(th), slotOf(th), position, ordinal, [16]byte{1}, [16]byte(id.NewMessage()),
		logTime(position), []byte(fmt.Sprintf("event %d", position)))
}

// inHistory puts a message, or another event, into ClickHouse.
func (w *world) inHistory(t *testing.T, th id.ThreadID, position, ordinal int64, message bool) {
	t.Helper()
	sql := `INSERT INTO messages (thread_id, position, ordinal, slot, log_time, event) VALUES`
	if !message {
		sql = `INSERT INTO thread_events (thread_id, position, ordinal, slot, log_time, event) VALUES`
	}
	sql += fmt.Sprintf(" ('%s', %d, %d, %d, '%s', 'event %d')",
		th, position, ordinal, slotOf(th), logTime(position).Format("2006-01-02 15:04:05.000"), position)
	if err := w.ch.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func (w *world) historyHas(t *testing.T, th id.ThreadID, next int64) {
	t.Helper()
	if err := w.ch.Exec(t.Context(), fmt.Sprintf(`
		INSERT INTO positions (topic, slot, from_position, next, state)
		VALUES (1, %d, 0, %d, 'done')`, slotOf(th), next)); err != nil {
		t.Fatal(err)
	}
}

func (w *world) member(t *testing.T, th id.ThreadID, u id.UserID, active bool, base, end int64, spans ...int64) {
	w.exec(t, `
		INSERT INTO members (thread_id, user_id, role, active, spans, base_ordinal, end_ordinal)
		VALUES ($1, $2, 1, $3, $4, $5, $6)`, [16]byte(th), [16]byte(u), active, spans, base, end)
}

// group puts a thread whose last event is known to Postgres.
func (w *world) group(t *testing.T, th id.ThreadID, last int64) {
	w.exec(t, `
		INSERT INTO threads (thread_id, kind, title, last_position, last_ordinal, last_time, last_sender, preview)
		VALUES ($1, 2, 'g', $2, 1, $3, $4, '')`, [16]byte(th), last, logTime(last), [16]byte{})
	w.viewsHave(t, th, last+1)
}

// viewsHave moves the thread's slot in the thread views.
func (w *world) viewsHave(t *testing.T, th id.ThreadID, next int64) {
	w.exec(t, `
		INSERT INTO positions (topic, slot, next) VALUES (1, $1, $2)
		ON CONFLICT (topic, slot) DO UPDATE SET next = greatest(positions.next, excluded.next)`, slotOf(th), next)
}

func userN(n byte) id.UserID { return id.UserID{n, 6: 0x80, 8: 0x80} }

// pages reads history from the end to the beginning.
func pages(
	ctx context.Context, w *world, u id.UserID, th id.ThreadID, floor user.Floor, limit uint32,
) ([]int64, error) {
	var out []int64
	for before, n := int64(0), 0; ; n++ {
		p, err := w.History(
			ctx, u, floor,
			wirev1.GetHistory_builder{ThreadId: th[:], BeforePosition: before, Limit: limit}.Build(),
		)
		if err != nil {
			return out, err
		}
		for _, e := range p.GetEvents() {
			if want := fmt.Sprintf("event %d", e.GetPosition()); string(e.GetEvent()) != want {
				return out, fmt.Errorf("position %d holds %q", e.GetPosition(), e.GetEvent())
			}
			if e.GetLogTimeMs() != logTime(e.GetPosition()).UnixMilli() {
				return out, fmt.Errorf("position %d has log time %d", e.GetPosition(), e.GetLogTimeMs())
			}
			out = append(out, e.GetPosition())
		}
		if before = p.GetNextBefore(); before == 0 {
			return out, nil
		}
		if n > 100 {
			return out, errors.New("the pages do not end")
		}
	}
}

func down(from, to int64) []int64 {
	var out []int64
	for p := from; p >= to; p-- {
		out = append(out, p)
	}
	return out
}

// TestHistoryBorder pages back over the border between Postgres' tail and ClickHouse with every page size: nothing is
// missing, doubled or out of order.
func TestHistoryBorder(t *testing.T) {
	w := newWorld(t)
	th, u := id.NewGroup(), userN(1)
	w.group(t, th, 20)
	w.member(t, th, u, true, 0, 0, 3, 0)
	for p := int64(3); p <= 20; p++ {
		w.inHistory(t, th, p, p-2, p != 3)
		if p >= 12 { // older ones were trimmed
			w.inTail(t, th, p, p-2)
		}
	}
	w.historyHas(t, th, 21)
	for _, limit := range []uint32{1, 2, 3, 8, 9, 10, 17, 18, 19, 500} {
		got, err := pages(t.Context(), w, u, th, user.Floor{}, limit)
		if err != nil {
			t.Fatalf("limit %d: %v", limit, err)
		}
		if d := cmp.Diff(got, down(20, 3)); d != "" {
			t.Errorf("limit %d: got, want: %s", limit, d)
		}
	}
	// The device's floor cuts both sides of the border.
	for floor, oldest := range map[int64]int64{15: 15, 12: 12, 8: 8} {
		got, err := pages(t.Context(), w, u, th, user.Floor{MS: logTime(floor).UnixMilli()}, 4)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(got, down(20, oldest)); d != "" {
			t.Errorf("floor %d: got, want: %s", floor, d)
		}
	}
}

// TestHistoryShowsSpans gives a user who left and came back what was written while he was in, ends included.
func TestHistoryShowsSpans(t *testing.T) {
	w := newWorld(t)
	th, u := id.NewGroup(), userN(1)
	w.group(t, th, 12)
	w.member(t, th, u, true, 10, 0, 2, 5, 10, 0)
	// the last is newer than what is known of the membership: it may have ended before it
	for p := int64(0); p <= 13; p++ {
		w.inTail(t, th, p, p+1)
	}
	got, err := pages(t.Context(), w, u, th, user.Floor{}, 3)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(got, append(down(12, 10), down(5, 2)...)); d != "" {
		t.Errorf("got, want: %s", d)
	}
	_, err = pages(t.Context(), w, userN(9), th, user.Floor{}, 3)
	if !errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_NOT_A_MEMBER}) {
		t.Errorf("a stranger got %v", err)
	}
}

// TestHistoryBehind refuses a page with a gap: the tail was trimmed, but the history has not got that far.
func TestHistoryBehind(t *testing.T) {
	w := newWorld(t)
	th, u := id.NewGroup(), userN(1)
	w.group(t, th, 8)
	w.member(t, th, u, true, 0, 0, 0, 0)
	for p := int64(6); p <= 8; p++ {
		w.inTail(t, th, p, p+1)
	}
	for p := int64(0); p <= 3; p++ {
		w.inHistory(t, th, p, p+1, true)
	}
	w.historyHas(t, th, 4)
	_, err := pages(t.Context(), w, u, th, user.Floor{}, 10)
	if !errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_UNAVAILABLE}) {
		t.Errorf("got %v, want unavailable", err)
	}
}

// A device has come by a position from delivery that the views do not have yet: a page would have a gap.
func TestHistoryBeforeWhatTheViewsLack(t *testing.T) {
	w := newWorld(t)
	th, u := id.NewGroup(), userN(1)
	w.group(t, th, 8)
	w.member(t, th, u, true, 0, 0, 0, 0)
	ask := func() ([]int64, error) {
		p, err := w.History(
			t.Context(), u, user.Floor{},
			wirev1.GetHistory_builder{ThreadId: th[:], BeforePosition: 12, Limit: 100}.Build(),
		)
		var got []int64
		for _, e := range p.GetEvents() {
			got = append(got, e.GetPosition())
		}
		return got, err
	}
	for p := int64(0); p <= 8; p++ {
		w.inTail(t, th, p, p+1)
	}
	got, err := ask()
	var behind *wire.Error
	if !errors.As(err, &behind) || behind.Code != wirev1.Code_CODE_UNAVAILABLE || behind.RetryAfter == 0 {
		t.Fatalf("got %v, %v, want a word to try again", got, err)
	}
	for p := int64(9); p <= 11; p++ {
		w.inTail(t, th, p, p+1)
	}
	w.exec(t, `UPDATE threads SET last_position = 11`)
	w.viewsHave(t, th, 12)
	if got, err = ask(); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(down(11, 0), got); d != "" {
		t.Error(d)
	}
}

// Pages end where a frame does, and nothing beyond that is read, in either store.
func TestHistoryOfLargeMessages(t *testing.T) {
	w := newWorld(t)
	th, u := id.NewGroup(), userN(1)
	w.group(t, th, 199)
	w.member(t, th, u, true, 0, 0, 0, 0)
	const size = 64 << 10
	w.exec(t, `
		INSERT INTO messages (thread_id, slot, position, ordinal, kind, sender_id, message_id, log_time, event)
		SELECT $1, $2, n, n + 1, 10, $1, $1, $3, convert_to(repeat('x', $4::integer), 'UTF8')
		FROM generate_series(100, 199) n`, [16]byte(th), slotOf(th), epoch, size)
	if err := w.ch.Exec(t.Context(), fmt.Sprintf(`
		INSERT INTO messages (thread_id, position, ordinal, slot, log_time, event)
		SELECT '%s', number, number + 1, %d, '%s', repeat('x', %d) FROM numbers(100)`,
		th, slotOf(th), epoch.Format("2006-01-02 15:04:05.000"), size)); err != nil {
		t.Fatal(err)
	}
	w.historyHas(t, th, 200)
	most := maxPage/size + 1
	v := visible{spans: []thread.Span{{From: 0, To: 199}}, floor: time.UnixMilli(0)}
	if got, err := w.tail(t.Context(), th, v, 200, maxHistory); err != nil || len(got) > most {
		t.Errorf("%d events were read from the tail for a page of %d at most: %v", len(got), most, err)
	}
	if got, err := w.older(t.Context(), th, v, 100, maxHistory); err != nil || len(got) > most {
		t.Errorf("%d events were read from the history for a page of %d at most: %v", len(got), most, err)
	}
	next := int64(199)
	for before, n := int64(0), 0; ; n++ {
		p, err := w.History(
			t.Context(), u, user.Floor{},
			wirev1.GetHistory_builder{ThreadId: th[:], BeforePosition: before, Limit: maxHistory}.Build(),
		)
		if err != nil {
			t.Fatal(err)
		}
		if b := proto.Size(p); b > wire.MaxServerFrame-1024 {
			t.Fatalf("a page of %d bytes", b)
		}
		for _, e := range p.GetEvents() {
			if e.GetPosition() != next {
				t.Fatalf("position %d, want %d", e.GetPosition(), next)
			}
			next--
		}
		if before = p.GetNextBefore(); before == 0 {
			break
		}
	}
	if next != -1 {
		t.Errorf("the pages end at %d", next+1)
	}
}

// TestArchive pages forwards through messages and other events, and refuses to go beyond what the history has.
func TestArchive(t *testing.T) {
	w := newWorld(t)
	a := NewArchive(history.New(w.ch), partitions)
	th := id.NewGroup()
	for p := int64(0); p <= 12; p++ {
		w.inHistory(t, th, p, p, p%5 != 0)
	}
	w.historyHas(t, th, 13)
	read := func(after, upTo topic.Position, floorMS int64, limit int) (got []int64) {
		t.Helper()
		events, err := a.Events(t.Context(), th, after, upTo, floorMS, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if want := fmt.Sprintf("event %d", e.GetPosition()); string(e.GetEvent()) != want ||
				e.GetOrdinal() != e.GetPosition() ||
				e.GetLogTimeMs() != logTime(e.GetPosition()).UnixMilli() ||
				id.ThreadID(e.GetThreadId()) != th {
				t.Errorf("position %d: %v", e.GetPosition(), e)
			}
			got = append(got, e.GetPosition())
		}
		return got
	}
	for name, c := range map[string]struct{ got, want []int64 }{
		"from the beginning": {read(-1, 12, 0, 4), []int64{0, 1, 2, 3}},
		"a part":             {read(3, 7, 0, 100), []int64{4, 5, 6, 7}},
		"a full page":        {read(8, 12, 0, 3), []int64{9, 10, 11}},
		"from a moment on":   {read(-1, 9, logTime(7).UnixMilli(), 100), []int64{7, 8, 9}},
		"nothing":            {read(5, 5, 0, 100), nil},
	} {
		if d := cmp.Diff(c.got, c.want); d != "" {
			t.Errorf("%s: got, want: %s", name, d)
		}
	}
	if got, err := a.Events(t.Context(), th, 3, 13, 0, 100); !errors.Is(err, errBehind) {
		t.Errorf("beyond what the history has: %v, %v", got, err)
	}
}

// TestHistoryBehindOfATrimmedThread: Postgres has nothing left of the thread, so only its last position tells that the
// history lacks something.
func TestHistoryBehindOfATrimmedThread(t *testing.T) {
	w := newWorld(t)
	th, u, former := id.NewGroup(), userN(1), userN(2)
	w.group(t, th, 8)
	w.member(t, th, u, true, 0, 0, 0, 0)
	w.member(t, th, former, false, 0, 4, 0, 3)
	for p := int64(0); p <= 3; p++ {
		w.inHistory(t, th, p, p+1, true)
	}
	w.historyHas(t, th, 4)
	got, err := pages(t.Context(), w, u, th, user.Floor{}, 10)
	if !errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_UNAVAILABLE}) {
		t.Errorf("got %v and %v, want unavailable", got, err)
	}
	// What he may see is all there.
	got, err = pages(t.Context(), w, former, th, user.Floor{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(got, down(3, 0)); d != "" {
		t.Errorf("a former member's, want: %s", d)
	}
	for p := int64(4); p <= 8; p++ {
		w.inHistory(t, th, p, p+1, true)
	}
	w.historyHas(t, th, 9)
	if got, err = pages(t.Context(), w, u, th, user.Floor{}, 10); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(got, down(8, 0)); d != "" {
		t.Errorf("got, want: %s", d)
	}
}

// TestHistoryOfANewDevice: of what the tail has, the history need not have anything, also where the device may see
// nothing of it.
func TestHistoryOfANewDevice(t *testing.T) {
	w := newWorld(t)
	th, u := id.NewGroup(), userN(1)
	w.group(t, th, 8)
	w.member(t, th, u, true, 0, 0, 0, 0)
	for p := int64(6); p <= 8; p++ {
		w.inTail(t, th, p, p+1)
	}
	w.historyHas(t, th, 6)
	got, err := pages(t.Context(), w, u, th, user.Floor{MS: logTime(9).UnixMilli()}, 10)
	if err != nil || len(got) != 0 {
		t.Errorf("got %v and %v, want nothing", got, err)
	}
}

// A device registers through an edge whose clock is an hour ahead, or behind: the stamps of what others sent before and
// after, through another edge, say nothing of which came first. In: 13 events, the thread's slot was at some position
// when the device registered. Expected: the pages end there, in the tail as well as in the history.
func TestHistoryIsShownByPositionNotByStamps(t *testing.T) {
	w := newWorld(t)
	th, u := id.NewGroup(), userN(1)
	w.group(t, th, 12)
	w.member(t, th, u, true, 0, 0, 0, 0)
	for p := int64(0); p <= 12; p++ {
		w.inHistory(t, th, p, p+1, p != 0)
		if p >= 8 {
			w.inTail(t, th, p, p+1)
		}
	}
	w.historyHas(t, th, 13)
	slot := topic.Slot(slotOf(th))
	for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
		for from, want := range map[topic.Position][]int64{
			0: down(12, 0), 5: down(12, 5), 8: down(12, 8), 10: down(12, 10), 13: nil,
		} {
			dev := user.Device{
				SinceMS:   logTime(int64(from)).Add(ahead).UnixMilli(),
				ShownFrom: map[topic.Slot]topic.Position{slot: from},
			}
			for _, limit := range []uint32{2, 100} {
				got, err := pages(t.Context(), w, u, th, dev.Floor(), limit)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(got, want); d != "" {
					t.Errorf("from %d on, a clock %v ahead, pages of %d: got, want: %s", from, ahead, limit, d)
				}
			}
		}
	}
}

func TestHistoryRefusesBadInput(t *testing.T) {
	w := newWorld(t)
	th := id.NewGroup()
	for name, r := range map[string]wirev1.GetHistory_builder{
		"short id":        {ThreadId: []byte{1}},
		"large limit":     {ThreadId: th[:], Limit: maxHistory + 1},
		"negative before": {ThreadId: th[:], BeforePosition: -1},
	} {
		_, err := w.History(t.Context(), userN(1), user.Floor{}, r.Build())
		if !errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_INVALID}) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestListThreads(t *testing.T) {
	w := newWorld(t)
	u, peer := userN(1), userN(2)
	const count = 7
	threads := make([]id.ThreadID, count)
	for i := range threads {
		th := id.NewGroup()
		kind := 2
		if i == 0 {
			th, kind = id.DirectThread(u, peer), 1
			w.member(t, th, peer, true, 0, 0, 1, 0)
		}
		threads[i] = th
		at := logTime(int64(i / 2)) // pairs share their time, so that the token's second part is needed
		w.exec(t, `
			INSERT INTO user_threads (user_id, thread_id, joined_position, has_left)
			VALUES ($1, $2, 1, false)`, [16]byte(u), [16]byte(th))
		w.exec(t, `
			INSERT INTO threads (thread_id, kind, title, last_position, last_ordinal, last_time, last_sender, preview)
			VALUES ($1, $2, $3, 30, 20, $4, $5, 'hello')`,
			[16]byte(th), kind, fmt.Sprint("thread ", i), at, [16]byte(peer))
		if i == 1 { // who has left
			w.member(t, th, u, false, 5, 12, 2, 25)
		} else {
			w.member(t, th, u, true, 5, 0, 2, 0)
		}
	}
	w.exec(t, `INSERT INTO watermarks VALUES ($1, $2, 28, 18, 27, 17)`, [16]byte(threads[0]), [16]byte(u))
	const family = "👨‍👩‍👧‍👦" // 25 bytes
	w.exec(t, `UPDATE threads SET preview = $2 WHERE thread_id = $1`,
		[16]byte(threads[3]), strings.Repeat(family, 7))
	byID := map[id.ThreadID]*wirev1.ThreadSummary{}
	var last time.Time
	var token []byte
	for page := 0; page < 10; page++ {
		ask := wirev1.ListThreads_builder{Limit: 2, PageToken: token}.Build()
		got, err := w.ListThreads(t.Context(), u, user.Floor{}, nil, ask)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range got.GetThreads() {
			th := id.ThreadID(s.GetThreadId())
			if byID[th] != nil {
				t.Errorf("thread %v came twice", th)
			}
			byID[th] = s
			at := time.UnixMilli(s.GetLastTimeMs())
			if !last.IsZero() && at.After(last) {
				t.Errorf("%v comes after %v", at, last)
			}
			last = at
		}
		if token = got.GetPageToken(); len(token) == 0 {
			break
		}
		last := got.GetThreads()[len(got.GetThreads())-1]
		if binary.BigEndian.Uint64(token) != uint64(1000*last.GetLastTimeMs()) {
			t.Errorf("the page token tells another time than its thread: %v", last)
		}
	}
	if len(byID) != count {
		t.Fatalf("got %d threads, want %d", len(byID), count)
	}
	direct := byID[threads[0]]
	if id.UserID(direct.GetDirectPeer()) != peer || direct.GetUnread() != 3 || direct.GetMemberCount() != 2 ||
		!direct.GetMember() {
		t.Errorf("direct thread: %v", direct)
	}
	if former := byID[threads[1]]; former.GetMember() || former.GetUnread() != 7 || former.GetLastPosition() != 25 ||
		former.GetLastOrdinal() != 12 ||
		former.GetPreview() != "" {
		t.Errorf("a former member's thread shows what came after him: %v", former)
	}
	alone, err := w.GetThread(t.Context(), u, user.Floor{}, nil, threads[1])
	if err != nil {
		t.Fatal(err)
	}
	for from, former := range map[string]*wirev1.ThreadSummary{
		"the list":   byID[threads[1]],
		"the thread": alone.GetSummary(),
	} {
		if former.GetTitle() != "" || former.GetMemberCount() != 0 || former.GetLastTimeMs() != 0 {
			t.Errorf("%s tells a former member the later title %q, the count %d or the time %d",
				from, former.GetTitle(), former.GetMemberCount(), former.GetLastTimeMs())
		}
	}
	if fresh := byID[threads[2]]; fresh.GetUnread() != 15 || fresh.GetPreview() != "hello" {
		t.Errorf("unread %d and preview %q, want the 15 since he joined and the last",
			fresh.GetUnread(), fresh.GetPreview())
	}
	if got, want := byID[threads[3]].GetPreview(), strings.Repeat(family, 6); got != want {
		t.Errorf("a preview that ends within a character: %+q, want %+q", got, want)
	}
	// What was so when his time ended he may know.
	w.exec(t, `UPDATE threads SET last_position = 25 WHERE thread_id = $1`, [16]byte(threads[1]))
	if alone, err = w.GetThread(t.Context(), u, user.Floor{}, nil, threads[1]); err != nil {
		t.Fatal(err)
	}
	if s := alone.GetSummary(); s.GetTitle() != "thread 1" || s.GetLastTimeMs() == 0 || s.GetPreview() != "hello" ||
		s.GetMemberCount() != 0 {
		t.Errorf("a former member's thread in which nothing came after him: %v", s)
	}
	w.exec(t, `UPDATE members SET base_ordinal = 20 WHERE thread_id = $1 AND user_id = $2`,
		[16]byte(threads[2]), [16]byte(u))
	got, err := w.GetThread(t.Context(), u, user.Floor{}, nil, threads[2])
	if err != nil || got.GetSummary().GetPreview() != "" ||
		id.UserID(got.GetSummary().GetLastSender()) != (id.UserID{}) {
		t.Errorf("a new member is shown the last message from before his time: %v, %v", got, err)
	}
	// Of six that he has not read one is his own; two are from before a device's time, and so is his joining.
	for n := int64(15); n <= 20; n++ {
		from := peer
		if n == 16 {
			from = u
		}
		w.exec(t, `
			INSERT INTO messages (thread_id, position, ordinal, kind, sender_id, log_time, slot, event)
			VALUES ($1, $2, $3, 10, $4, $5, 0, '')`, [16]byte(threads[3]), n, n, [16]byte(from), logTime(n))
	}
	w.exec(t, `INSERT INTO messages VALUES ($1, 2, 2, 15, $2, NULL, $3, 0, '')`, [16]byte(threads[3]), [16]byte(peer),
		logTime(5))
	w.exec(t, `INSERT INTO watermarks VALUES ($1, $2, 14, 14, 14, 14)`, [16]byte(threads[3]), [16]byte(u))
	for floor, want := range map[int64]struct {
		unread int64
		past   bool
	}{0: {5, false}, logTime(17).UnixMilli(): {4, true}} {
		one, err := w.GetThread(t.Context(), u, user.Floor{MS: floor}, nil, threads[3])
		ask := wirev1.ListThreads_builder{Limit: 100}.Build()
		list, err2 := w.ListThreads(t.Context(), u, user.Floor{MS: floor}, nil, ask)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(list.GetThreads(), func(s *wirev1.ThreadSummary) bool {
			return id.ThreadID(s.GetThreadId()) == threads[3]
		})
		for _, s := range []*wirev1.ThreadSummary{one.GetSummary(), list.GetThreads()[i]} {
			if s.GetUnread() != want.unread || s.GetPastElsewhere() != want.past {
				t.Errorf("on a device since %d: %v, want %+v", floor, s, want)
			}
		}
	}
	for _, token := range [][]byte{[]byte("x"), bytes.Repeat([]byte{0x80}, 24), bytes.Repeat([]byte{0x7f}, 24)} {
		_, err := w.ListThreads(t.Context(), u, user.Floor{}, nil, wirev1.ListThreads_builder{PageToken: token}.Build())
		if !errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_INVALID}) {
			t.Errorf("token %x: %v", token, err)
		}
	}
}

func phones(numbers ...string) *wirev1.LookupUsers {
	return wirev1.LookupUsers_builder{Phones: numbers}.Build()
}

func TestLookupUsers(t *testing.T) {
	w := newWorld(t)
	phone := "+4915112345678"
	for generation := uint32(1); generation <= 2; generation++ {
		u, h := id.User(userKey, phone, generation), id.PhoneHash(userKey, phone)
		w.exec(t, `
			INSERT INTO users (user_id, phone_hash, generation, name, registered)
			VALUES ($1, $2, $3, 'Ann', now())`, [16]byte(u), h, generation)
	}
	got, err := w.LookupUsers(t.Context(), userN(1), phones("+49 151 12345678", "+33612345678", "nonsense"))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.GetUsers()) != 1 {
		t.Fatalf("got %v, want one user", got)
	}
	if u := got.GetUsers()[0]; id.UserID(u.GetUserId()) != id.User(userKey, phone, 2) ||
		u.GetPhone() != "+49 151 12345678" ||
		u.GetName() != "Ann" {
		t.Errorf("got %v, want the user of the latest generation under the number as it was asked for", u)
	}
	r := phones("+49 151 12345678", "0151 12345678", "+49 151 12345678")
	r.SetRegion("DE")
	got, err = w.LookupUsers(t.Context(), userN(1), r)
	var asked []string
	for _, u := range got.GetUsers() {
		asked = append(asked, u.GetPhone())
	}
	if want := []string{"+49 151 12345678", "0151 12345678"}; err != nil || !slices.Equal(asked, want) {
		t.Errorf("two writings of one number: got %q, %v, want %q", asked, err, want)
	}
	_, err = w.LookupUsers(t.Context(), userN(1), phones(make([]string, 10)...))
	if !errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_RATE_LIMITED}) {
		t.Errorf("beyond the limit: %v", err)
	}
}

func TestViews(t *testing.T) {
	w := newWorld(t)
	th := id.NewGroup()
	v, err := w.Views(t.Context(), th)
	if err != nil || v.GetPostgresNext() != 0 || v.GetClickhouseNext() != 0 {
		t.Fatalf("empty views: %v, %v", v, err)
	}
	w.exec(t, `INSERT INTO positions (topic, slot, next) VALUES (1, $1, 42)`, slotOf(th))
	w.historyHas(t, th, 40)
	v, err = w.Views(t.Context(), th)
	if err != nil || v.GetPostgresNext() != 42 || v.GetClickhouseNext() != 40 || v.GetSlot() != slotOf(th) {
		t.Fatalf("got %v, %v", v, err)
	}
	w.pg.Close()
	if v, err = w.Views(t.Context(), th); err != nil || v.GetPostgresNext() != -1 || v.GetClickhouseNext() != 40 {
		t.Fatalf("with Postgres down: %v, %v", v, err)
	}
}

// held is a history whose queries wait until they may go on.
type held struct {
	driver.Conn
	asked   atomic.Int64
	release chan struct{}
}

func (h *held) QueryRow(ctx context.Context, query string, args ...any) driver.Row {
	h.asked.Add(1)
	<-h.release
	return h.Conn.QueryRow(ctx, query, args...)
}

// Many who ask for one slot at the same time take one place at the stores, not one each; who goes away meanwhile takes
// the answer from nobody.
func TestViewsAreShared(t *testing.T) {
	w := newWorld(t)
	h := &held{Conn: w.ch, release: make(chan struct{})}
	q := New(Config{Partitions: partitions}, views.New(w.pg), history.New(h), nil, slog.New(slog.DiscardHandler))
	th := id.NewGroup()
	w.historyHas(t, th, 40)
	gone, leave := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := q.Views(gone, th); first <- err }()
	for h.asked.Load() == 0 {
		runtime.Gosched()
	}
	var wg sync.WaitGroup
	var begun atomic.Int64
	for range 100 {
		wg.Go(func() {
			begun.Add(1)
			if v, err := q.Views(t.Context(), th); err != nil || v.GetClickhouseNext() != 40 {
				t.Errorf("got %v, %v", v, err)
			}
		})
	}
	for begun.Load() < 100 {
		runtime.Gosched()
	}
	leave()
	if err := <-first; !errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_UNAVAILABLE}) {
		t.Errorf("who went away got %v", err)
	}
	close(h.release)
	wg.Wait()
	if n := h.asked.Load(); n > 50 {
		t.Errorf("101 asked the history %d times", n)
	}
}

// How far the history is says its latest generation: an earlier one had rows that a rebuild may have taken away.
func TestHistoryOfALaterGeneration(t *testing.T) {
	w := newWorld(t)
	th := id.DirectThread(userN(1), userN(2))
	ask := func() int64 {
		v, err := w.Views(t.Context(), th)
		if err != nil {
			t.Fatal(err)
		}
		return v.GetClickhouseNext()
	}
	w.historyHas(t, th, 100)
	if got := ask(); got != 100 {
		t.Errorf("next is %d, want 100", got)
	}
	if err := w.ch.Exec(t.Context(), fmt.Sprintf(`
		INSERT INTO positions (topic, slot, from_position, next, state, generation)
		VALUES (1, %d, 0, 7, 'done', 2)`, slotOf(th))); err != nil {
		t.Fatal(err)
	}
	if got := ask(); got != 7 {
		t.Errorf("next is %d, want the 7 of the rebuild", got)
	}
}
