package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"heliograph/edge/client"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/tools/cluster"
)

// testAbsence: what was missed comes once and in order, whichever edge the device comes back to and whatever that edge
// knows.
func testAbsence(t *testing.T, e *env) {
	ctx := e.context(t)
	ann, bob, cid := e.user(t, "ann", 0), e.user(t, "bob", 0), e.user(t, "cid", 1)
	group, err := ann.u.CreateGroup(ctx, "busy", bob.me.User, cid.me.User)
	must(t, err)
	bob.has(ann.say(client.To{Thread: group}, "all here"))
	write := func(round string) {
		t.Helper()
		fresh, err := ann.u.CreateGroup(ctx, "new "+round, bob.me.User)
		must(t, err)
		var a, c []id.MessageID
		for _, text := range numbered(round, 150) {
			a = append(a, ann.say(client.To{Thread: group}, text), ann.say(ann.to(bob), text))
			c = append(c, cid.say(client.To{Thread: group}, text))
		}
		must(t, ann.u.Rename(ctx, group, "after "+round))
		a = append(a, ann.say(client.To{Thread: fresh}, "first"))
		ann.acked(a...)
		cid.acked(c...)
	}
	bob.leave()
	write("the same edge")
	bob.come()
	bob.waitSynced()
	e.agree(t, bob)

	bob.leave()
	write("another edge")
	bob.on(e, 1).come()
	e.agree(t, bob)

	bob.leave()
	write("an edge that knows nothing")
	must(t, e.Edge(0).Restart(ctx))
	bob.on(e, 0).come()
	e.agree(t, bob)

	// Away while the views stand still: what is not in Postgres yet comes all the same.
	bob.leave()
	projector := e.Role(cluster.Threads, 0)
	must(t, projector.Kill())
	ann.waitSynced()
	m := ann.say(client.To{Thread: group}, "not in Postgres yet")
	cid.has(m)
	bob.on(e, 1).come()
	must(t, projector.Start(ctx))
	bob.has(m)

	e.agree(t, ann, bob, cid)
	e.viewsAgree(t)
}

// testHistory: pages go back to the first message, over the border between the stores, wherever it lies, with no gap
// and nothing twice.
func testHistory(t *testing.T, e *env) {
	ann, bob := e.user(t, "ann", 0), e.user(t, "bob", 1)
	late := e.user(t, "late", 0)
	group, err := ann.u.CreateGroup(e.context(t), "long", bob.me.User)
	must(t, err)
	to := client.To{Thread: group}
	var last id.MessageID
	for i, text := range numbered("line", 120) {
		last = ann.say(to, text)
		if i == 59 {
			ann.acked(last)
			must(t, ann.u.AddMembers(e.context(t), group, late.me.User))
		}
	}
	bob.has(last)
	late.has(last)
	tr := e.agree(t, ann, bob, late)
	e.viewsAgree(t)
	all := tr.threads[group].accepted

	trim, restore := e.trimmer(t, group)
	began, read := time.Now(), 0
	for _, c := range []struct{ border, limit int }{
		{0, 500}, {1, 7}, {50, 60}, {50, 500}, {61, 7}, {len(all) - 1, 60}, {len(all), 7}, {len(all), 500},
	} {
		at := topic.Position(1) << 60
		if c.border < len(all) {
			at = all[c.border].At
		}
		trim(at)
		for _, d := range []*device{ann, late} {
			got, n := pages(t, e, d, group, c.limit)
			read += n
			if diff := cmp.Diff(tr.expected(d, group), got); diff != "" {
				t.Errorf("%s, pages of %d, the first %d of %d events are out of Postgres (-log +pages):\n%s",
					d.name, c.limit, c.border, len(all), clip(diff))
			}
		}
	}
	t.Logf("%d pages, %v each", read, time.Since(began)/time.Duration(read))

	// Away until all of it has left Postgres: what was missed comes from the history.
	bob.leave()
	for _, text := range numbered("away", 250) {
		last = ann.say(to, text)
	}
	ann.acked(last)
	until(t, "Postgres to have it", func() (there bool) {
		must(t, e.pg.QueryRow(e.context(t), `
			SELECT EXISTS (SELECT 1 FROM views.messages WHERE thread_id = $1 AND message_id = $2)`,
			[16]byte(group), [16]byte(last)).Scan(&there))
		return there
	})
	trim(1 << 60)
	bob.on(e, 0).come()
	bob.has(last)
	e.agree(t, ann, bob, late)
	restore()
	e.viewsAgree(t)
}

