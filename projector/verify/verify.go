package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/kafka"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// Config says what a view is compared with, and how much of it.
type Config struct {
	Kafka      kafka.Config
	Partitions int           // P; must be set
	Slots      []topic.Slot  // which partitions are compared; nil is all
	Retention  time.Duration // of the thread views, as their projector has it; 0 expects every message
}

// Table is how many rows of a table were compared.
type Table struct {
	Name string `json:"table"`
	Want int    `json:"want"` // rows that the log gives
	Got  int    `json:"got"`  // rows that the view has
	// Different are the differences, all of them.
	Different int `json:"different"`
}

// Place is up to where a partition of a topic was compared.
type Place struct {
	Topic topic.Topic    `json:"topic"`
	Slot  topic.Slot     `json:"partition"`
	Next  topic.Position `json:"next"` // the position after the last event that the view has taken in
	Log   topic.Position `json:"log"`  // up to where the log could be folded; less than Next: the log lacks events
}

// Report is what a comparison of a view found.
type Report struct {
	View        string       `json:"view"`
	Tables      []Table      `json:"tables"` // by name
	Places      []Place      `json:"places"` // by topic and partition
	Differences []Difference `json:"differences"`
	// Moved are watermarks that differ but cannot be judged: a device told of more after the moment of the
	// comparison, so the log may have compacted away what the view had by then.
	Moved int `json:"moved"`
	// Newer are the threads and users, topic by topic, of which the view has taken in an event that this version cannot
	// read: a newer one wrote it. With any there, the differences say nothing about the view.
	Newer int `json:"newer"`
}

// Comparable tells whether the log reaches as far as the view does.
func (r *Report) Comparable() bool {
	return !slices.ContainsFunc(r.Places, func(p Place) bool { return p.Log < p.Next })
}

// Equal tells whether the view is what the log gives.
func (r *Report) Equal() bool { return r.Comparable() && len(r.Differences) == 0 }

// Threads compares the thread views with a fold of the log up to the positions that they have stored. Rows and
// positions are read in one snapshot, so the projector may go on meanwhile. The pool's search_path names the views'
// schema.
func Threads(ctx context.Context, cfg Config, pool *pgxpool.Pool) (*Report, error) {
	got, at, err := readThreads(ctx, pool, cfg.selection(), cfg.Retention)
	if err != nil {
		return nil, err
	}
	ref, log, err := cfg.fold(ctx, at)
	if err != nil {
		return nil, err
	}
	want := ref.threadRows(cfg.Retention)
	r := newReport("threads", want, got, at, topic.Folded)
	r.Newer = ref.newer(topic.Folded, got)
	for _, d := range threadColumns.diff(want, got) {
		if log.moved[d.Table][d.Key] {
			r.Moved++
			continue
		}
		r.Differences = append(r.Differences, d)
	}
	r.count()
	return r, nil
}

// History compares the history with a fold of the log up to the positions that it had when the comparison began. Its
// rows are only ever added, each with its position, so the projector may go on meanwhile. The connection's default
// database is that of the history.
func History(ctx context.Context, cfg Config, conn driver.Conn) (*Report, error) {
	got, err := readHistory(ctx, conn, cfg.selection(), true)
	if err != nil {
		return nil, err
	}
	ref, log, err := cfg.fold(ctx, got.at)
	if err != nil {
		return nil, err
	}
	topics := []topic.Topic{topic.Threads, topic.Receipts}
	r := newReport("history", ref.historyRows(), got.rows, got.at, topics)
	r.Newer = ref.newer(topics, got.rows)
	r.Differences = append(r.Differences, got.diff(ref, log.end)...)
	r.count()
	return r, nil
}

// count tells each table how many of the differences are its own.
func (r *Report) count() {
	for i := range r.Tables {
		t := &r.Tables[i]
		for _, d := range r.Differences {
			if d.Table == t.Name {
				t.Different++
			}
		}
	}
}

