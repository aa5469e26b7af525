package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/clickhouse"
	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	chschema "heliograph/schemas/clickhouse"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	pgschema "heliograph/schemas/postgres"
	"heliograph/schemas/topic"
)

// written is a log whose records the test makes, and what it wrote.
type written struct {
	t   *testing.T
	cfg kafka.Config
	cl  *kgo.Client
}

const writtenSlots = 3

func newLog(t *testing.T) *written {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	w := &written{t: t, cfg: kafka.Config{Brokers: fake.ListenAddrs(), Partitions: writtenSlots}}
	// Without the delivery timeout of ProducerOpts, which counts from a record's timestamp.
	if w.cl, err = kafka.Dial(w.cfg, kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.cl.Close)
	if _, err := kafka.EnsureTopics(t.Context(), w.cl, w.cfg); err != nil {
		t.Fatal(err)
	}
	return w
}

func slotOf(s id.ThreadID) topic.Slot { return topic.SlotOf(topic.Subject(s), writtenSlots) }

// put appends an event about a thread and returns its offset.
func (w *written) put(about id.ThreadID, at time.Time, ev *eventv1.Event) int64 {
	w.t.Helper()
	b, err := proto.Marshal(ev)
	if err != nil {
		w.t.Fatal(err)
	}
	r := w.cfg.NewRecord(topic.Threads, slotOf(about), about[:], b)
	r.Timestamp = at
	if err := w.cl.ProduceSync(w.t.Context(), r).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
	return r.Offset
}

// message is one of a sender in a direct thread with peer.
func message(m id.MessageID, from, peer id.UserID, s string) *eventv1.Event {
	d := id.NewDevice()
	return eventv1.Event_builder{UserId: from[:], DeviceId: d[:], MessageSent: eventv1.MessageSent_builder{
		MessageId: m[:], Content: eventtest.Text(s), DirectPeer: peer[:], ClientTimeMs: m.Time().UnixMilli(),
	}.Build()}.Build()
}

// madeAt is a message's id whose client's clock showed a time.
func madeAt(at time.Time) id.MessageID {
	m := id.NewMessage()
	ms := at.UnixMilli()
	for i := range 6 {
		m[i] = byte(ms >> (8 * (5 - i)))
	}
	return m
}

// summary is what the test compares of a place.
type summary struct {
	Found                bool
	Offset               int64
	Copies               int
	Postgres, ClickHouse string
	Refused              string
	Devices              int
}

func summarize(p *place) summary {
	s := summary{
		Found:      p.Log != nil,
		Copies:     len(p.Copies),
		Postgres:   p.Postgres.word(),
		ClickHouse: p.ClickHouse.word(),
		Refused:    p.Refused,
		Devices:    len(p.Devices),
	}
	if p.Log != nil {
		s.Offset = p.Log.Offset
	}
	return s
}

