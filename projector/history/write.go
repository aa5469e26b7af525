package history

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/uuid"

	"heliograph/infra/history"
	"heliograph/projector"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

const (
	typeUUID  = "UUID"
	typeInt64 = "Int64"
	typeInt32 = "Int32"
	typeInt16 = "Int16"
	typeText  = "String"
	typeLow   = "LowCardinality(String)"
	typeTime  = "DateTime64(3, 'UTC')"
)

// table is how rows of R get into a table, column by column.
type table[R any] struct {
	name   string
	insert string
	// told to the client, which would ask the server for them at every insert else
	columns []clickhouse.ColumnNameAndType
	pick    []func([]R) any
	time    func(R) time.Time // the month that a row lies in; nil: the table has no partitions
	at      func(R) int64     // a row's position, for the tokens; nil: the last that was written counts, without one
}

func (t *table[R]) tokens(at func(R) int64) *table[R] {
	t.at = at
	return t
}

type col[R any] struct {
	name, typ string
	pick      func([]R) any
}

func newTable[R any](name string, at func(R) time.Time, cols ...col[R]) *table[R] {
	t := &table[R]{name: name, time: at}
	var names []string
	for _, c := range cols {
		t.columns = append(t.columns, clickhouse.ColumnNameAndType{Name: c.name, Type: c.typ})
		t.pick = append(t.pick, c.pick)
		names = append(names, c.name)
	}
	t.insert = fmt.Sprintf("INSERT INTO %s (%s)", name, strings.Join(names, ", "))
	return t
}

// field makes a column of one field of the rows.
func field[R, V any](name, typ string, get func(R) V) col[R] {
	return col[R]{name, typ, func(rows []R) any {
		out := make([]V, len(rows))
		for i := range rows {
			out[i] = get(rows[i])
		}
		return out
	}}
}

func key[R any, T ~[id.Size]byte](name string, get func(R) T) col[R] {
	return field(name, typeUUID, func(r R) uuid.UUID { return uuid.UUID(get(r)) })
}

