package threads

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"heliograph/projector"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

var (
	tableThreads = newTable(
		"threads",
		overwrite("thread_id", "kind", "title", "last_position", "last_ordinal", "last_time", "last_sender", "preview"),
		"thread_id uuid", "kind smallint", "title text", "last_position bigint", "last_ordinal bigint",
		"last_time timestamptz", "last_sender uuid", "preview text",
	)
	tableMembers = newTable(
		"members", overwrite("thread_id, user_id", "role", "active", "spans", "base_ordinal", "end_ordinal"),
		"thread_id uuid", "user_id uuid", "role smallint", "active boolean", "spans bigint[]", "base_ordinal bigint",
		"end_ordinal bigint",
	)
	tableInvitations = newTable(
		"invitations", overwrite("thread_id, user_id", "inviter_id", "position", "log_time"),
		"thread_id uuid", "user_id uuid", "inviter_id uuid", "position bigint", "log_time timestamptz",
	)
	tableMessages = newTable(
		"messages", "ON CONFLICT DO NOTHING", "thread_id uuid", "position bigint", "ordinal bigint", "kind smallint",
		"sender_id uuid", "message_id uuid", "log_time timestamptz", "slot integer", "event bytea",
	)
	tableRejected = newTable(
		"rejected", "ON CONFLICT DO NOTHING", "user_id uuid", "device_id uuid", "thread_id uuid", "position bigint",
		"message_id uuid", "reason text", "log_time timestamptz", "slot integer",
	)
	tableMarks = newTable(
		"watermarks",
		raise("thread_id, user_id", "watermarks",
			"delivered_position", "delivered_ordinal", "read_position", "read_ordinal"),
		"thread_id uuid",
		"user_id uuid",
		"delivered_position bigint",
		"delivered_ordinal bigint",
		"read_position bigint",
		"read_ordinal bigint",
	)
	tableDeviceMarks = newTable(
		"device_watermarks",
		raise("thread_id, device_id, user_id", "device_watermarks",
			"delivered_position", "delivered_ordinal", "read_position", "read_ordinal"),
		"thread_id uuid",
		"device_id uuid",
		"user_id uuid",
		"delivered_position bigint",
		"delivered_ordinal bigint",
		"read_position bigint",
		"read_ordinal bigint",
	)
	tableUsers = newTable("users", overwrite("user_id", "phone_hash", "generation", "name", "registered", "may_add"),
		"user_id uuid", "phone_hash uuid", "generation integer", "name text", "registered timestamptz",
		"may_add smallint")
	tableDevices = newTable(
		"devices",
		overwrite("user_id, device_id", "public_key", "name", "is_primary", "revoked", "since_position", "since",
			"shown_from"),
		"user_id uuid", "device_id uuid", "public_key bytea", "name text", "is_primary boolean", "revoked boolean",
		"since_position bigint", "since timestamptz", "shown_from bigint[]",
	)
	tableContacts = newTable(
		"contacts", overwrite("user_id, phone_hash", "name"), "user_id uuid", "phone_hash uuid", "name text",
	)
	tableBlocks = newTable("blocks", "ON CONFLICT DO NOTHING", "user_id uuid", "blocked_id uuid")
	tableLists  = newTable("user_threads", overwrite("user_id, thread_id", "joined_position", "has_left"),
		"user_id uuid", "thread_id uuid", "joined_position bigint", "has_left boolean")
	tableUserInvitations = newTable(
		"user_invitations", overwrite("user_id, thread_id", "inviter_id", "title", "position", "log_time"),
		"user_id uuid", "thread_id uuid", "inviter_id uuid", "title text", "position bigint", "log_time timestamptz",
	)
	tableQuarantine = newTable("quarantine", "ON CONFLICT DO NOTHING",
		"topic smallint", "slot integer", "position bigint", "subject uuid", "reason text", "log_time timestamptz")
	tableKept = newTable("quarantine", overwrite("topic, slot, position", "reason"),
		"topic smallint", "slot integer", "position bigint", "subject uuid", "reason text", "log_time timestamptz")
)

