package demo

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"heliograph/schemas/id"
)

// history asks ClickHouse what went on.
func (p *play) history(ctx context.Context) error {
	views, err := p.stores(ctx)
	if err != nil {
		return err
	}
	defer views.close()
	err = p.step(ctx, "Both views have taken in the whole log", func(ctx context.Context, s *Step) error {
		ref, err := readLog(ctx, p.kafka())
		if err != nil {
			return err
		}
		return views.wait(ctx, ref.ends)
	})
	if err != nil {
		return err
	}
	for _, q := range []struct{ name, sql string }{
		{"Messages a minute", "SELECT formatDateTime(minute, '%H:%i') AS minute, messages, senders, threads " +
			"FROM messages_per_minute"},
		{"The busiest threads", "SELECT thread_id AS thread, messages, senders FROM busiest_threads LIMIT 5"},
		{"How long messages took to their readers, in ms", "SELECT count(delivered_ms) AS deliveries, " +
			"round(quantile(0.5)(delivered_ms)) AS p50, round(quantile(0.9)(delivered_ms)) AS p90, " +
			"max(delivered_ms) AS max, count(read_ms) AS reads FROM delivery_latency"},
		{"Who spoke of the ferry and ten?", "SELECT sender_id AS who, body FROM messages " +
			"WHERE hasAllTokens(body, ['ferry', 'ten']) ORDER BY log_time LIMIT 5"},
	} {
		err := p.step(ctx, q.name, func(ctx context.Context, s *Step) error {
			s.Query = q.sql
			var err error
			s.Table, err = p.ask(ctx, views.conn, q.sql)
			if err == nil && len(s.Table.Rows) == 0 {
				err = fmt.Errorf("no rows for %s", q.sql)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ask runs a query and shows its answer as text; people and threads are named.
func (p *play) ask(ctx context.Context, conn driver.Conn, sql string) (*Table, error) {
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("ask the history: %w", err)
	}
	defer func() { _ = rows.Close() }() // read only
	t := &Table{Header: rows.Columns()}
	types := rows.ColumnTypes()
	for rows.Next() {
		row := make([]any, len(types))
		for i, c := range types {
			row[i] = reflect.New(c.ScanType()).Interface()
		}
		if err := rows.Scan(row...); err != nil {
			return nil, fmt.Errorf("ask the history: %w", err)
		}
		out := make([]string, len(row))
		for i := range row {
			out[i] = p.word(reflect.ValueOf(row[i]).Elem())
		}
		t.Rows = append(t.Rows, out)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("ask the history: %w", err)
	}
	return t, nil
}

func (p *play) word(v reflect.Value) string {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return "-"
		}
		v = v.Elem()
	}
	if u, ok := v.Interface().(uuid.UUID); ok {
		if n, ok := p.people[id.UserID(u)]; ok {
			return n
		}
		if n, ok := p.titles[id.ThreadID(u)]; ok {
			return n
		}
		return u.String()[:8] + "…" // of an earlier demo in the same directory
	}
	return fmt.Sprint(v.Interface())
}

// verdict compares every place with the log.
func (p *play) verdict(ctx context.Context) error {
	views, err := p.stores(ctx)
	if err != nil {
		return err
	}
	defer views.close()
	var ref *reference
	err = p.step(ctx, "The log is read raw and folded anew", func(ctx context.Context, s *Step) error {
		if err := p.settle(ctx); err != nil {
			return err
		}
		// Receipts are gathered for a moment before they are written: read on until two readings are the same and the
		// views have it.
		for {
			var err error
			if ref, err = readLog(ctx, p.kafka()); err != nil {
				return err
			}
			if err := views.wait(ctx, ref.ends); err != nil {
				return err
			}
			again, err := readLog(ctx, p.kafka())
			if err != nil {
				return err
			}
			if again.records == ref.records {
				break
			}
		}
		events := 0
		for _, es := range ref.accepted {
			events += len(es)
		}
		s.note("%d records: %d messages among %d accepted events of %s,",
			ref.records, ref.messages(), events, counted(len(ref.accepted), "thread"))
		s.note("and %s that the fold refused as retries or too late", counted(ref.refused, "event"))
		return nil
	})
	if err != nil {
		return err
	}
	err = p.step(ctx, "Both views are compared with it, row by row", func(ctx context.Context, s *Step) (err error) {
		if p.result.Views, err = p.compareViews(ctx, views); err != nil {
			return err
		}
		s.Table = &Table{Header: []string{"place", "tables", "rows", "of the log", "verdict"}}
		for _, c := range p.result.Views {
			s.Table.Rows = append(s.Table.Rows, c.row())
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = p.step(ctx, "What was said, and every device, event by event", func(ctx context.Context, s *Step) error {
		said := p.sayings()
		p.result.Comparisons = append(p.result.Comparisons,
			compareAll("what was said", onlyMessages(ref.accepted, said), said, p.nameOf))
		for _, d := range p.devices {
			p.result.Comparisons = append(p.result.Comparisons,
				compareAll(d.name, ref.seenBy(d.me.User, d.me.Device), d.records(), p.nameOf))
		}
		s.Table = &Table{Header: []string{"place", "threads", "events", "messages", "verdict"}}
		for _, c := range p.result.Comparisons {
			s.Table.Rows = append(s.Table.Rows, []string{
				c.Place, fmt.Sprint(c.Threads), fmt.Sprint(c.Events), fmt.Sprint(c.Messages),
				verdictOf(len(c.Differences)),
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	fine := fmt.Sprintf("no difference: %d messages, once each and in order, in the log, in both views and on %s",
		ref.messages(), counted(len(p.devices), "device"))
	p.result.conclude(p.c.Unasked(), fine)
	return nil
}

// settle waits until every device has what it should have, as far as it comes, and closes them: nothing moves then.
func (p *play) settle(ctx context.Context) error {
	ref, err := readLog(ctx, p.kafka())
	if err != nil {
		return err
	}
	for _, d := range p.devices {
		if d.user == nil {
			continue
		}
		soon, cancel := context.WithTimeout(ctx, 5*time.Second)
		for t, es := range ref.seenBy(d.me.User, d.me.Device) {
			// What does not come is told by the comparison.
			_ = d.wait(soon, p.nameOf(t), func() bool { return len(d.got[t]) >= len(es) })
		}
		cancel()
		if err := d.off(); err != nil {
			return err
		}
	}
	return nil
}

// sayings are the messages that the script sent, at the places that their acknowledgements named.
func (p *play) sayings() entries {
	out := entries{}
	for _, s := range p.said {
		s.by.mu.Lock()
		ack, ok := s.by.acks[s.id]
		s.by.mu.Unlock()
		e := Entry{Position: -1, Kind: messageSent, Sender: s.by.me.User, Message: s.id, Reply: s.ans, Text: s.txt}
		if ok {
			e.Position = ack.Position
		}
		out[s.to] = append(out[s.to], e)
	}
	for _, es := range out {
		// they were said by several devices at once
		slices.SortFunc(es, func(a, b Entry) int { return cmp.Compare(a.Position, b.Position) })
	}
	return out
}

// onlyMessages are the messages of the threads that something was said in, without what only the log gives them.
func onlyMessages(all, said entries) entries {
	out := entries{}
	for t, es := range all {
		if _, ok := said[t]; !ok {
			continue // of an earlier demo in the same directory
		}
		for _, e := range es {
			if e.Kind == messageSent {
				e.Ordinal = 0
				out[t] = append(out[t], e)
			}
		}
	}
	return out
}

// conclude says what came of it: fine, if nothing differs and no process ended unasked.
func (r *Result) conclude(unasked []string, fine string) {
	n, places := 0, []string{}
	add := func(place string, wrong int) {
		if wrong > 0 {
			n, places = n+wrong, append(places, place)
		}
	}
	for _, c := range r.Views {
		add(c.Place, c.wrong())
	}
	for _, c := range r.Comparisons {
		add(c.Place, len(c.Differences))
	}
	r.OK = n == 0 && len(unasked) == 0
	switch {
	case n > 0:
		r.Verdict = fmt.Sprintf("%s: %s", counted(n, "difference"), strings.Join(places, ", "))
	case len(unasked) > 0:
		r.Verdict = "no difference, but " + strings.Join(unasked, "; ")
	default:
		r.Verdict = fine
	}
}
