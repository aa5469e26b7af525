package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/embedded"
	"heliograph/infra/kafka"
	"heliograph/ingest"
	"heliograph/schemas/event"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// tables of the two views whose rows depend on nothing but the log.
var (
	viewTables = []string{
		"messages",
		"rejected",
		"threads",
		"members",
		"invitations",
		"users",
		"devices",
		"user_threads",
		"user_invitations",
		"contacts",
		"blocks",
		"watermarks",
		"device_watermarks",
		"quarantine",
		"positions",
	}
	historyTables = []string{
		"messages", "thread_events", "message_changes", "memberships", "invitations", "receipts", "quarantine",
	}
)

// rows are those of tables, each as text with how often it is there.
type rows map[string]map[string]int

// dump reads both views.
func (e *env) dump(t *testing.T) rows {
	t.Helper()
	out := rows{}
	for _, table := range viewTables {
		out["Postgres, table "+table] = e.rowsOf(t, table)
	}
	for _, table := range historyTables {
		query := `SELECT * FROM ` + table + ` FINAL`
		if table == "quarantine" { // what says that it is released is none of it
			query += ` WHERE NOT released`
		}
		out["ClickHouse, table "+table] = e.historyOf(t, query)
	}
	return out
}

// same compares tables with what they were before.
func (before rows) same(t *testing.T, now rows) {
	t.Helper()
	for _, table := range slices.Sorted(maps.Keys(before)) {
		if diff := cmp.Diff(before[table], now[table]); diff != "" {
			t.Errorf("%s (-before +rebuilt):\n%s", table, clip(diff))
		}
	}
}

// stopProjectors stops them when both views have caught up.
func (e *env) stopProjectors(t *testing.T) {
	t.Helper()
	e.caughtUp(t)
	for _, r := range projectors {
		must(t, e.Role(r, 0).Stop(e.context(t)))
	}
}

// rebuild drops both views and has the projectors, which are stopped, make them anew.
func (e *env) rebuild(t *testing.T) {
	t.Helper()
	_, err := e.pg.Exec(e.context(t), `DROP SCHEMA views CASCADE`)
	must(t, err)
	must(t, e.ch.Exec(e.context(t), `DROP DATABASE heliograph`))
	began := time.Now()
	for _, r := range projectors {
		must(t, e.Role(r, 0).Start(e.context(t)))
	}
	e.caughtUp(t)
	events, took := 0, time.Since(began)
	for _, slots := range e.records(t, folded...) {
		for _, recs := range slots {
			events += len(recs)
		}
	}
	t.Logf("%d events taken in again in %.1f s", events, took.Seconds())
}

// testRebuild: P3 and P7. Both views are dropped and rebuilt from the first record: the same rows, and nobody hears of
// it.
func testRebuild(t *testing.T, e *env) {
	ann, bob := e.user(t, "ann", 0), e.user(t, "bob", 1)
	ann.has(bob.say(bob.to(ann), "quiet now"))
	e.agree(t, ann, bob)
	until(t, "bob sees that all is delivered", func() bool {
		return bob.mark(bob.to(ann).Thread, ann.me.User).DeliveredPosition == bob.copyOf(bob.to(ann).Thread)[0].At
	})
	e.stopProjectors(t)
	before := e.dump(t)
	if len(before["Postgres, table messages"]) == 0 || len(before["ClickHouse, table messages"]) == 0 {
		t.Fatal("there is nothing to rebuild")
	}
	sms, err := os.ReadFile(e.SMS())
	must(t, err)
	logged, err := e.ends(e.context(t))
	must(t, err)
	pushed := [2]int{ann.total(), bob.total()}
	e.tamper(t, ann.to(bob).Thread)

	e.rebuild(t)
	before.same(t, e.dump(t))
	again, err := os.ReadFile(e.SMS())
	must(t, err)
	if string(again) != string(sms) {
		t.Error("the rebuild sent SMS")
	}
	now, err := e.ends(e.context(t))
	must(t, err)
	if diff := cmp.Diff(logged, now); diff != "" {
		t.Errorf("the rebuild appended to the log (-before +after):\n%s", diff)
	}
	if got := [2]int{ann.total(), bob.total()}; got != pushed {
		t.Errorf("devices had %v events and have %v after the rebuild", pushed, got)
	}
	// And all goes on.
	m := ann.say(ann.to(bob), "rebuilt")
	bob.has(m)
	e.agree(t, ann, bob)
	e.viewsAgree(t)
}