const (
	sqlHold    = `SELECT hold_generation($1::uuid)`
	sqlAdvance = `
		SELECT advance_position($1::smallint, $2::integer, $3::bigint, $4::bigint, $5::timestamptz,
			$6::uuid, $7::bigint)`
	sqlRelease      = `SELECT release_quarantined($1::smallint, $2::integer, $3::bigint[], $4::bigint[])`
	sqlDropContacts = `
		DELETE FROM contacts c USING unnest($1::uuid[], $2::uuid[]) AS r (u, k)
		WHERE c.user_id = r.u AND c.phone_hash = r.k`
	sqlDropBlocks = `
		DELETE FROM blocks b USING unnest($1::uuid[], $2::uuid[]) AS r (u, k)
		WHERE b.user_id = r.u AND b.blocked_id = r.k`
	sqlDropInvitations = `
		DELETE FROM invitations i USING unnest($1::uuid[], $2::uuid[]) AS r (t, u)
		WHERE i.thread_id = r.t AND i.user_id = r.u`
	sqlDropUserInvitations = `
		DELETE FROM user_invitations i USING unnest($1::uuid[], $2::uuid[]) AS r (u, k)
		WHERE i.user_id = r.u AND i.thread_id = r.k`
	syncCommitOff = `SET LOCAL synchronous_commit = off`
	pathUnnest    = "unnest"
	pathCopy      = "copy"
)

type advance struct {
	topic        topic.Topic
	expect, next topic.Position
	timeMS       int64
	mark         topic.Mark // of the record before next
}

// queue puts the move into a transaction.
func (a advance) queue(q *pgx.Batch, slot topic.Slot) {
	log := pgtype.UUID{Bytes: a.mark.Log, Valid: a.mark.Log != [16]byte{}}
	digest := pgtype.Int8{Int64: int64(a.mark.Digest), Valid: a.mark.Digest != 0}
	q.Queue(
		sqlAdvance, a.topic.Number(), int32(slot), int64(a.expect), int64(a.next), projector.Time(a.timeMS),
		log, digest,
	)
}

// Write stores a folded batch and its positions in one transaction. The positions come first: their rows are locked
// before any other, and a writer that is not the slot's owner any more stops there.
func (s *store) Write(ctx context.Context, f *projector.Folded[*writes]) error {
	b, w := f.Batch, f.Rows
	var moves []advance
	for _, t := range topic.Folded {
		if next, ok := b.To[t]; ok && next != b.From[t] {
			moves = append(moves, advance{t, b.From[t], next, f.LogTimes[t], b.Marks[t]})
		}
	}
	if len(moves) == 0 {
		return nil
	}
	return s.commit(ctx, w, quarantineRows(tableQuarantine, f.Quarantined), func(q *pgx.Batch) {
		for _, m := range moves {
			m.queue(q, b.Slot)
		}
	})
}

// Drain implements projector.Drainer, in one transaction. The position stays where it is, but its row is locked like
// that of any batch, and what the drain goes by must still be in quarantine: so of two that drain the same, or of one
// that is not the slot's owner any more, nothing is written.
func (s *store) Drain(ctx context.Context, d *projector.Drained[*writes]) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.timeout)
	defer cancel()
	seen, released := make([]int64, len(d.Seen)), make([]int64, len(d.Released))
	for i, at := range d.Seen {
		seen[i] = int64(at)
	}
	for i := range d.Released {
		released[i] = int64(d.Released[i].Position)
	}
	return s.commit(ctx, d.Rows, quarantineRows(tableKept, d.Kept), func(q *pgx.Batch) {
		advance{topic: d.Topic, expect: d.Next, next: d.Next}.queue(q, d.Slot) // the later of the log times stays
		q.Queue(sqlRelease, d.Topic.Number(), int32(d.Slot), seen, released)
	})
}