var (
	tableMessages = newTable("messages", func(r messageRow) time.Time { return r.log },
		key("thread_id", func(r messageRow) id.ThreadID { return r.thread }),
		field("position", typeInt64, func(r messageRow) int64 { return r.position }),
		field("ordinal", typeInt64, func(r messageRow) int64 { return r.ordinal }),
		field("slot", typeInt32, func(r messageRow) int32 { return r.slot }),
		key("sender_id", func(r messageRow) id.UserID { return r.sender }),
		key("sender_device", func(r messageRow) id.DeviceID { return r.device }),
		key("message_id", func(r messageRow) id.MessageID { return r.message }),
		key("reply_to", func(r messageRow) id.MessageID { return r.replyTo }),
		key("reply_author", func(r messageRow) id.UserID { return r.replyAuthor }),
		field("log_time", typeTime, func(r messageRow) time.Time { return r.log }),
		field("counted_time", typeTime, func(r messageRow) time.Time { return r.counted }),
		field("client_time", typeTime, func(r messageRow) time.Time { return r.client }),
		field("key_id", "UInt64", func(r messageRow) uint64 { return r.keyID }),
		field("body", typeText, func(r messageRow) string { return r.body }),
		field("event", typeText, func(r messageRow) string { return r.event }),
	).tokens(func(r messageRow) int64 { return r.position })
	tableEvents = newTable("thread_events", func(r eventRow) time.Time { return r.log },
		key("thread_id", func(r eventRow) id.ThreadID { return r.thread }),
		field("position", typeInt64, func(r eventRow) int64 { return r.position }),
		field("ordinal", typeInt64, func(r eventRow) int64 { return r.ordinal }),
		field("slot", typeInt32, func(r eventRow) int32 { return r.slot }),
		field("kind", typeLow, func(r eventRow) string { return r.kind }),
		key("actor_id", func(r eventRow) id.UserID { return r.actor }),
		field("log_time", typeTime, func(r eventRow) time.Time { return r.log }),
		field("title", typeText, func(r eventRow) string { return r.title }),
		field("event", typeText, func(r eventRow) string { return r.event }),
	).tokens(func(r eventRow) int64 { return r.position })
	tableChanges = newTable("message_changes", func(r changeRow) time.Time { return r.log },
		key("thread_id", func(r changeRow) id.ThreadID { return r.thread }),
		key("author_id", func(r changeRow) id.UserID { return r.author }),
		key("message_id", func(r changeRow) id.MessageID { return r.message }),
		field("position", typeInt64, func(r changeRow) int64 { return r.position }),
		field("slot", typeInt32, func(r changeRow) int32 { return r.slot }),
		field("change", typeLow, func(r changeRow) string { return r.change }),
		key("actor_id", func(r changeRow) id.UserID { return r.actor }),
		field("log_time", typeTime, func(r changeRow) time.Time { return r.log }),
		field("key_id", "UInt64", func(r changeRow) uint64 { return r.keyID }),
		field("body", typeText, func(r changeRow) string { return r.body }),
		field("emoji", typeText, func(r changeRow) string { return r.emoji }),
	).tokens(func(r changeRow) int64 { return r.position })
	tableMembers = newTable("memberships", func(r memberRow) time.Time { return r.log },
		key("thread_id", func(r memberRow) id.ThreadID { return r.thread }),
		key("user_id", func(r memberRow) id.UserID { return r.user }),
		field("position", typeInt64, func(r memberRow) int64 { return r.position }),
		field("slot", typeInt32, func(r memberRow) int32 { return r.slot }),
		field("kind", typeInt16, func(r memberRow) int16 { return r.kind }),
		field("active", "Bool", func(r memberRow) bool { return r.active }),
		field("role", typeInt16, func(r memberRow) int16 { return r.role }),
		field("ordinal", typeInt64, func(r memberRow) int64 { return r.ordinal }),
		field("log_time", typeTime, func(r memberRow) time.Time { return r.log }),
	).tokens(func(r memberRow) int64 { return r.position })
	tableInvitations = newTable("invitations", func(r invitationRow) time.Time { return r.log },
		key("thread_id", func(r invitationRow) id.ThreadID { return r.thread }),
		key("user_id", func(r invitationRow) id.UserID { return r.user }),
		field("position", typeInt64, func(r invitationRow) int64 { return r.position }),
		field("slot", typeInt32, func(r invitationRow) int32 { return r.slot }),
		field("open", "Bool", func(r invitationRow) bool { return r.open }),
		field("kind", typeLow, func(r invitationRow) string { return r.kind }),
		key("actor_id", func(r invitationRow) id.UserID { return r.actor }),
		field("log_time", typeTime, func(r invitationRow) time.Time { return r.log }),
	).tokens(func(r invitationRow) int64 { return r.position })
	tableReceipts = newTable("receipts", func(r receiptRow) time.Time { return r.log },
		key("thread_id", func(r receiptRow) id.ThreadID { return r.thread }),
		key("user_id", func(r receiptRow) id.UserID { return r.user }),
		key("device_id", func(r receiptRow) id.DeviceID { return r.device }),
		field("position", typeInt64, func(r receiptRow) int64 { return r.position }),
		field("slot", typeInt32, func(r receiptRow) int32 { return r.slot }),
		watermark("delivered_position", func(m thread.Watermark) int64 { return int64(m.DeliveredPosition) }),
		watermark("delivered_ordinal", func(m thread.Watermark) int64 { return m.DeliveredOrdinal }),
		watermark("read_position", func(m thread.Watermark) int64 { return int64(m.ReadPosition) }),
		watermark("read_ordinal", func(m thread.Watermark) int64 { return m.ReadOrdinal }),
		field("log_time", typeTime, func(r receiptRow) time.Time { return r.log }),
	).tokens(func(r receiptRow) int64 { return r.position })
	tableQuarantine = newTable("quarantine", nil,
		field("topic", typeInt16, func(q quarantineRow) int16 { return int16(q.Topic.Number()) }),
		field("slot", typeInt32, func(q quarantineRow) int32 { return int32(q.Slot) }),
		field("position", typeInt64, func(q quarantineRow) int64 { return int64(q.Position) }),
		key("subject", func(q quarantineRow) topic.Subject { return q.Subject }),
		field("reason", typeText, func(q quarantineRow) string { return q.Reason }),
		field("log_time", typeTime, func(q quarantineRow) time.Time { return storable(q.TimeMS) }),
		field("released", "Bool", func(q quarantineRow) bool { return q.released }),
	)
	tablePositions = newTable("positions", nil,
		field("topic", typeInt16, func(p positionRow) int16 { return int16(p.topic.Number()) }),
		field("slot", typeInt32, func(p positionRow) int32 { return int32(p.slot) }),
		field("from_position", typeInt64, func(p positionRow) int64 { return int64(p.from) }),
		field("next", typeInt64, func(p positionRow) int64 { return int64(p.next) }),
		field("state", "Enum8('begun' = 1, 'done' = 2)", func(p positionRow) string { return p.state }),
		field("generation", "UInt32", func(p positionRow) uint32 { return p.generation }),
		field("log_time", typeTime, func(p positionRow) time.Time { return storable(p.timeMS) }),
		key("log_id", func(p positionRow) [id.Size]byte { return p.mark.Log }),
		field("digest", "UInt64", func(p positionRow) uint64 { return p.mark.Digest }),
	)
	tableOwners = newTable("owners", nil,
		field("generation", "UInt32", func(o ownerRow) uint32 { return o.generation }),
		field("slot", typeInt32, func(o ownerRow) int32 { return int32(o.slot) }),
		field("epoch", "UInt64", func(o ownerRow) uint64 { return o.epoch }),
	)
)