// tamper changes a row of each view by hand: the comparison with the log, which the tests end with, must see both.
func (e *env) tamper(t *testing.T, th id.ThreadID) {
	t.Helper()
	for _, r := range e.compare(t) {
		if !r.Equal() {
			t.Errorf("before: %+v", r)
		}
	}
	_, err := e.pg.Exec(e.context(t), `UPDATE threads SET last_ordinal = last_ordinal + 1 WHERE thread_id = $1`,
		[16]byte(th))
	must(t, err)
	must(t, e.ch.Exec(e.context(t), `
		ALTER TABLE messages UPDATE body = 'never said'
		WHERE thread_id = ? SETTINGS mutations_sync = 2`, uuid.UUID(th)))
	want := map[string]string{"threads": "last_ordinal", "history": "body"}
	for _, r := range e.compare(t) {
		if len(r.Differences) != 1 || len(r.Differences[0].Columns) != 1 ||
			r.Differences[0].Columns[0].Name != want[r.View] {
			t.Errorf("a row of the %s was changed in %s, and this is found: %+v", r.View, want[r.View], r.Differences)
		}
	}
}

// total is how many events of any kind came to the device, save those of its connection.
func (d *device) total() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.events
}

// testCompacted: P3 with a log that has compacted the receipts. A rebuild from what it has kept gives every device and
// member the same watermarks.
func testCompacted(t *testing.T, e *env) {
	ann, bob := e.user(t, "ann", 0), e.user(t, "bob", 1)
	to := ann.to(bob)
	for _, text := range numbered("read this", 5) {
		m := ann.say(to, text)
		bob.has(m)
		p, _ := bob.place(m)
		bob.u.MarkRead(p)
		until(
			t, "ann sees that bob has read it",
			func() bool { return ann.mark(to.Thread, bob.me.User).ReadPosition >= p.Position },
		)
	}
	// Ann claims Bob's device id, which is only its user's word: her receipt under it must not stand for his.
	e.late(t, to.Thread, ann.me.User, bob.me.Device)
	// The last receipt is of what he has and has not read: what he has read must be in it all the same.
	m := ann.say(to, "read this later")
	bob.has(m)
	p, _ := bob.place(m)
	until(
		t, "ann sees that bob has it",
		func() bool { return ann.mark(to.Thread, bob.me.User).DeliveredPosition >= p.Position },
	)
	e.late(t, to.Thread, ann.me.User, bob.me.Device)
	e.agree(t, ann, bob)
	// An edge that Bob has left writes late what he said there; the one that he is at mends it.
	e.late(t, to.Thread, bob.me.User, bob.me.Device)
	settled(t, "a receipt written late is mended", func() string { return e.lastSaysLess(t) })
	e.stopProjectors(t)
	before := e.dump(t)
	last := `
		SELECT thread_id, user_id, device_id,
			max(delivered_position), max(delivered_ordinal), max(read_position), max(read_ordinal)
		FROM receipts GROUP BY thread_id, user_id, device_id`
	before["ClickHouse, each device's highest receipts"] = e.historyOf(t, last)
	for _, table := range []string{
		// it has the receipts that the log has: which of the older ones, is the log's affair
		"ClickHouse, table receipts",
		"Postgres, table positions", // what has the log compact takes places in it
	} {
		delete(before, table)
	}
	e.compactReceipts(t)
	e.rebuild(t)
	now := e.dump(t)
	now["ClickHouse, each device's highest receipts"] = e.historyOf(t, last)
	before.same(t, now)

	// A device comes back to an edge that starts from the rebuilt view: it gets what it missed and nothing again.
	bob.leave()
	m = ann.say(to, "compacted")
	ann.acked(m)
	must(t, e.Edge(1).Restart(e.context(t)))
	bob.come()
	bob.has(m)
	e.agree(t, ann, bob)
	e.viewsAgree(t)
}