// Quarantined implements projector.Drainer.
func (s *store) Quarantined(
	ctx context.Context, t topic.Topic, slot topic.Slot, from, to topic.Position, limit int,
) ([]projector.Quarantined, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.timeout)
	defer cancel()
	found, err := s.views.QuarantineBetween(ctx, t, slot, from, to, limit)
	out := make([]projector.Quarantined, len(found))
	for i, q := range found {
		out[i] = projector.Quarantined{
			Topic: q.Topic, Slot: q.Slot, Position: q.Position, Subject: q.Subject, Reason: q.Reason,
			TimeMS: q.Time.UnixMilli(),
		}
	}
	return out, err
}

// commit writes rows in one transaction, which begins with the generation and with what begin puts into it. So it is of
// one generation as a whole, although the names of tables are looked up statement by statement.
func (s *store) commit(ctx context.Context, w *writes, quarantine rows, begin func(q *pgx.Batch)) error {
	upserts, drops := w.rows()
	upserts = append(upserts, quarantine)
	total := 0
	for _, r := range upserts {
		total += r.len()
	}
	drop := func(q *pgx.Batch) {
		for _, d := range drops {
			if d.keys[0].len() > 0 {
				q.Queue(d.sql, d.keys[0].array(), d.keys[1].array())
			}
		}
	}
	if total < s.cfg.CopyRows {
		// One pipeline up to one Sync is one transaction.
		var q pgx.Batch
		q.Queue(sqlHold, s.held(w.slot))
		begin(&q)
		drop(&q)
		for _, r := range upserts {
			if r.len() > 0 {
				q.Queue(r.table.unnest, r.arrays()...)
			}
		}
		if err := s.pool.SendBatch(ctx, &q).Close(); err != nil {
			return err
		}
		s.metrics.rows.WithLabelValues(pathUnnest).Add(float64(total))
		return nil
	}
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var q pgx.Batch
		q.Queue(syncCommitOff)
		q.Queue(sqlHold, s.held(w.slot))
		begin(&q)
		drop(&q)
		for _, r := range upserts {
			if r.len() > 0 && !s.direct(r.table) {
				q.Queue(r.table.stage)
			}
		}
		if err := tx.SendBatch(ctx, &q).Close(); err != nil {
			return err
		}
		var move pgx.Batch
		for _, r := range upserts {
			if r.len() == 0 {
				continue
			}
			to := r.table.stageTab
			if s.direct(r.table) {
				to = pgx.Identifier{r.table.name}
			} else {
				move.Queue(r.table.unstage)
			}
			if _, err := tx.CopyFrom(ctx, to, r.table.columns, r.source()); err != nil {
				return err
			}
		}
		if move.Len() == 0 {
			return nil
		}
		return tx.SendBatch(ctx, &move).Close()
	})
	if err == nil {
		s.metrics.rows.WithLabelValues(pathCopy).Add(float64(total))
	}
	return err
}

// direct tells whether rows of a table go into it without a stage: they are new, since the positions are, while nothing
// is drained.
func (s *store) direct(t *table) bool { return t == tableMessages && s.cfg.Beside && s.cfg.Log == nil }

func byBytes[T ~[id.Size]byte](a, b T) int { return bytes.Compare(a[:], b[:]) }

func sorted[K comparable, V any](m map[K]V, compare func(a, b K) int) []K {
	keys := slices.AppendSeq(make([]K, 0, len(m)), maps.Keys(m))
	slices.SortFunc(keys, compare)
	return keys
}

// drop takes rows away that have a key of two ids.
type drop struct {
	sql  string
	keys [2]uuids
}

func (d *drop) add(a, b [id.Size]byte) {
	d.keys[0].add(uuid(a))
	d.keys[1].add(uuid(b))
}

