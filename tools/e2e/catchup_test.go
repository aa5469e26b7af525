package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"heliograph/edge/client"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/tools/cluster"
)

// testAbsence: what was missed comes once and in order, whichever edge the device comes back to and whatever that edge knows.
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

	tr := e.agree(t, ann, bob, cid)
	e.viewsAgree(t, tr, group, ann.to(bob).Thread)
}

// testHistory: pages go back to the first message, over the border between the stores, wherever it lies, with no gap and nothing twice.
func testHistory(t *testing.T, e *env) {
	ctx := e.context(t)
	ann, bob := e.user(t, "ann", 0), e.user(t, "bob", 1)
	late := e.user(t, "late", 0)
	group, err := ann.u.CreateGroup(ctx, "long", bob.me.User)
	must(t, err)
	to := client.To{Thread: group}
	var last id.MessageID
	for i, text := range numbered("line", 120) {
		last = ann.say(to, text)
		if i == 59 {
			ann.acked(last)
			must(t, ann.u.AddMembers(ctx, group, late.me.User))
		}
	}
	bob.has(last)
	late.has(last)
	tr := e.agree(t, ann, bob, late)
	e.viewsAgree(t, tr, group)
	all := tr.threads[group].accepted

	// As the trimmer does when messages leave the tail; the rows are put back in the end, because the log is not as old as they would have to be.
	const keep = `CREATE TABLE e2e_trimmed (LIKE views.messages)`
	_, err = e.pg.Exec(ctx, keep)
	must(t, err)
	trim := func(before topic.Position) {
		t.Helper()
		_, err := e.pg.Exec(ctx, `WITH gone AS (DELETE FROM views.messages WHERE thread_id = $1 AND position < $2 RETURNING *) INSERT INTO e2e_trimmed SELECT * FROM gone`,
			[16]byte(group), int64(before))
		must(t, err)
	}
	for _, border := range []int{0, 1, 50, 61, len(all) - 1, len(all)} {
		at := topic.Position(1) << 60
		if border < len(all) {
			at = all[border].At
		}
		trim(at)
		for _, d := range []*device{ann, late} {
			want := tr.expected(d, group)
			for _, limit := range []int{7, 60, 500} {
				if diff := cmp.Diff(want, pages(t, e, d, group, limit)); diff != "" {
					t.Errorf("%s, pages of %d, the first %d of %d events are out of Postgres (-log +pages):\n%s", d.name, limit, border, len(all), clip(diff))
				}
			}
		}
	}
	_, err = e.pg.Exec(ctx, `INSERT INTO views.messages SELECT * FROM e2e_trimmed`)
	must(t, err)
	_, err = e.pg.Exec(ctx, `DROP TABLE e2e_trimmed`)
	must(t, err)
	e.viewsAgree(t, tr, group)
}

// pages reads a thread page by page to its first event and returns the events in the order of the log.
func pages(t *testing.T, e *env, d *device, th id.ThreadID, limit int) []seen {
	t.Helper()
	var out []seen
	for before := topic.Position(0); ; {
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
				p, s = ev.Place, seen{Kind: 10, Sender: ev.Sender, Message: ev.ID, Text: ev.Text}
			case client.ThreadEvent:
				p, s = ev.Place, seen{Kind: int(ev.Event.WhichBody()), Sender: id.UserID(ev.Event.GetUserId()), Text: titleOf(ev.Event)}
			}
			s.At, s.Ordinal, s.TimeMS = p.Position, p.Ordinal, p.Time.UnixMilli()
			out = append(out, s)
		}
		if next == 0 {
			slices.Reverse(out)
			return out
		}
		if before != 0 && next >= before {
			t.Fatalf("the page before %d continues at %d", before, next)
		}
		before = next
	}
}

// testRollingEdges: edges are stopped and started one by one under traffic; nothing is lost, and those who were idle are reached afterwards.
func testRollingEdges(t *testing.T, e *env) {
	ctx := e.context(t)
	ann, bob, cid, dee := e.user(t, "ann", 0, 1), e.user(t, "bob", 1, 0), e.user(t, "cid", 0, 1), e.user(t, "dee", 1, 0)
	group, err := ann.u.CreateGroup(ctx, "rolling", bob.me.User, cid.me.User)
	must(t, err)
	to := client.To{Thread: group}
	idle := cid.say(cid.to(dee), "then silence")
	dee.has(idle)
	f := flow(t, 10*time.Millisecond, &line{from: ann, to: to}, &line{from: bob, to: to}, &line{from: ann, to: ann.to(bob)}, &line{from: bob, to: bob.to(ann)})
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
	f.accounted(tr)
	e.viewsAgree(t, tr, group, ann.to(bob).Thread, cid.to(dee).Thread)
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
		lines = append(lines, &line{from: ann, to: client.To{Thread: group}}, &line{from: bob, to: client.To{Thread: group}})
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
	f.accounted(tr)
	e.viewsAgree(t, tr, threads...)
}