func newReport(view string, want, got tables, at ends, topics []topic.Topic) *Report {
	r := &Report{View: view, Tables: []Table{}, Places: []Place{}, Differences: []Difference{}}
	names := maps.Clone(got)
	maps.Copy(names, want)
	for _, n := range slices.Sorted(maps.Keys(names)) {
		r.Tables = append(r.Tables, Table{Name: n, Want: len(want[n]), Got: len(got[n])})
	}
	for _, t := range topics {
		for _, s := range slices.Sorted(maps.Keys(at)) {
			next, ok := at[s][t]
			if !ok {
				continue
			}
			var reached topic.Position
			_, _ = fmt.Sscan(want["positions"][keyOf(t, s)], &reached) // no row: 0
			r.Places = append(r.Places, Place{Topic: t, Slot: s, Next: next, Log: reached})
		}
	}
	return r
}

// fold folds the log up to the ends, and reads on to its own.
func (c Config) fold(ctx context.Context, at ends) (*Reference, *until, error) {
	if c.Partitions <= 0 {
		return nil, nil, errors.New("verify: the number of partitions is not set")
	}
	ref := NewReference(c.Partitions)
	s := &until{
		Sink: ref, ends: at, log: ends{},
		moved: map[string]map[string]bool{"watermarks": {}, "device_watermarks": {}},
	}
	err := kafka.Replay(
		ctx, kafka.ConsumerConfig{Kafka: c.Kafka, View: "verify", Partitions: c.Partitions, Slots: c.Slots}, s,
	)
	if err != nil {
		return nil, nil, fmt.Errorf("verify: fold the log: %w", err)
	}
	return ref, s, nil
}

func (c Config) selection() selection { return selection{c.Partitions, c.Slots} }

// selection is some partitions of all; without slots all of them.
type selection struct {
	partitions int
	slots      []topic.Slot
}

func (s selection) has(n topic.Slot) bool { return len(s.slots) == 0 || slices.Contains(s.slots, n) }

func (s selection) holds(about topic.Subject) bool {
	return len(s.slots) == 0 || slices.Contains(s.slots, topic.SlotOf(about, s.partitions))
}

// ends are next positions of a view.
type ends map[topic.Slot]kafka.Positions

func (e ends) put(t topic.Topic, s topic.Slot, next topic.Position) {
	if e[s] == nil {
		e[s] = kafka.Positions{}
	}
	e[s][t] = next
}

// until is a sink that passes on what lies before the ends. Of what comes later it keeps which watermarks it moves.
type until struct {
	kafka.Sink
	ends ends

	mu    sync.Mutex                 // guards what follows; nobody else is there once the replay has ended
	moved map[string]map[string]bool // the keys of watermarks that were told of after the ends, by table
	log   ends                       // up to where the log was read
}

// end is where the log ended in a topic of a slot.
func (u *until) end(t topic.Topic, s topic.Slot) topic.Position { return u.log[s][t] }

// Apply implements kafka.Sink.
func (u *until) Apply(ctx context.Context, b kafka.Batch) error {
	u.mu.Lock()
	for t, to := range b.To {
		u.log.put(t, b.Slot, max(to, u.log[b.Slot][t]))
	}
	u.mu.Unlock()
	end := u.ends[b.Slot]
	cut := kafka.Batch{Slot: b.Slot, From: kafka.Positions{}, To: kafka.Positions{}}
	for i := range b.Records {
		r := &b.Records[i]
		if r.Position < end[r.Topic] {
			cut.Records = append(cut.Records, *r)
		} else if r.Topic == topic.Receipts {
			u.move(r)
		}
	}
	on := false
	for t, to := range b.To {
		from, known := b.From[t]
		if known {
			cut.From[t] = min(from, end[t])
		}
		if to = min(to, end[t]); to > 0 {
			cut.To[t] = to
			on = on || to > cut.From[t]
		}
	}
	if !on {
		return nil
	}
	return u.Sink.Apply(ctx, cut)
}

// move takes down a receipt beyond the end. One that cannot be read moves nothing.
func (u *until) move(r *kafka.Record) {
	var ev eventv1.Event
	if proto.Unmarshal(r.Value, &ev) != nil || len(r.Key) < 2*id.Size || len(ev.GetUserId()) != id.Size {
		return
	}
	thread, device, user := id.ThreadID(r.Key), id.DeviceID(r.Key[id.Size:]), id.UserID(ev.GetUserId())
	if d := ev.GetDeviceId(); len(d) == id.Size {
		device = id.DeviceID(d)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.moved["watermarks"][keyOf(thread, user)] = true
	u.moved["device_watermarks"][keyOf(thread, device, user)] = true
}