// rows reads the changed rows from the states, sorted by primary key, and the keys of rows to delete.
func (w *writes) rows() (upserts []rows, drops []drop) {
	upserts = append(upserts, w.threadRows(), w.memberRows(), w.messageRows(),
		w.rejectedRows(), w.markRows(), w.deviceMarkRows(), w.userRows(), w.deviceRows(), w.listRows())
	for _, of := range []func() (rows, drop){w.contactRows, w.blockRows, w.invitationRows, w.userInvitationRows} {
		there, gone := of()
		upserts, drops = append(upserts, there), append(drops, gone)
	}
	return upserts, drops
}

func (w *writes) threadRows() rows {
	var t, sender uuids
	var kind vec[int16]
	var title, preview vec[string]
	var pos, ordinal vec[int64]
	var last vec[time.Time]
	for _, k := range sorted(w.threads, byBytes) {
		s := w.states.Threads[k]
		t.add(uuid(k))
		kind.add(int16(s.Kind))
		title.add(s.Title)
		pos.add(int64(s.LastPosition))
		ordinal.add(s.LastOrdinal)
		last.add(projector.Time(s.LastTimeMS))
		sender.add(uuid(s.LastSender))
		preview.add(s.Preview)
	}
	return rows{tableThreads, []column{&t, &kind, &title, &pos, &ordinal, &last, &sender, &preview}}
}

func compareMember(a, b memberKey) int {
	return cmp.Or(byBytes(a.thread, b.thread), byBytes(a.user, b.user))
}

func (w *writes) memberRows() rows {
	var t, u uuids
	var role vec[int16]
	var active vec[bool]
	var spans lists
	var base, end vec[int64]
	for _, k := range sorted(w.members, compareMember) {
		m := w.states.Threads[k.thread].Members[k.user]
		t.add(uuid(k.thread))
		u.add(uuid(k.user))
		role.add(int16(m.Role))
		active.add(m.Active())
		spans.add(flatten(m.Spans))
		base.add(m.BaseOrdinal)
		end.add(m.EndOrdinal)
	}
	return rows{tableMembers, []column{&t, &u, &role, &active, &spans, &base, &end}}
}

func (w *writes) invitationRows() (rows, drop) {
	gone := drop{sql: sqlDropInvitations}
	var t, u, by vec[pgtype.UUID]
	var pos vec[int64]
	var at vec[time.Time]
	for _, k := range sorted(w.invited, compareMember) {
		in, ok := w.states.Threads[k.thread].Invited[k.user]
		if !ok {
			gone.add(k.thread, k.user)
			continue
		}
		t.add(uuid(k.thread))
		u.add(uuid(k.user))
		by.add(uuid(in.By))
		pos.add(int64(in.At))
		at.add(projector.Time(in.TimeMS))
	}
	return rows{tableInvitations, []column{&t, &u, &by, &pos, &at}}, gone
}

func flatten(spans []thread.Span) []int64 {
	out := make([]int64, 0, 2*len(spans))
	for _, s := range spans {
		out = append(out, int64(s.From), int64(s.To))
	}
	return out
}

func (w *writes) messageRows() rows {
	slices.SortFunc(w.messages, func(a, b messageRow) int {
		return cmp.Or(byBytes(a.thread, b.thread), cmp.Compare(a.position, b.position))
	})
	var t, sender, message uuids
	var pos, ordinal vec[int64]
	var kind vec[int16]
	var at vec[time.Time]
	var slot vec[int32]
	var event vec[[]byte]
	for i := range w.messages {
		m := &w.messages[i]
		t.add(uuid(m.thread))
		pos.add(int64(m.position))
		ordinal.add(m.ordinal)
		kind.add(m.kind)
		sender.add(uuid(m.sender))
		message.add(pgtype.UUID{Bytes: m.message, Valid: m.named})
		at.add(projector.Time(m.timeMS))
		slot.add(int32(w.slot))
		event.add(m.event)
	}
	return rows{tableMessages, []column{&t, &pos, &ordinal, &kind, &sender, &message, &at, &slot, &event}}
}

