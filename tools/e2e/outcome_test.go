package e2e

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// outcome is what became of a message, for its sender and everywhere else.
type outcome struct {
	acked, failed, rejected bool
	position                topic.Position   // of the ack
	inLog                   []topic.Position // every copy of it
	accepted                []topic.Position // those that the fold accepts
	copies                  map[string]int   // in each view, and on each device that is to have it or that must not
}

// complaint says what is wrong: a message that was acknowledged, and not rejected afterwards, is everywhere once, and
// one that was refused is nowhere.
func (o outcome) complaint() string {
	good := o.acked && !o.rejected
	want := 0
	if good {
		want = 1
	}
	switch {
	case !o.acked && !o.failed && !o.rejected:
		return fmt.Sprintf("nothing became of it; the log has it at %v", o.inLog)
	case o.acked && o.failed:
		return "it was acknowledged and refused"
	case len(o.accepted) != want:
		return fmt.Sprintf("acknowledged %v, rejected %v, refused %v; accepted in the log at %v",
			o.acked, o.rejected, o.failed, o.accepted)
	case o.acked && !slices.Contains(o.inLog, o.position):
		return fmt.Sprintf("it was acknowledged at %d; the log has it at %v", o.position, o.inLog)
	}
	for _, where := range slices.Sorted(maps.Keys(o.copies)) {
		if n := o.copies[where]; n != want {
			return fmt.Sprintf("acknowledged %v, rejected %v, refused %v; %d times in %s",
				o.acked, o.rejected, o.failed, n, where)
		}
	}
	return ""
}

func TestOutcome(t *testing.T) {
	at := []topic.Position{7}
	for _, tc := range []struct {
		name string
		o    outcome
		fine bool
	}{
		{"everywhere", outcome{
			acked: true, position: 7, inLog: at, accepted: at, copies: map[string]int{"a": 1, "b": 1},
		}, true},
		{"sent twice", outcome{
			acked: true, position: 9, inLog: []topic.Position{7, 9}, accepted: at, copies: map[string]int{"a": 1},
		}, true},
		{"refused", outcome{failed: true, copies: map[string]int{"a": 0}}, true},
		{"rejected", outcome{
			acked: true, rejected: true, position: 7, inLog: at, copies: map[string]int{"a": 0},
		}, true},
		{"rejected, the ack was lost", outcome{rejected: true, inLog: at}, true},
		{"silence", outcome{inLog: at, accepted: at}, false},
		{"acknowledged and lost", outcome{acked: true, position: 7}, false},
		{"acknowledged and rejected in silence", outcome{acked: true, position: 7, inLog: at}, false},
		{"accepted twice", outcome{
			acked: true, position: 7, inLog: []topic.Position{7, 8}, accepted: []topic.Position{7, 8},
		}, false},
		{"elsewhere", outcome{acked: true, position: 8, inLog: at, accepted: at}, false},
		{"both", outcome{acked: true, failed: true, position: 7, inLog: at, accepted: at}, false},
		{"refused and there", outcome{failed: true, inLog: at, accepted: at}, false},
		{"not on a device", outcome{
			acked: true, position: 7, inLog: at, accepted: at, copies: map[string]int{"a": 1, "b": 0},
		}, false},
		{"twice in a view", outcome{
			acked: true, position: 7, inLog: at, accepted: at, copies: map[string]int{"a": 2},
		}, false},
		{"refused and on a device", outcome{failed: true, copies: map[string]int{"a": 1}}, false},
	} {
		if said := tc.o.complaint(); (said == "") != tc.fine {
			t.Errorf("%s: %q", tc.name, said)
		}
	}
}

// accounted checks the outcome of everything that was sent, in the log, in both views and on devices.
func (e *env) accounted(t *testing.T, tr *truth, f *traffic, ds ...*device) {
	t.Helper()
	e.caughtUp(t)
	for _, l := range f.lines {
		if ms := l.ids(); len(ms) > 0 {
			e.accountFor(t, tr, l.from, ms, l.to.Thread, ds...)
		}
	}
}

// accountFor checks the outcome of messages that a device has sent to a thread. The views must have caught up.
func (e *env) accountFor(t *testing.T, tr *truth, from *device, ms []id.MessageID, th id.ThreadID, ds ...*device) {
	t.Helper()
	c := tr.threads[th]
	if c == nil {
		t.Errorf("%s: thread %s is not in the log", from.name, th)
		return
	}
	accepted := map[id.MessageID][]topic.Position{}
	for _, s := range c.accepted {
		if s.Kind == 10 {
			accepted[s.Message] = append(accepted[s.Message], s.At)
		}
	}
	have, sees := e.messagesOf(t, th), map[string]map[id.MessageID]bool{}
	for _, d := range ds {
		on := map[id.MessageID]int{}
		for _, s := range d.copyOf(th) {
			if s.Kind == 10 {
				on[s.Message]++
			}
		}
		have[d.name] = on
		sees[d.name] = map[id.MessageID]bool{}
		for _, s := range tr.expected(d, th) {
			sees[d.name][s.Message] = true
		}
	}
	wrong := 0
	for _, m := range ms {
		o := outcome{inLog: c.copies[m], accepted: accepted[m], copies: map[string]int{}}
		from.mu.Lock()
		ack, acked := from.sent[m]
		_, rejected := from.rejected[m]
		o.acked, o.rejected, o.failed, o.position = acked, rejected, from.failed[m] != nil, ack.Position
		from.mu.Unlock()
		for name, ids := range have {
			if may := sees[name]; may == nil || may[m] || len(o.accepted) == 0 {
				o.copies[name] = ids[m]
			}
		}
		if said := o.complaint(); said != "" {
			if wrong++; wrong <= 5 {
				t.Errorf("message %s of %s to thread %s: %s", m, from.name, th, said)
			}
		}
	}
	if wrong > 5 {
		t.Errorf("%s: so with %d messages of %d", from.name, wrong, len(ms))
	}
}

// messagesOf counts the messages of a thread in both views.
func (e *env) messagesOf(t *testing.T, th id.ThreadID) map[string]map[id.MessageID]int {
	t.Helper()
	postgres, clickhouse := map[id.MessageID]int{}, map[id.MessageID]int{}
	rows, err := e.pg.Query(
		e.context(t), `SELECT message_id FROM views.messages WHERE thread_id = $1 AND message_id IS NOT NULL`,
		[16]byte(th),
	)
	must(t, err)
	var m pgtype.UUID
	_, err = pgx.ForEachRow(rows, []any{&m}, func() error { postgres[m.Bytes]++; return nil })
	must(t, err)
	found, err := e.ch.Query(e.context(t), `SELECT message_id FROM messages FINAL WHERE thread_id = ?`, uuid.UUID(th))
	must(t, err)
	for found.Next() {
		var m uuid.UUID
		must(t, found.Scan(&m))
		clickhouse[id.MessageID(m)]++
	}
	must(t, found.Err())
	return map[string]map[id.MessageID]int{"Postgres": postgres, "ClickHouse": clickhouse}
}
