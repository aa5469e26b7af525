package operator_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/history"
	"heliograph/infra/views"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/tools/operator"
)

// TestQuarantine: what stands still in the views, what of it may be dropped, and what came of a decision.
func TestQuarantine(t *testing.T) {
	w, both := newLog(t), newStores(t)
	v := operator.NewViews(views.New(both.pool), history.New(both.conn))
	sick, user := topic.Subject(id.NewGroup()), topic.Subject{9}
	slot := slotOf(id.ThreadID(sick))
	since := time.UnixMilli(1_790_000_000_000).UTC()
	inThreads := func(tp topic.Topic, s topic.Slot, at int, subject topic.Subject, reason string) {
		t.Helper()
		if _, err := both.pool.Exec(
			t.Context(), `INSERT INTO quarantine VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (topic, slot, position) DO UPDATE SET reason = excluded.reason`,
			int16(tp.Number()), int32(s), int64(at), [16]byte(subject), reason, since,
		); err != nil {
			t.Fatal(err)
		}
	}
	inHistory := func(at int, reason string, released bool) {
		t.Helper()
		if err := both.conn.Exec(t.Context(), fmt.Sprintf(
			`INSERT INTO quarantine (topic, slot, position, subject, reason, log_time, released)
			VALUES (1, %d, %d, '%s', '%s', fromUnixTimestamp64Milli(%d), %v)`,
			slot, at, id.ThreadID(sick), reason, since.UnixMilli(), released,
		)); err != nil {
			t.Fatal(err)
		}
	}
	for at, reason := range map[int]string{4: "it does not decode", 6: "parked"} {
		inThreads(topic.Threads, slot, at, sick, reason)
		inHistory(at, reason, false)
	}
	inHistory(7, "parked", false)
	inThreads(topic.Users, 2, 1, user, "it does not decode")

	q := v.Quarantine(t.Context(), nil)
	type row struct {
		Subject  string
		Topic    topic.Topic
		Slot     topic.Slot
		Position topic.Position
		Views    string
		Behind   int64
	}
	var got []row
	for i := range q.Stopped {
		s := &q.Stopped[i]
		got = append(got, row{s.Subject, s.Topic, s.Slot, s.Position, s.Views(), s.MostBehind()})
		if !s.Since.Equal(since) || s.Reason != "it does not decode" {
			t.Errorf("%+v", s)
		}
	}
	want := []row{
		{id.ThreadID(sick).String(), topic.Threads, slot, 4, "history, threads", 2},
		{id.ThreadID(user).String(), topic.Users, 2, 1, "threads", 0},
	}
	if diff := cmp.Diff(want, got); diff != "" || len(q.Errors) > 0 {
		t.Fatalf("stopped (-want +got):\n%s\n%v", diff, q.Errors)
	}
	first := v.Quarantine(t.Context(), &sick).Stopped[0]

	refused := func(s operator.Stopped, why string) {
		t.Helper()
		if err := v.Droppable(t.Context(), s); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("dropping %d of %s: got %v, want %q", s.Position, s.Topic, err, why)
		}
	}
	for _, s := range q.Stopped {
		if err := v.Droppable(t.Context(), s); err != nil {
			t.Errorf("dropping %d of %s: %v", s.Position, s.Topic, err)
		}
	}
	behind := first
	behind.Position = 6
	refused(behind, "only parked")
	inHistory(4, "", true) // a version that can apply it has come to the history
	inHistory(6, "", true)
	inHistory(7, "", true)
	if err := both.conn.Exec(t.Context(), fmt.Sprintf(
		`INSERT INTO positions (topic, slot, from_position, next, state) VALUES (1, %d, 0, 8, 'done')`, slot,
	)); err != nil {
		t.Fatal(err)
	}
	refused(first, "does not stop")

	// The threads stand still after a retry and say so; the history has drained it.
	value, err := proto.Marshal(eventv1.Event_builder{Quarantined: eventv1.Quarantined_builder{
		View: operator.ViewThreads, Topic: string(topic.Threads), Slot: int32(slot), Position: 4,
	}.Build()}.Build())
	if err != nil {
		t.Fatal(err)
	}
	w.say(topic.Quarantine, slot, sick[:], value)
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	states := func(all []operator.Released) (out []string) {
		for _, r := range all {
			out = append(out, fmt.Sprint(r.View, " ", r.State, " ", r.Position))
		}
		return out
	}
	same := func(what string, got []operator.Released, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, states(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	same("a retry", v.Watch(ctx, w.cfg, first, false, 0), "threads refused again 4", "history drained 0")
	ended, end := context.WithCancel(t.Context())
	end()
	same("a drop that is not done", v.Watch(ended, w.cfg, first, true, 0), "threads not yet 4", "history drained 0")
	if _, err := both.pool.Exec(t.Context(), `DELETE FROM quarantine WHERE position = 4`); err != nil {
		t.Fatal(err)
	}
	same("before the drain", v.Watch(ended, w.cfg, first, true, 0), "threads not yet 6", "history drained 0")
	inThreads(topic.Threads, slot, 6, sick, "it does not decode either")
	same("a drop", v.Watch(ctx, w.cfg, first, true, 0), "threads stopped again 6", "history drained 0")

	w.say(topic.Threads, slot, sick[:], []byte{0xff})
	first.Position = 0
	if f := first.Find(ctx, w.cfg, false); f.Error != "" || f.Raw != "ff" || f.Kind != "undecodable" {
		t.Errorf("found %+v", f)
	}
	first.Position = 99
	if f := first.Find(ctx, w.cfg, false); f.Error == "" {
		t.Errorf("found %+v where the log ends before", f)
	}
}