func (w *writes) rejectedRows() rows {
	var u, d, t, message uuids
	var pos vec[int64]
	var reason vec[string]
	var at vec[time.Time]
	var slot vec[int32]
	slices.SortFunc(w.rejected, func(a, b rejectedRow) int {
		return cmp.Or(byBytes(a.device.user, b.device.user), byBytes(a.device.device, b.device.device),
			byBytes(a.thread, b.thread), cmp.Compare(a.at, b.at))
	})
	for i := range w.rejected {
		r := &w.rejected[i]
		u.add(uuid(r.device.user))
		d.add(uuid(r.device.device))
		t.add(uuid(r.thread))
		pos.add(int64(r.at))
		message.add(uuid(r.message))
		reason.add(string(r.reason))
		at.add(projector.Time(r.timeMS))
		slot.add(int32(w.slot))
	}
	return rows{tableRejected, []column{&u, &d, &t, &pos, &message, &reason, &at, &slot}}
}

// markColumns are the four numbers of a watermark.
type markColumns struct{ dp, do, rp, ro vec[int64] }

func (c *markColumns) add(m thread.Watermark) {
	c.dp.add(int64(m.DeliveredPosition))
	c.do.add(m.DeliveredOrdinal)
	c.rp.add(int64(m.ReadPosition))
	c.ro.add(m.ReadOrdinal)
}

func (c *markColumns) columns() []column { return []column{&c.dp, &c.do, &c.rp, &c.ro} }

func (w *writes) markRows() rows {
	var t, u uuids
	var marks markColumns
	for _, k := range sorted(w.marks, compareMember) {
		t.add(uuid(k.thread))
		u.add(uuid(k.user))
		marks.add(w.marks[k])
	}
	return rows{tableMarks, append([]column{&t, &u}, marks.columns()...)}
}

func (w *writes) deviceMarkRows() rows {
	var t, d, u uuids
	var marks markColumns
	compare := func(a, b markKey) int {
		return cmp.Or(byBytes(a.thread, b.thread), byBytes(a.device, b.device), byBytes(a.user, b.user))
	}
	for _, k := range sorted(w.deviceMarks, compare) {
		t.add(uuid(k.thread))
		d.add(uuid(k.device))
		u.add(uuid(k.user))
		marks.add(w.deviceMarks[k])
	}
	return rows{tableDeviceMarks, append([]column{&t, &d, &u}, marks.columns()...)}
}

func (w *writes) userRows() rows {
	var u, hash uuids
	var generation vec[int32]
	var name vec[string]
	var registered vec[time.Time]
	var mayAdd vec[int16]
	for _, k := range sorted(w.users, byBytes) {
		s := w.states.Users[k]
		u.add(uuid(k))
		hash.add(uuid(s.PhoneHash))
		generation.add(int32(s.Generation))
		name.add(s.Name)
		registered.add(projector.Time(s.RegisteredMS))
		mayAdd.add(int16(s.MayAdd))
	}
	return rows{tableUsers, []column{&u, &hash, &generation, &name, &registered, &mayAdd}}
}

func (w *writes) deviceRows() rows {
	var u, d uuids
	var key vec[[]byte]
	var name vec[string]
	var primary, revoked vec[bool]
	var pos vec[int64]
	var since vec[time.Time]
	var shown optionalLists
	compare := func(a, b deviceKey) int { return cmp.Or(byBytes(a.user, b.user), byBytes(a.device, b.device)) }
	for _, k := range sorted(w.devices, compare) {
		dev := w.states.Users[k.user].Devices[k.device]
		u.add(uuid(k.user))
		d.add(uuid(k.device))
		key.add(dev.Key[:])
		name.add(dev.Name)
		primary.add(dev.Primary)
		revoked.add(dev.Revoked)
		pos.add(int64(dev.Since))
		since.add(projector.Time(dev.SinceMS))
		shown.add(shownFrom(dev))
	}
	return rows{tableDevices, []column{&u, &d, &key, &name, &primary, &revoked, &pos, &since, &shown}}
}