func watermark(name string, get func(thread.Watermark) int64) col[receiptRow] {
	return field(name, typeInt64, func(r receiptRow) int64 { return get(r.mark) })
}

// quarantineRow is what the last row that was written for a position says: the event is in quarantine, or not any more.
type quarantineRow struct {
	projector.Quarantined
	released bool
}

func quarantineRows(qs []projector.Quarantined, released bool) []quarantineRow {
	out := make([]quarantineRow, len(qs))
	for i, q := range qs {
		out[i] = quarantineRow{q, released}
	}
	return out
}

type positionRow struct {
	topic      topic.Topic
	slot       topic.Slot
	from, next topic.Position
	state      string
	generation uint32
	timeMS     int64
	mark       topic.Mark // of the record before next
}

// Write stores a folded batch: its ranges as begun, its rows, its ranges as done.
func (s *store) Write(ctx context.Context, f *projector.Folded[*writes]) error {
	b, w := f.Batch, f.Rows
	var ranges []positionRow
	for _, t := range Topics {
		if next, ok := b.To[t]; ok && next != b.From[t] {
			ranges = append(ranges, positionRow{
				topic:      t,
				slot:       b.Slot,
				from:       b.From[t],
				next:       next,
				state:      history.Begun,
				generation: s.cfg.Generation,
				timeMS:     f.LogTimes[t],
				mark:       b.Marks[t],
			})
		}
	}
	if len(ranges) == 0 {
		return nil
	}
	released, err := s.overtaken(ctx, f)
	if err != nil {
		return err
	}
	// The fence: who took the slot over before this was stored shows now, and who does from now on finds the range as
	// begun, and inserts it like us.
	by, err := s.positions.put(ctx, ranges)
	if err == nil {
		err = s.fence(b.Slot, by)
	}
	if err != nil {
		return err
	}
	quarantine := append(quarantineRows(f.Quarantined, false), released...)
	if err := s.insertAll(ctx, s.token(ranges), w, quarantine); err != nil {
		return err
	}
	done := slices.Clone(ranges) // the others may still be on their way, if their put was given up
	for i := range done {
		done[i].state = history.Done
	}
	if by, err = s.positions.put(ctx, done); err != nil {
		return err
	}
	return s.fence(b.Slot, by)
}

// overtaken returns what takes back rows of quarantine that another version has left in a batch's ranges, when it was
// cut off before they were done or was of an earlier generation, and that do not come of the batch any more.
func (s *store) overtaken(ctx context.Context, f *projector.Folded[*writes]) ([]quarantineRow, error) {
	b := f.Batch
	s.mu.Lock()
	ahead := s.ahead[b.Slot]
	s.mu.Unlock()
	var out []quarantineRow
	for t, end := range ahead {
		if b.From[t] >= min(end, b.To[t]) {
			continue
		}
		found, err := s.Quarantined(ctx, t, b.Slot, b.From[t], b.To[t], int(b.To[t]-b.From[t]))
		if err != nil {
			return nil, err
		}
		for _, q := range found {
			again := func(o projector.Quarantined) bool { return o.Topic == t && o.Position == q.Position }
			if !slices.ContainsFunc(f.Quarantined, again) {
				out = append(out, quarantineRow{q, true})
			}
		}
	}
	return out, nil
}

// Quarantined implements projector.Drainer.
func (s *store) Quarantined(
	ctx context.Context, t topic.Topic, slot topic.Slot, from, to topic.Position, limit int,
) ([]projector.Quarantined, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.timeout)
	defer cancel()
	found, err := s.history.QuarantineBetween(ctx, t, slot, from, to, limit)
	out := make([]projector.Quarantined, len(found))
	for i, q := range found {
		out[i] = projector.Quarantined{
			Topic: q.Topic, Slot: q.Slot, Position: q.Position, Subject: q.Subject, Reason: q.Reason,
			TimeMS: q.Time.UnixMilli(),
		}
	}
	return out, err
}

