package verify

import (
	"context"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"heliograph/infra/history"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// The times that the history can hold; a client's clock may say anything.
const (
	earliestMS = -2208988800000
	latestMS   = 10413791999999
)

// kindMessage is the kind of an accepted event that is a message.
var kindMessage = int16(eventv1.Event_MessageSent_case)

// changeOf names what a change does to a message.
var changeOf = map[int16]string{
	int16(eventv1.Event_MessageEdited_case):  "edited",
	int16(eventv1.Event_MessageDeleted_case): "deleted",
	int16(eventv1.Event_ReactionSet_case):    "reaction",
}

// historyRows returns what the history should hold.
func (r *Reference) historyRows() tables {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	out := tables{}
	for n, s := range r.memory.slots {
		for t, next := range s.next {
			if next > 0 && t != topic.Users {
				out.put("positions", keyOf(t, n), int64(next))
			}
		}
		for _, q := range s.quarantined {
			if q.Topic != topic.Users {
				out.put("quarantine", keyOf(q.Topic, q.Slot, q.Position),
					id.ThreadID(q.Subject).String(), q.Reason, q.TimeMS)
			}
		}
		for _, a := range s.accepted {
			key := keyOf(a.thread, int64(a.at))
			if a.kind == kindMessage {
				out.put("messages", key,
					a.ordinal, int(n), a.sender.String(), a.device.String(), zeroID(a.message),
					a.replyTo.String(), a.replyAuthor.String(), a.timeMS, a.countedMS,
					min(max(a.client, earliestMS), latestMS), a.keyID, a.body, a.event)
			} else {
				out.put("thread_events", key, a.ordinal, int(n), a.name, a.sender.String(), a.timeMS, a.title, a.event)
			}
			if c, ok := changeOf[a.kind]; ok {
				out.put("message_changes", keyOf(key, zeroID(a.author), zeroID(a.message)),
					int(n), c, a.sender.String(), a.timeMS, a.keyID, a.body, a.emoji)
			}
			for _, m := range a.members {
				out.put("memberships", keyOf(key, m.user),
					int(n), int16(m.kind), m.active, int16(m.role), m.ordinal, a.timeMS)
			}
			for _, i := range a.invited {
				out.put("invitations", keyOf(key, i.user), int(n), i.open, a.name, a.sender.String(), a.timeMS)
			}
		}
		for _, c := range s.receipts {
			out.put("receipts", keyOf(c.thread, c.user, c.device, int64(c.at)), int(n), c.mark, c.timeMS)
		}
	}
	return out
}

// historyColumns are the columns of the history that are compared.
var historyColumns = columns{
	"positions":  {"next"},
	"quarantine": {"subject", "reason", "log_time"},
	"messages": {
		"ordinal", "slot", "sender_id", "sender_device", "message_id", "reply_to", "reply_author", "log_time",
		"counted_time", "client_time", "key_id", "body", "event",
	},
	"thread_events":   {"ordinal", "slot", "kind", "actor_id", "log_time", "title", "event"},
	"message_changes": {"slot", "change", "actor_id", "log_time", "key_id", "body", "emoji"},
	"memberships":     {"slot", "kind", "active", "role", "ordinal", "log_time"},
	"invitations":     {"slot", "open", "kind", "actor_id", "log_time"},
	"receipts":        {"slot", "mark", "log_time"},
}

// CompareHistory compares the history with the reference, which should have been filled from the same topics, and
// returns the differences. The connection's default database is that of the history. With final, rows that
// ReplacingMergeTree has yet to make one count once; without, a row that is there twice is a difference.
func CompareHistory(ctx context.Context, conn driver.Conn, ref *Reference, final bool) ([]Difference, error) {
	got, err := readHistory(ctx, conn, selection{}, final)
	if err != nil {
		return nil, err
	}
	return got.diff(ref, ref.next), nil
}

// historyRead is what was read of the history.
type historyRead struct {
	rows  tables
	at    ends
	twice []Difference
	later []laterRow
}

// laterRow is one at or after the position that its topic had in its slot when the reading began.
type laterRow struct {
	topic topic.Topic
	slot  topic.Slot
	at    topic.Position
	Difference
}

// diff compares what was read with the reference. end tells up to where the log goes: a later row beyond it is of no
// event at all, and one before it is of an event that was just being taken in.
func (r *historyRead) diff(ref *Reference, end func(topic.Topic, topic.Slot) topic.Position) []Difference {
	out := append(historyColumns.diff(ref.historyRows(), r.rows, "receipts"), r.twice...)
	for _, l := range r.later {
		if l.at >= end(l.topic, l.slot) {
			out = append(out, l.Difference)
		}
	}
	return out
}

// readHistory reads the history as of the positions that it had when the reading began: rows of later events, which
// come while it reads, are set apart.
func readHistory(ctx context.Context, conn driver.Conn, sel selection, final bool) (*historyRead, error) {
	out := &historyRead{rows: tables{}, at: ends{}}
	put := func(t topic.Topic, s topic.Slot, p topic.Position, table, key string, fields ...any) error {
		switch {
		case !sel.has(s):
			return nil
		case p >= out.at[s][t] && table != "positions":
			row := tables{}
			row.put(table, key, fields...)
			out.later = append(out.later, laterRow{t, s, p, historyColumns.differ(table, key, "", row[table][key])})
			return nil
		}
		if _, ok := out.rows[table][key]; ok {
			out.twice = append(out.twice, Difference{Table: table, Key: key, Got: "the row is there twice"})
		}
		out.rows.put(table, key, fields...)
		return nil
	}
	err := history.New(conn).Tables(ctx, history.Tables{
		Raw: !final,
		Freshness: func(r *history.Freshness) error { // read first
			if !sel.has(r.Slot) {
				return nil
			}
			out.at.put(r.Topic, r.Slot, r.Next)
			return put(r.Topic, r.Slot, 0, "positions", keyOf(r.Topic, r.Slot), int64(r.Next))
		},
		Quarantined: func(r *history.Quarantined) error {
			return put(r.Topic, r.Slot, r.Position, "quarantine", keyOf(r.Topic, r.Slot, r.Position),
				id.ThreadID(r.Subject).String(), r.Reason, r.Time.UnixMilli())
		},
		Messages: func(r *history.Message) error {
			return put(topic.Threads, r.Slot, r.Position, "messages", keyOf(r.Thread, int64(r.Position)),
				r.Ordinal, int(r.Slot), r.Sender.String(), r.Device.String(), r.Message.String(),
				r.ReplyTo.String(), r.ReplyAuthor.String(), r.Time.UnixMilli(), r.Counted.UnixMilli(),
				r.ClientTime.UnixMilli(), r.KeyID, digest(r.Body), digest(r.Event))
		},
		Others: func(r *history.Other) error {
			return put(topic.Threads, r.Slot, r.Position, "thread_events", keyOf(r.Thread, int64(r.Position)),
				r.Ordinal, int(r.Slot), r.Kind, r.Actor.String(), r.Time.UnixMilli(), r.Title, digest(r.Event))
		},
		MessageChanges: func(r *history.MessageChange) error {
			key := keyOf(keyOf(r.Thread, int64(r.Position)), r.Author, r.Message)
			return put(topic.Threads, r.Slot, r.Position, "message_changes", key, int(r.Slot),
				r.Change, r.Actor.String(), r.Time.UnixMilli(), r.KeyID, digest(r.Body), r.Emoji)
		},
		Memberships: func(r *history.Membership) error {
			key := keyOf(keyOf(r.Thread, int64(r.Position)), r.User)
			return put(topic.Threads, r.Slot, r.Position, "memberships", key, int(r.Slot),
				r.Kind, r.Active, r.Role, r.Ordinal, r.Time.UnixMilli())
		},
		Invitations: func(r *history.Invitation) error {
			key := keyOf(keyOf(r.Thread, int64(r.Position)), r.User)
			return put(topic.Threads, r.Slot, r.Position, "invitations", key, int(r.Slot),
				r.Open, r.Kind, r.Actor.String(), r.Time.UnixMilli())
		},
		Receipts: func(r *history.Receipt) error {
			key := keyOf(r.Thread, r.User, r.Device, int64(r.Position))
			return put(topic.Receipts, r.Slot, r.Position, "receipts", key, int(r.Slot), r.Mark, r.Time.UnixMilli())
		},
	})
	if err != nil {
		return nil, fmt.Errorf("verify: read the history: %w", err)
	}
	return out, nil
}
