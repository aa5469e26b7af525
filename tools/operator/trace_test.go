package operator_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"heliograph/infra/kafka"
	"heliograph/ingest"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/tools/operator"
)

// summary is what the test compares of a place.
type summary struct {
	Found                bool
	Offset               int64
	Copies               int
	Postgres, ClickHouse string
	Refused              string
	Devices              int
}

func summarize(p *operator.Place) summary {
	s := summary{
		Found:      p.Log != nil,
		Copies:     len(p.Copies),
		Postgres:   p.Postgres.State,
		ClickHouse: p.ClickHouse.State,
		Refused:    p.Refused,
		Devices:    len(p.Devices),
	}
	if p.Log != nil {
		s.Offset = p.Log.Offset
	}
	return s
}

// TestTrace: the log is asked itself, whatever the views know of a message.
func TestTrace(t *testing.T) {
	w, both := newLog(t), newStores(t)
	pg := func(sql string, args ...any) {
		t.Helper()
		if _, err := both.pool.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	ch := func(format string, args ...any) {
		t.Helper()
		if err := both.conn.Exec(t.Context(), fmt.Sprintf(format, args...)); err != nil {
			t.Fatal(err)
		}
	}

	ann, bob, eve := id.UserID{1}, id.UserID{2}, id.UserID{3}
	direct := id.DirectThread(ann, bob)
	slot := slotOf(direct)
	now := time.Now().UTC()
	ago := func(d time.Duration) id.MessageID { return madeAt(now.Add(-d)) }
	ids := map[string]id.MessageID{
		"accepted":   ago(50 * time.Minute),
		"trimmed":    ago(49 * time.Minute),
		"stranger's": ago(48 * time.Minute),
		"dropped":    ago(47 * time.Minute),
		"parked":     ago(47 * time.Minute),
		"not yet":    ago(2 * time.Second),
		"elsewhere":  ago(time.Second),
		"late":       ago(10 * time.Minute),
		"too late":   ago(5 * time.Hour),
	}
	offsets := map[string]int64{}
	put := func(name string, about id.ThreadID, at time.Time, from, peer id.UserID) {
		t.Helper()
		ev := message(ids[name], from, peer, name)
		ev.SetProducer("edge-1/1.0")
		ev.SetRequestId([]byte(name))
		offsets[name] = w.put(about, at, ev)
	}
	put("accepted", direct, ids["accepted"].Time(), ann, bob)
	put("trimmed", direct, ids["trimmed"].Time(), bob, ann)
	put("stranger's", direct, ids["stranger's"].Time(), eve, ann)
	put("dropped", direct, ids["dropped"].Time(), ann, bob)
	put("parked", direct, ids["parked"].Time(), ann, bob)
	put("too late", direct, now.Add(-time.Minute), ann, bob)
	put("late", direct, now.Add(-time.Minute), ann, bob) // it waited nine minutes in an outbox
	put("not yet", direct, now, bob, ann)
	put("not yet", direct, now, bob, ann)
	offsets["not yet"]--
	put("elsewhere", id.DirectThread(ann, eve), now, ann, eve)

	pg(
		`INSERT INTO messages (thread_id, slot, position, ordinal, kind, sender_id, message_id, log_time, event)
VALUES ($1, $2, $3, 1, 10, $4, $5, now(), '')`,
		[16]byte(direct), int32(slot), offsets["accepted"], [16]byte(ann), [16]byte(ids["accepted"]),
	)
	for _, name := range []string{"accepted", "trimmed"} {
		ch(
			`INSERT INTO messages (thread_id, position, ordinal, slot, message_id, log_time)
VALUES ('%s', %d, 1, %d, '%s', now64(3))`,
			direct, offsets[name], slot, ids[name],
		)
	}
	pg(`INSERT INTO positions (topic, slot, next) VALUES (1, $1, $2)`, int32(slot), offsets["parked"]+1)
	ch(
		`INSERT INTO positions (topic, slot, from_position, next, state) VALUES (1, %d, 0, %d, 'done')`, slot,
		offsets["parked"]+1,
	)
	pg(
		`INSERT INTO quarantine (topic, slot, position, subject, reason, log_time)
VALUES (1, $1, $2, $3, 'it does not decode', now())`,
		int32(slot), offsets["parked"], [16]byte(direct),
	)
	for i, u := range []id.UserID{ann, bob} {
		pg(
			`INSERT INTO members (thread_id, user_id, role, active, spans, base_ordinal, end_ordinal)
VALUES ($1, $2, 1, true, '{0,0}', 0, 0)`,
			[16]byte(direct), [16]byte(u),
		)
		pg(
			`INSERT INTO devices (user_id, device_id, public_key, name, is_primary, revoked, since_position, since)
VALUES ($1, $2, '', 'phone', true, false, 0, now())`,
			[16]byte(u), [16]byte{byte(i)},
		)
	}

	drop := ingest.Release{
		Topic: topic.Threads, Slot: slot, Position: topic.Position(offsets["dropped"]), Subject: topic.Subject(direct),
		Release: eventv1.Release_RELEASE_DROPPED, Note: "a test",
	}
	if _, err := drop.Append(t.Context(), w.cfg); err != nil {
		t.Fatal(err)
	}

	reachable := both.open(t, both.url, both.addr)
	none := both.open(t, "postgres://helio@127.0.0.1:1/helio", "127.0.0.1:1")
	other := id.DirectThread(ann, eve)
	latest, err := id.Parse[id.MessageID]("ffffffff-ffff-7fff-bfff-ffffffffffff")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		of     string
		change func(*operator.Question)
		views  *operator.Views
		want   summary
	}{
		"in both views": {of: "accepted", want: summary{Found: true, Postgres: "yes", ClickHouse: "yes", Devices: 2}},
		"trimmed in Postgres": {of: "trimmed", want: summary{
			Found: true, Offset: offsets["trimmed"], Postgres: "no", ClickHouse: "yes", Devices: 2,
		}},
		"in no view yet, and sent twice": {of: "not yet", want: summary{
			Found: true, Offset: offsets["not yet"], Copies: 1, Postgres: "not yet", ClickHouse: "not yet", Devices: 2,
		}},
		"logged late": {of: "late", want: summary{
			Found: true, Offset: offsets["late"], Postgres: "not yet", ClickHouse: "not yet", Devices: 2,
		}},
		"refused by the fold": {of: "stranger's", want: summary{
			Found: true, Offset: offsets["stranger's"], Postgres: "no", ClickHouse: "no", Refused: "not_member",
		}},
		"dropped out of quarantine": {of: "dropped", want: summary{
			Found: true, Offset: offsets["dropped"], Postgres: "no", ClickHouse: "no",
			Refused: "an operator has dropped it out of quarantine",
		}},
		"parked": {of: "parked", want: summary{
			Found: true, Offset: offsets["parked"], Postgres: "parked", ClickHouse: "no",
		}},
		"beyond the window": {of: "too late", want: summary{Postgres: "not yet", ClickHouse: "not yet"}},
		"in a wider window": {
			of: "too late", change: func(q *operator.Question) { q.Window = 6 * time.Hour },
			want: summary{
				Found: true, Offset: offsets["too late"], Postgres: "not yet", ClickHouse: "not yet", Devices: 2,
			},
		},
		"in the slot of its thread": {
			of: "elsewhere", change: func(q *operator.Question) { q.Thread = &other },
			want: summary{Found: true, Offset: offsets["elsewhere"], Postgres: "not yet", ClickHouse: "not yet"},
		},
		"from no time that is": {
			of: "accepted", change: func(q *operator.Question) { q.Message = latest },
			want: summary{Postgres: "not yet", ClickHouse: "not yet"},
		},
		"without views": {
			of: "accepted", views: none, want: summary{Found: true, Postgres: "unknown", ClickHouse: "unknown"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			q, v := operator.Question{Message: ids[c.of], Window: 15 * time.Minute}, cmp.Or(c.views, reachable)
			if c.change != nil {
				c.change(&q)
			}
			got, err := operator.Trace(ctx, w.cfg, v, q)
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(c.want, summarize(got)); diff != "" {
				t.Errorf("place (-want +got):\n%s\n%+v", diff, got)
			}
			if _, err := json.Marshal(got); err != nil {
				t.Error(err)
			}
			if got.Log != nil && (got.Log.Slot != slotOf(mustParse(t, got.Thread)) || got.Log.Time.IsZero()) {
				t.Errorf("it is at %+v", got.Log)
			}
			if l := got.Log; l != nil && (l.Producer != "edge-1/1.0" || l.Request != c.of) {
				t.Errorf("its record says %q, want who appended it and request %q", l.Words(), c.of)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	got, err := operator.Trace(
		ctx, kafka.Config{Brokers: []string{"127.0.0.1:1"}}, reachable, operator.Question{Message: ids["accepted"]},
	)
	if err != nil || got.LogError == "" || got.Postgres.State != operator.StateHas {
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
