package operator_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/history"
	"heliograph/infra/kafka"
	"heliograph/infra/lag"
	"heliograph/infra/views"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/tools/operator"
)

// TestLagOfDeadViews: with no projector alive, the stores and the log tell how far the views are behind, in which
// generation, and that nobody owns their slots; a store that is down takes nothing from what is told of the other.
func TestLagOfDeadViews(t *testing.T) {
	w, s := newLog(t), newStores(t)
	about := id.DirectThread(id.UserID{1}, id.UserID{2})
	slot, began := slotOf(about), time.Now().Add(-time.Hour)
	for n := range 5 {
		w.put(about, began.Add(time.Duration(n)*time.Minute), message(id.NewMessage(), id.UserID{1}, id.UserID{2}, "x"))
	}
	if _, err := s.pool.Exec(t.Context(), `INSERT INTO positions (topic, slot, next) VALUES ($1, $2, 3)`,
		int16(topic.Threads.Number()), int32(slot)); err != nil {
		t.Fatal(err)
	}
	for generation, next := range map[uint32]int64{1: 5, 7: 1} { // the second is being built
		if err := s.conn.Exec(t.Context(), `
			INSERT INTO positions (topic, slot, from_position, next, state, generation) VALUES (?, ?, 0, ?, 'done', ?)`,
			topic.Threads.Number(), int32(slot), next, generation); err != nil {
			t.Fatal(err)
		}
	}
	type told struct {
		View, Generation string
		Records          int64
		Minutes          int
		Unowned          int
		Failed           bool
	}
	ask := func(clickhouse string) (all []lag.View, out []told) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		l, err := operator.OpenLag(ctx, operator.Deployment{
			Kafka: w.cfg, Postgres: s.postgres(s.url), ClickHouse: s.clickhouse(clickhouse),
			Sources: func(cl *kgo.Client, b *kafka.Bases, v *views.Views, h *history.History) []lag.Source {
				return []lag.Source{
					lag.OfThreads(v, "views", "t", topic.Folded),
					lag.OfHistory(h, "h", []topic.Topic{topic.Threads, topic.Receipts}),
					lag.OfDelivery(cl, w.cfg, b, "d", topic.Folded),
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if all, err = l.Ask(ctx); err != nil {
			t.Fatal(err)
		}
		for _, v := range all {
			out = append(out, told{
				v.View, v.Generation, v.Records, int(v.Seconds / 60), v.Unowned, v.Error != "",
			})
		}
		return all, out
	}
	_, got := ask(s.addr)
	want := []told{
		{"threads", "views", 2, 57, writtenSlots, false}, {"history", "7", 4, 59, writtenSlots, false},
		{"delivery", "", 5, 60, writtenSlots, false},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lags (-want +got):\n%s", diff)
	}
	want[1] = told{View: "history", Unowned: writtenSlots, Failed: true}
	all, got := ask("127.0.0.1:1")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lags without ClickHouse (-want +got):\n%s", diff)
	}
	if strings.Contains(all[1].Error, "\n") {
		t.Errorf("the error has lines: %s", all[1].Error)
	}
}

func TestJudge(t *testing.T) {
	by := operator.Limits{Warn: 30, Critical: 120}
	for name, c := range map[string]struct {
		view lag.View
		want operator.Judgement
		why  string
	}{
		"fine":            {lag.View{Records: 1000, Seconds: 29}, operator.OK, ""},
		"behind":          {lag.View{Seconds: 30}, operator.Warning, "30s behind"},
		"far behind":      {lag.View{Seconds: 120}, operator.Critical, "2m0s behind"},
		"dead":            {lag.View{Slots: 16, Unowned: 1}, operator.Critical, "of its 16 slots have no owner: 1"},
		"cut":             {lag.View{Lost: 4}, operator.Critical, "gone from the log: 4"},
		"set back":        {lag.View{Ahead: 9}, operator.Critical, "ahead of the log"},
		"silent":          {lag.View{Error: "refused"}, operator.Unknown, "refused"},
		"silent and dead": {lag.View{Error: "refused", Slots: 2, Unowned: 2}, operator.Critical, "refused"},
		"owners unknown":  {lag.View{GroupError: "no coordinator", Seconds: 40}, operator.Unknown, "no coordinator"},
	} {
		t.Run(name, func(t *testing.T) {
			whole, found := operator.Judge([]lag.View{{View: "fine"}, c.view, {View: "fine"}}, by)
			if whole != c.want || found[1].Judgement != c.want || found[0].Judgement != operator.OK ||
				found[1].State != c.want.String() {
				t.Errorf("%v, %+v, want %v", whole, found[1], c.want)
			}
			if why := strings.Join(found[1].Why, "; "); !strings.Contains(why, c.why) || (why == "") != (c.why == "") {
				t.Errorf("why: %q, want %q", why, c.why)
			}
		})
	}
	whole, found := operator.Judge([]lag.View{{Error: "x"}, {Seconds: 31}, {Lost: 1}}, by)
	if whole != operator.Critical || !found[1].Told || found[0].Told {
		t.Errorf("%v, %+v", whole, found)
	}
}

func TestAgo(t *testing.T) {
	for seconds, want := range map[float64]string{
		0: "0s", 0.04: "0s", 1.25: "1.3s", 59.6: "1m0s", 3599: "59m59s", 7260: "2h1m0s",
	} {
		if got := operator.Ago(seconds); got != want {
			t.Errorf("%v s is %s, want %s", seconds, got, want)
		}
	}
}