// Drain implements projector.Drainer. The rows come first and what releases their events last, in one insert: whoever
// is cut off between them drains the same again. Whose slot was taken over drains nothing; of two that drain the same
// all the same, since it was taken over meanwhile, both insert the same.
func (s *store) Drain(ctx context.Context, d *projector.Drained[*writes]) error {
	by, err := s.owners(ctx)
	if err == nil {
		err = s.fence(d.Slot, by)
	}
	if err != nil {
		return err
	}
	token := fmt.Sprintf("%s/%d/%d/drain/%s", s.cfg.Consumer.View, s.cfg.Generation, d.Slot, d.Topic)
	quarantine := append(quarantineRows(d.Kept, false), quarantineRows(d.Released, true)...)
	return s.insertAll(ctx, token, d.Rows, quarantine)
}

func (s *store) insertAll(ctx context.Context, token string, w *writes, quarantine []quarantineRow) error {
	for _, do := range []func() error{
		func() error { return insert(ctx, s, tableMessages, token, w.messages) },
		func() error { return insert(ctx, s, tableEvents, token, w.events) },
		func() error { return insert(ctx, s, tableChanges, token, w.changes) },
		func() error { return insert(ctx, s, tableMembers, token, w.members) },
		func() error { return insert(ctx, s, tableInvitations, token, w.invitations) },
		func() error { return insert(ctx, s, tableReceipts, token, w.receipts) },
		func() error { return insert(ctx, s, tableQuarantine, token, quarantine) },
	} {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// token names a batch: view, generation, slot and the range of each topic. What an insert adds to it is the table, the
// month, the chunk and a digest of what its rows are about: another version may make more of the same range, and the
// engine must not take that for a repetition.
func (s *store) token(ranges []positionRow) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%d/%d", s.cfg.Consumer.View, s.cfg.Generation, ranges[0].slot)
	for _, r := range ranges {
		fmt.Fprintf(&b, "/%s:%d-%d", r.topic, r.from, r.next)
	}
	return b.String()
}

// insert inserts rows, month by month and chunk by chunk, each under a token of its own.
func insert[R any](ctx context.Context, s *store, t *table[R], batch string, rows []R) error {
	months := map[string][]R{}
	if t.time == nil {
		months["-"] = rows
	} else {
		for _, r := range rows {
			m := t.time(r).Format("200601")
			months[m] = append(months[m], r)
		}
	}
	var names []string
	for m := range months {
		names = append(names, m)
	}
	slices.Sort(names)
	for _, m := range names {
		chunk := 0
		for some := range slices.Chunk(months[m], insertRows) {
			token := ""
			if t.at != nil {
				token = fmt.Sprintf("%s/%s/%s/%d/%x", batch, t.name, m, chunk, t.digest(some))
			}
			if err := insertChunk(ctx, s, t, token, some); err != nil {
				return fmt.Errorf("insert into %s: %w", t.name, err)
			}
			chunk++
		}
	}
	return nil
}

func (t *table[R]) digest(rows []R) uint64 {
	h := fnv.New64a()
	var at [8]byte
	for _, r := range rows {
		_, _ = h.Write(binary.LittleEndian.AppendUint64(at[:0], uint64(t.at(r)))) // a hash takes everything
	}
	return h.Sum64()
}

func insertChunk[R any](ctx context.Context, s *store, t *table[R], token string, rows []R) error {
	select {
	case s.room <- struct{}{}:
		defer func() { <-s.room }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// from here on: it may have waited long for the others' inserts
	ctx, cancel := context.WithTimeout(ctx, s.cfg.timeout)
	defer cancel()
	begin := time.Now()
	if token == "" {
		// One that never comes again: newer servers compare the rows themselves where there is none, whatever
		// insert_deduplicate says, and what was said before could not be said again.
		token = "once/" + uuid.NewString()
	}
	settings := clickhouse.Settings{
		"async_insert": 0, "insert_deduplicate": 1, "insert_deduplication_token": token,
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithColumnNamesAndTypes(t.columns), clickhouse.WithSettings(settings))
	batch, err := s.conn.PrepareBatch(ctx, t.insert)
	if err != nil {
		return err
	}
	defer batch.Close()
	for i, pick := range t.pick {
		if err := batch.Column(i).Append(pick(rows)); err != nil {
			return fmt.Errorf("column %s: %w", t.columns[i].Name, err)
		}
	}
	if err := batch.Send(); err != nil {
		return err
	}
	s.metrics.inserts.WithLabelValues(t.name).Observe(time.Since(begin).Seconds())
	s.metrics.rows.WithLabelValues(t.name).Add(float64(len(rows)))
	return nil
}