// shownFrom is the column of that name.
func shownFrom(d *user.Device) []int64 {
	if d.ShownFrom == nil {
		return nil
	}
	out := make([]int64, 0, 2*len(d.ShownFrom))
	for _, s := range slices.Sorted(maps.Keys(d.ShownFrom)) {
		out = append(out, int64(s), int64(d.ShownFrom[s]))
	}
	return out
}

func (w *writes) contactRows() (rows, drop) {
	gone := drop{sql: sqlDropContacts}
	var u, h uuids
	var name vec[string]
	compare := func(a, b contactKey) int { return cmp.Or(byBytes(a.user, b.user), byBytes(a.hash, b.hash)) }
	for _, k := range sorted(w.contacts, compare) {
		n, ok := w.states.Users[k.user].Contacts[k.hash]
		if !ok {
			gone.add(k.user, k.hash)
			continue
		}
		u.add(uuid(k.user))
		h.add(uuid(k.hash))
		name.add(n)
	}
	return rows{tableContacts, []column{&u, &h, &name}}, gone
}

func (w *writes) blockRows() (rows, drop) {
	gone := drop{sql: sqlDropBlocks}
	var u, o uuids
	compare := func(a, b blockKey) int { return cmp.Or(byBytes(a.user, b.user), byBytes(a.blocked, b.blocked)) }
	for _, k := range sorted(w.blocks, compare) {
		if !w.states.Users[k.user].Blocked[k.blocked] {
			gone.add(k.user, k.blocked)
			continue
		}
		u.add(uuid(k.user))
		o.add(uuid(k.blocked))
	}
	return rows{tableBlocks, []column{&u, &o}}, gone
}

func (w *writes) userInvitationRows() (rows, drop) {
	gone := drop{sql: sqlDropUserInvitations}
	var u, t, by uuids
	var title vec[string]
	var pos vec[int64]
	var at vec[time.Time]
	for _, k := range sorted(w.invitations, compareList) {
		i, ok := w.states.Users[k.user].Invitations[k.thread]
		if !ok {
			gone.add(k.user, k.thread)
			continue
		}
		u.add(uuid(k.user))
		t.add(uuid(k.thread))
		by.add(uuid(i.By))
		title.add(i.Title)
		pos.add(int64(i.At))
		at.add(projector.Time(i.TimeMS))
	}
	return rows{tableUserInvitations, []column{&u, &t, &by, &title, &pos, &at}}, gone
}

func compareList(a, b listKey) int {
	return cmp.Or(byBytes(a.user, b.user), byBytes(a.thread, b.thread))
}

func (w *writes) listRows() rows {
	var u, t uuids
	var joined vec[int64]
	var left vec[bool]
	for _, k := range sorted(w.lists, compareList) {
		j := w.states.Users[k.user].Threads[k.thread]
		u.add(uuid(k.user))
		t.add(uuid(k.thread))
		joined.add(int64(j.At))
		left.add(j.Left)
	}
	return rows{tableLists, []column{&u, &t, &joined, &left}}
}

func quarantineRows(into *table, quarantined []projector.Quarantined) rows {
	var number vec[int16]
	var slot vec[int32]
	var pos vec[int64]
	var subject uuids
	var reason vec[string]
	var at vec[time.Time]
	slices.SortFunc(quarantined, func(a, b projector.Quarantined) int {
		return cmp.Or(cmp.Compare(a.Topic.Number(), b.Topic.Number()), cmp.Compare(a.Position, b.Position))
	})
	for _, q := range quarantined {
		number.add(int16(q.Topic.Number()))
		slot.add(int32(q.Slot))
		pos.add(int64(q.Position))
		subject.add(uuid(q.Subject))
		reason.add(q.Reason)
		at.add(projector.Time(q.TimeMS))
	}
	return rows{into, []column{&number, &slot, &pos, &subject, &reason, &at}}
}

func uuid[T ~[id.Size]byte](v T) pgtype.UUID { return pgtype.UUID{Bytes: v, Valid: true} }
