package demo

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"heliograph/infra/history"
	"heliograph/infra/views"
	"heliograph/schemas/event"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// waitViews waits until both stores have every event before the ends.
func waitViews(ctx context.Context, v *views.Views, h *history.History, ends map[place]topic.Position) error {
	for {
		behind := ""
		for p, end := range ends {
			f, err := v.FreshnessOf(ctx, p.topic, p.slot)
			if err != nil {
				return fmt.Errorf("position of Postgres: %w", err)
			}
			if f.Next < end {
				behind = fmt.Sprintf("Postgres has %s of slot %d up to %d of %d", p.topic, p.slot, f.Next, end)
				break
			}
			if p.topic == topic.Users {
				continue // the history has no users
			}
			past, err := h.FreshnessOf(ctx, p.topic, p.slot)
			if err != nil {
				return fmt.Errorf("position of ClickHouse: %w", err)
			}
			if past.Next < end {
				behind = fmt.Sprintf("ClickHouse has %s of slot %d up to %d of %d", p.topic, p.slot, past.Next, end)
				break
			}
		}
		if behind == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", behind, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// fromPostgres reads every event of every thread, and how far members have got.
func fromPostgres(ctx context.Context, v *views.Views) (entries, map[mark]thread.Watermark, error) {
	out, marks := entries{}, map[mark]thread.Watermark{}
	err := v.Tables(ctx, views.Tables{
		Messages: func(r *views.Message) error {
			e, err := decodeEntry(r.Event, r.Position, r.Ordinal)
			e.Sender, e.Message = r.Sender, r.Message // the columns, not the event again
			out[r.Thread] = append(out[r.Thread], e)
			return err
		},
		Watermarks: func(r *views.Watermark) error { marks[mark{r.Thread, r.User}] = r.Mark; return nil },
	})
	out.sort()
	return out, marks, err
}

// fromClickHouse reads the same from the history.
func fromClickHouse(ctx context.Context, h *history.History) (entries, map[mark]thread.Watermark, error) {
	out, marks := entries{}, map[mark]thread.Watermark{}
	err := h.Tables(ctx, history.Tables{
		Messages: func(r *history.Message) error {
			out[r.Thread] = append(out[r.Thread], Entry{
				Position: r.Position, Ordinal: r.Ordinal, Kind: "message_sent", Sender: r.Sender, Message: r.Message,
				Reply: event.MessageRef{Author: r.ReplyAuthor, ID: r.ReplyTo}, Text: string(r.Body), Raw: r.Event,
			})
			return nil
		},
		Others: func(r *history.Other) error {
			out[r.Thread] = append(out[r.Thread], Entry{
				Position: r.Position, Ordinal: r.Ordinal, Kind: r.Kind, Sender: r.Actor, Text: r.Title, Raw: r.Event,
			})
			return nil
		},
		Receipts: func(r *history.Receipt) error {
			m, w := marks[mark{r.Thread, r.User}], r.Mark
			marks[mark{r.Thread, r.User}] = thread.Watermark{
				DeliveredPosition: max(m.DeliveredPosition, w.DeliveredPosition),
				DeliveredOrdinal:  max(m.DeliveredOrdinal, w.DeliveredOrdinal),
				ReadPosition:      max(m.ReadPosition, w.ReadPosition),
				ReadOrdinal:       max(m.ReadOrdinal, w.ReadOrdinal),
			}
			return nil
		},
	})
	out.sort()
	return out, marks, err
}

// sort brings the events of each thread into the order of their positions.
func (e entries) sort() {
	for _, es := range e {
		slices.SortStableFunc(es, func(a, b Entry) int { return cmp.Compare(a.Position, b.Position) })
	}
}