// late appends a low receipt of a user's device as an edge does: for a user who registered with another's device id, or
// for a device that has gone on elsewhere.
func (e *env) late(t *testing.T, th id.ThreadID, u id.UserID, d id.DeviceID) {
	t.Helper()
	cl := e.plain(t)
	defer cl.Close()
	cfg := kafka.Config{Brokers: []string{e.KafkaAddr()}, Partitions: e.Partitions()}
	bases, err := kafka.LoadBases(e.context(t), cl, cfg, topic.All, e.Partitions())
	must(t, err)
	in, err := ingest.New(ingest.Config{Kafka: cfg, Partitions: e.Partitions()}, bases, nil, prometheus.NewRegistry())
	must(t, err)
	ctx, cancel := context.WithCancel(e.context(t))
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	in.Watermark(th, u, d, thread.Watermark{DeliveredPosition: 1, DeliveredOrdinal: 1})
	must(t, in.Flush(ctx))
	cancel()
	must(t, <-done)
}

// lastSaysLess tells of a device whose last receipt in a thread, which is the one that compaction keeps, says less than
// one before it: it was written late, by an edge that the device had left.
func (e *env) lastSaysLess(t *testing.T) string {
	t.Helper()
	last, most := map[string]*kgo.Record{}, map[string]thread.Watermark{}
	said := func(r *kgo.Record) (w thread.Watermark) {
		ev, err := event.Decode(r.Value)
		if err != nil {
			return w // one that nobody folds
		}
		m := ev.GetWatermarksMoved()
		w.DeliveredPosition, w.DeliveredOrdinal = topic.Position(m.GetDeliveredPosition()), m.GetDeliveredOrdinal()
		w.ReadPosition, w.ReadOrdinal = topic.Position(m.GetReadPosition()), m.GetReadOrdinal()
		return w
	}
	for _, recs := range e.records(t, topic.Receipts)[topic.Receipts] {
		for _, r := range recs {
			key := string(r.Key)
			last[key], most[key] = r, most[key].Merge(said(r))
		}
	}
	for key, r := range last {
		if w := said(r); w != w.Merge(most[key]) {
			return fmt.Sprintf("the last receipt under %x, at %d:%d of %v, says %+v, one before it %+v",
				key, r.Partition, r.Offset, r.Timestamp, w, most[key])
		}
	}
	return ""
}

// compactReceipts has the log compact its receipts, which it does at leisure otherwise, until none is left that a later
// one stands for. Of a partition the last batch stays as it is.
func (e *env) compactReceipts(t *testing.T) {
	t.Helper()
	cl := e.plain(t)
	defer cl.Close()
	set := func(name, value string) kadm.AlterConfig {
		return kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value}
	}
	altered := func(got kadm.AlterConfigsResponses, err error) {
		t.Helper()
		must(t, err)
		for _, r := range got {
			must(t, r.Err)
		}
	}
	adm := kadm.NewClient(cl)
	altered(adm.AlterBrokerConfigs(e.context(t), []kadm.AlterConfig{set("log.cleaner.backoff.ms", "100")}))
	if !e.real {
		// it takes this up after a start, at the first change of a topic
		must(t, e.Engine(embedded.Kafka).Restart(e.context(t)))
		must(t, e.WaitReady(e.context(t)))
	}
	altered(adm.AlterTopicConfigs(
		e.context(t), []kadm.AlterConfig{set("segment.ms", "1"), set("min.cleanable.dirty.ratio", "0.001")},
		string(topic.Receipts),
	))
	all := e.records(t, topic.Receipts)[topic.Receipts]
	had := 0
	for slot, recs := range all {
		had += len(recs)
		r := recs[len(recs)-1] // a repetition of the last says nothing new, and begins another segment
		e.append(t, &kgo.Record{Topic: r.Topic, Partition: slot, Key: r.Key, Value: r.Value})
	}
	left := 0
	until(t, "the receipts are compacted", func() bool {
		left = 0
		for _, recs := range e.records(t, topic.Receipts)[topic.Receipts] {
			left += len(recs)
			keys := map[string]bool{}
			for _, r := range recs[:len(recs)-1] {
				if keys[string(r.Key)] {
					return false
				}
				keys[string(r.Key)] = true
			}
		}
		return true
	})
	if left >= had {
		t.Errorf("%d receipts are left of %d", left, had)
	}
	t.Logf("%d receipts are left of %d", left, had)
}