// trimmer returns what takes the events of a thread before a position out of Postgres, as the trimmer does when
// messages leave the tail, and what puts them back, because the log is not as old as they would have to be. That is
// done in any case when the test ends: later tests compare all rows.
func (e *env) trimmer(t *testing.T, th id.ThreadID) (trim func(before topic.Position), restore func()) {
	t.Helper()
	_, err := e.pg.Exec(e.context(t), `CREATE TABLE public.e2e_trimmed (LIKE views.messages)`)
	must(t, err)
	back := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return pgx.BeginFunc(ctx, e.pg, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `INSERT INTO views.messages SELECT * FROM public.e2e_trimmed`); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `DELETE FROM views.trimmed WHERE thread_id = $1`, [16]byte(th)); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `DROP TABLE public.e2e_trimmed`)
			return err
		})
	}
	undo := sync.OnceValue(back)
	t.Cleanup(func() {
		if err := undo(); err != nil {
			t.Errorf("what was trimmed is not put back: %v", err)
		}
	})
	return func(before topic.Position) {
		t.Helper()
		_, err := e.pg.Exec(e.context(t), `
			WITH gone AS (DELETE FROM views.messages WHERE thread_id = $1 AND position < $2 RETURNING *),
			kept AS (INSERT INTO public.e2e_trimmed SELECT * FROM gone)
			INSERT INTO views.trimmed AS t SELECT thread_id, max(position), max(log_time) FROM gone GROUP BY 1
			ON CONFLICT (thread_id) DO UPDATE SET
				position = greatest(t.position, excluded.position),
				log_time = greatest(t.log_time, excluded.log_time)`,
			[16]byte(th), int64(before))
		must(t, err)
	}, func() { t.Helper(); must(t, undo()) }
}

// pages reads a thread page by page to its first event and returns the events in the order of the log, and how many
// pages they took.
func pages(t *testing.T, e *env, d *device, th id.ThreadID, limit int) (out []seen, n int) {
	t.Helper()
	for before := topic.Position(0); ; {
		n++
		events, next, err := d.u.History(e.context(t), th, before, limit)
		must(t, err)
		if len(events) > limit {
			t.Errorf("a page of %d events, asked for %d", len(events), limit)
		}
		for _, ev := range events {
			var p client.Place
			var s seen
			switch ev := ev.(type) {
			case client.Message:
				p, s = ev.Place, seen{Kind: 10, Sender: ev.Sender, Message: ev.ID, Reply: ev.Reply, Text: ev.Text}
			case client.ThreadEvent:
				kind, by := int(ev.Event.WhichBody()), id.UserID(ev.Event.GetUserId())
				p, s = ev.Place, seen{Kind: kind, Sender: by, Text: titleOf(ev.Event)}
			}
			s.At, s.Ordinal, s.TimeMS = p.Position, p.Ordinal, p.Time.UnixMilli()
			out = append(out, s)
		}
		if next == 0 {
			slices.Reverse(out)
			return out, n
		}
		if before != 0 && next >= before {
			t.Fatalf("the page before %d continues at %d", before, next)
		}
		before = next
	}
}

// testRollingEdges: edges are stopped and started one by one under traffic; nothing is lost, and those who were idle
// are reached afterwards.
func testRollingEdges(t *testing.T, e *env) {
	ctx := e.context(t)
	ann, bob, cid, dee := e.user(t, "ann", 0, 1), e.user(t, "bob", 1, 0), e.user(t, "cid", 0, 1), e.user(t, "dee", 1, 0)
	group, err := ann.u.CreateGroup(ctx, "rolling", bob.me.User, cid.me.User)
	must(t, err)
	to := client.To{Thread: group}
	idle := cid.say(cid.to(dee), "then silence")
	dee.has(idle)
	f := flow(
		t, 10*time.Millisecond, &line{from: ann, to: to}, &line{from: bob, to: to}, &line{from: ann, to: ann.to(bob)},
		&line{from: bob, to: bob.to(ann)},
	)
	for i := range 2 {
		f.goOn(50)
		must(t, e.Edge(i).Stop(ctx))
		f.goOn(50)
		must(t, e.Edge(i).Start(ctx))
	}
	f.goOn(50)
	awake := dee.say(dee.to(cid), "awake?")
	cid.has(awake)
	f.finish()
	tr := e.agree(t, ann, bob, cid, dee)
	e.accounted(t, tr, f, ann, bob, cid, dee)
	e.viewsAgree(t)
}

// testMovedSlots: delivery instances stop, die and come back under traffic; slots move, and nothing is lost.
func testMovedSlots(t *testing.T, e *env) {
	ctx := e.context(t)
	ann, bob := e.user(t, "ann", 0), e.user(t, "bob", 1)
	lines := []*line{{from: ann, to: ann.to(bob)}, {from: bob, to: bob.to(ann)}}
	threads := []id.ThreadID{ann.to(bob).Thread}
	for i := range 4 { // in several slots
		group, err := ann.u.CreateGroup(ctx, fmt.Sprintf("moving %d", i), bob.me.User)
		must(t, err)
		bob.has(ann.say(client.To{Thread: group}, "begin"))
		lines = append(lines,
			&line{from: ann, to: client.To{Thread: group}}, &line{from: bob, to: client.To{Thread: group}})
		threads = append(threads, group)
	}
	f := flow(t, 10*time.Millisecond, lines...)
	one, two := e.Role(cluster.Delivery, 0), e.Role(cluster.Delivery, 1)
	reached := func() {
		t.Helper()
		m := ann.say(ann.to(bob), "probe")
		bob.has(m)
	}
	f.goOn(100)
	must(t, one.Stop(ctx))
	reached()
	must(t, one.Start(ctx))
	f.goOn(100)
	must(t, two.Kill())
	reached()
	must(t, two.Start(ctx))
	f.goOn(100)
	must(t, one.Kill())
	must(t, two.Kill())
	f.goOn(100)
	must(t, one.Start(ctx))
	must(t, two.Start(ctx))
	reached()
	f.finish()
	tr := e.agree(t, ann, bob)
	e.accounted(t, tr, f, ann, bob)
	e.viewsAgree(t)
}