// TestWhere: the log is asked itself, whatever the views know of a message.
func TestWhere(t *testing.T) {
	if _, ok := engines(t); !ok {
		t.Skip("run make engines")
	}
	w := newLog(t)
	url := enginetest.NewDatabase(t)
	files, err := fs.Sub(pgschema.FS, "views")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Migrate(t.Context(), url, files, pgschema.ViewsSchema); err != nil {
		t.Fatal(err)
	}
	pool, err := postgres.Open(
		t.Context(), postgres.Config{URL: url, Params: map[string]string{"search_path": "views"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	addr, database := enginetest.NewClickHouseDatabase(t)
	ccfg := clickhouse.Config{Addr: []string{addr}, Database: database}
	if files, err = fs.Sub(chschema.FS, "history"); err != nil {
		t.Fatal(err)
	}
	if _, err := clickhouse.Migrate(t.Context(), ccfg, files); err != nil {
		t.Fatal(err)
	}
	history, err := clickhouse.Open(ccfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = history.Close() }) // read and written by this test alone
	pg := func(sql string, args ...any) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	ch := func(format string, args ...any) {
		t.Helper()
		if err := history.Exec(t.Context(), fmt.Sprintf(format, args...)); err != nil {
			t.Fatal(err)
		}
	}

	ann, bob, eve := id.UserID{1}, id.UserID{2}, id.UserID{3}
	direct := id.DirectThread(ann, bob)
	slot := slotOf(direct)
	now := time.Now().UTC()
	ago := func(d time.Duration) id.MessageID { return madeAt(now.Add(-d)) }
	ids := map[string]id.MessageID{
		"accepted": ago(
			50 * time.Minute,
		), "trimmed": ago(49 * time.Minute), "stranger's": ago(48 * time.Minute), "parked": ago(47 * time.Minute),
		"not yet": ago(
			2 * time.Second,
		), "elsewhere": ago(time.Second), "late": ago(10 * time.Minute), "too late": ago(5 * time.Hour),
	}
	offsets := map[string]int64{}
	put := func(name string, about id.ThreadID, at time.Time, from, peer id.UserID) {
		t.Helper()
		offsets[name] = w.put(about, at, message(ids[name], from, peer, name))
	}
	put("accepted", direct, ids["accepted"].Time(), ann, bob)
	put("trimmed", direct, ids["trimmed"].Time(), bob, ann)
	put("stranger's", direct, ids["stranger's"].Time(), eve, ann)
	put("parked", direct, ids["parked"].Time(), ann, bob)
	put("too late", direct, now.Add(-time.Minute), ann, bob)
	put("late", direct, now.Add(-time.Minute), ann, bob) // it waited nine minutes in an outbox
	put("not yet", direct, now, bob, ann)
	put("not yet", direct, now, bob, ann)
	offsets["not yet"]--
	put("elsewhere", id.DirectThread(ann, eve), now, ann, eve)

	pg(
		`INSERT INTO messages (thread_id, slot, position, ordinal, kind, sender_id, message_id, log_time, event) VALUES ($1, $2, $3, 1, 10, $4, $5, now(), '')`,
		[16]byte(direct), int32(slot), offsets["accepted"], [16]byte(ann), [16]byte(ids["accepted"]),
	)
	for _, name := range []string{"accepted", "trimmed"} {
		ch(
			`INSERT INTO messages (thread_id, position, ordinal, slot, message_id, log_time) VALUES ('%s', %d, 1, %d, '%s', now64(3))`,
			direct, offsets[name], slot, ids[name],
		)
	}
	pg(`INSERT INTO positions (topic, slot, next) VALUES (1, $1, $2)`, int32(slot), offsets["parked"]+1)
	ch(
		`INSERT INTO positions (topic, slot, from_position, next, state) VALUES (1, %d, 0, %d, 'done')`, slot,
		offsets["parked"]+1,
	)
	pg(
		`INSERT INTO quarantine (topic, slot, position, subject, reason, log_time) VALUES (1, $1, $2, $3, 'it does not decode', now())`,
		int32(slot), offsets["parked"], [16]byte(direct),
	)
	for i, u := range []id.UserID{ann, bob} {
		pg(
			`INSERT INTO members (thread_id, user_id, role, active, spans, base_ordinal, end_ordinal) VALUES ($1, $2, 1, true, '{0,0}', 0, 0)`,
			[16]byte(direct), [16]byte(u),
		)
		pg(
			`INSERT INTO devices (user_id, device_id, public_key, name, is_primary, revoked, since_position, since) VALUES ($1, $2, '', 'phone', true, false, 0, now())`,
			[16]byte(u), [16]byte{byte(i)},
		)
	}

	here := func(m id.MessageID) *traceCmd {
		return &traceCmd{
			kafkaFlags: kafkaFlags{
				Kafka: w.cfg.Brokers,
			}, postgresFlags: postgresFlags{Postgres: url, PostgresSchema: "views"},
			clickhouseFlags: clickhouseFlags{
				Clickhouse:         []string{addr},
				ClickhouseDatabase: database,
			}, Message: m.String(), Window: 15 * time.Minute,
		}
	}
	noViews := func(c *traceCmd) {
		c.Postgres, c.Clickhouse = "postgres://helio@127.0.0.1:1/helio", []string{"127.0.0.1:1"}
	}
	for name, c := range map[string]struct {
		of     string
		change func(*traceCmd)
		want   summary
	}{
		"in both views":       {of: "accepted", want: summary{Found: true, Postgres: "yes", ClickHouse: "yes", Devices: 2}},
		"trimmed in Postgres": {of: "trimmed", want: summary{Found: true, Offset: offsets["trimmed"], Postgres: "no", ClickHouse: "yes", Devices: 2}},
		"in no view yet, and sent twice": {of: "not yet", want: summary{
			Found: true, Offset: offsets["not yet"], Copies: 1, Postgres: "not yet", ClickHouse: "not yet", Devices: 2,
		}},
		"logged late": {of: "late", want: summary{Found: true, Offset: offsets["late"], Postgres: "not yet", ClickHouse: "not yet", Devices: 2}},
		"refused by the fold": {of: "stranger's", want: summary{
			Found: true, Offset: offsets["stranger's"], Postgres: "no", ClickHouse: "no", Refused: "not_member",
		}},
		"parked":            {of: "parked", want: summary{Found: true, Offset: offsets["parked"], Postgres: "parked", ClickHouse: "no"}},
		"beyond the window": {of: "too late", want: summary{Postgres: "not yet", ClickHouse: "not yet"}},
		"in a wider window": {of: "too late", change: func(c *traceCmd) { c.Window = 6 * time.Hour }, want: summary{
			Found: true, Offset: offsets["too late"], Postgres: "not yet", ClickHouse: "not yet", Devices: 2,
		}},
		"in the slot of its thread": {of: "elsewhere", change: func(c *traceCmd) { c.Thread = id.DirectThread(ann, eve).String() }, want: summary{
			Found: true, Offset: offsets["elsewhere"], Postgres: "not yet", ClickHouse: "not yet",
		}},
		"from no time that is": {of: "accepted", change: func(c *traceCmd) { c.Message = "ffffffff-ffff-7fff-bfff-ffffffffffff" }, want: summary{
			Postgres: "not yet", ClickHouse: "not yet",
		}},
		"without views": {of: "accepted", change: noViews, want: summary{Found: true, Postgres: "unknown", ClickHouse: "unknown"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			cmd := here(ids[c.of])
			if c.change != nil {
				c.change(cmd)
			}
			got, err := cmd.locate(ctx, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, summarize(got)); diff != "" {
				t.Errorf("place (-want +got):\n%s\n%+v", diff, got)
			}
			if _, err := json.Marshal(got); err != nil {
				t.Error(err)
			}
			if got.Log != nil && (got.Log.Slot != int32(slotOf(mustParse(t, got.Thread))) || got.Log.Time.IsZero()) {
				t.Errorf("it is at %+v", got.Log)
			}
		})
	}
	cmd := here(ids["accepted"])
	cmd.Kafka = []string{"127.0.0.1:1"}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	got, err := cmd.locate(ctx, slog.New(slog.DiscardHandler))
	if err != nil || got.LogError == "" || got.Postgres.word() != "yes" {
		t.Errorf("without the log: %+v, %v", got, err)
	}
}

func mustParse(t *testing.T, s string) id.ThreadID {
	t.Helper()
	out, err := id.Parse[id.ThreadID](s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTailSubject: the last events of one subject, or those since a time, from its slot alone, also when thousands of
// others came after them.
func TestTailSubject(t *testing.T) {
	w := newLog(t)
	ann := id.UserID{1}
	quiet := id.DirectThread(ann, id.UserID{2})
	var loud id.ThreadID
	for n := byte(3); loud.IsZero() || slotOf(loud) != slotOf(quiet); n++ {
		loud = id.DirectThread(ann, id.UserID{n})
	}
	begin := time.Now().UTC().Add(-time.Hour).Truncate(time.Second)
	for i := range 5 {
		w.put(
			quiet, begin.Add(time.Duration(i)*time.Minute), message(id.NewMessage(), ann, id.UserID{2}, fmt.Sprint(i)),
		)
	}
	var recs []*kgo.Record
	body, err := proto.Marshal(message(id.NewMessage(), ann, id.UserID{9}, "loud"))
	if err != nil {
		t.Fatal(err)
	}
	for range 7000 {
		recs = append(recs, w.cfg.NewRecord(topic.Threads, slotOf(loud), loud[:], body))
	}
	if err := w.cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for i := 5; i < 8; i++ {
		w.put(quiet, time.Now(), message(id.NewMessage(), ann, id.UserID{2}, fmt.Sprint(i)))
	}
	for name, c := range map[string]struct {
		cmd  tailCmd
		want []string
	}{
		"the last":        {tailCmd{N: 2}, []string{"6", "7"}},
		"far back":        {tailCmd{N: 6}, []string{"2", "3", "4", "5", "6", "7"}},
		"all there are":   {tailCmd{N: 100}, []string{"0", "1", "2", "3", "4", "5", "6", "7"}},
		"since the start": {tailCmd{Since: "start"}, []string{"0", "1", "2", "3", "4", "5", "6", "7"}},
		"since a time":    {tailCmd{Since: begin.Add(3 * time.Minute).Format(time.RFC3339)}, []string{"3", "4", "5", "6", "7"}},
		"since a while":   {tailCmd{Since: "30m"}, []string{"5", "6", "7"}},
		"from a position": {tailCmd{From: fmt.Sprintf("%d:4", slotOf(quiet))}, []string{"4", "5", "6", "7"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.cmd.Topic, c.cmd.Subject, c.cmd.Bodies, c.cmd.Output = "threads", quiet.String(), true, "json"
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			var out bytes.Buffer
			if err := c.cmd.tail(ctx, w.cfg, &out); err != nil {
				t.Fatal(err)
			}
			var got []string
			for dec := json.NewDecoder(&out); dec.More(); {
				var l logLine
				if err := dec.Decode(&l); err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprint(l.Fields["content"]))
				if l.Subject != quiet.String() || l.Slot != int32(slotOf(quiet)) {
					t.Errorf("%+v is not about the subject", l)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}
