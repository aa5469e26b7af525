package e2e

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"heliograph/edge/client"
	"heliograph/infra/embedded"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
	"heliograph/tools/cluster"
)

// testRemoved: a member is removed while he writes over another edge, which does not know yet. What lies before the
// removal in the log counts, what lies behind does not, everybody agrees on it, and he is told.
func testRemoved(t *testing.T, e *env) {
	ctx := e.context(t)
	ann, bob, cid := e.user(t, "ann", 0), e.user(t, "bob", 1), e.user(t, "cid", 0)
	group, err := ann.u.CreateGroup(ctx, "lively", bob.me.User, cid.me.User)
	must(t, err)
	to := client.To{Thread: group}
	bob.has(ann.say(to, "begin"))
	var rejections, refused int
	for round := range 5 {
		writer := &line{from: bob, to: to}
		f := flow(t, time.Millisecond, writer)
		f.goOn(30)
		must(t, ann.u.RemoveMember(ctx, group, bob.me.User))
		until(t, "bob is refused", func() bool {
			ids := writer.ids()
			_, failed, _ := bob.outcome(ids[len(ids)-1])
			return failed != nil
		})
		f.finish()
		after := ann.say(to, "without bob")
		cid.has(after)
		tr := e.agree(t, ann, bob, cid)
		c := tr.threads[group]
		end := c.state.Member(bob.me.User).Spans[round].To
		told(t, bob, writer.ids(), c)
		e.accounted(t, tr, f, ann, bob, cid)
		for _, m := range writer.ids() {
			_, failed, rejected := bob.outcome(m)
			if failed != nil {
				refused++
			}
			if rejected {
				rejections++
			}
		}
		for _, s := range c.accepted {
			if s.Sender == bob.me.User && s.At > end && s.Kind == 10 {
				t.Errorf("bob's message at %d was accepted, he was removed at %d", s.At, end)
			}
		}
		if _, ok := bob.place(after); ok {
			t.Error("bob got a message after he was removed")
		}
		must(t, ann.u.AddMembers(ctx, group, bob.me.User))
		bob.has(ann.say(to, "bob is back"))
	}
	t.Logf("%d messages were refused by the edge, %d were rejected by the fold", refused, rejections)
	e.agree(t, ann, bob, cid)
	e.viewsAgree(t)
}

// told waits until the sender knows the outcome of all that he wrote.
func told(t *testing.T, d *device, ms []id.MessageID, c *chronicle) {
	t.Helper()
	settled(t, d.name+" knows the outcome of all that he wrote", func() string {
		for _, m := range ms {
			acked, failed, rejected := d.outcome(m)
			vs := c.refused[m]
			switch {
			case failed != nil:
				if codeOf(failed) != wirev1.Code_CODE_NOT_A_MEMBER {
					return failed.Error()
				}
			case rejected:
				if len(vs) == 0 || vs[0].Reason != thread.NotMember {
					return "told that a message was rejected which the log accepts: " + m.String()
				}
			case !acked:
				return "nothing became of " + m.String()
			case len(vs) > 0:
				return "not told that the log rejects " + m.String()
			}
		}
		return ""
	})
}

// testUnheard: a member is removed and his edge cannot know: it hears nothing of the log, and Postgres is down; or it
// has just started and Postgres is behind. What he writes is acknowledged, since the log has it, and then rejected by
// the fold: for everybody alike, and he is told.
func testUnheard(t *testing.T, e *env) {
	ann, bob, cid, dee := e.user(t, "ann", 0), e.user(t, "bob", 1), e.user(t, "cid", 0), e.user(t, "dee", 1)
	t.Run("deaf", func(t *testing.T) {
		group, err := ann.u.CreateGroup(e.context(t), "deaf", bob.me.User, cid.me.User, dee.me.User)
		must(t, err)
		to := client.To{Thread: group}
		begin := ann.say(to, "begin")
		for _, d := range []*device{bob, cid, dee} {
			d.has(begin)
		}
		instances := e.All(cluster.Delivery)
		sleep(t, instances...)
		pg := e.Engine(embedded.Postgres)
		must(t, pg.Kill())
		removing, ctx := make(chan error, 1), e.context(t)
		// its answer may wait for the edge to hear of it
		go func() { removing <- ann.u.RemoveMember(ctx, group, bob.me.User) }()
		removed := func() bool {
			for _, r := range e.readLog(t).records[topic.Threads][int32(slotOf(e, group))] {
				var ev eventv1.Event
				if id.ThreadID(r.Key) == group && proto.Unmarshal(r.Value, &ev) == nil &&
					ev.WhichBody() == eventv1.Event_MemberRemoved_case {
					return true
				}
			}
			return false
		}
		until(t, "the log has the removal", removed)
		var said []id.MessageID
		for _, text := range numbered("not heard of it", 5) {
			said = append(said, bob.say(to, text))
		}
		bob.acked(said...)
		wake(t, instances...)
		must(t, pg.Restart(e.context(t)))
		must(t, <-removing)
		must(t, e.WaitReady(e.context(t)))
		for _, m := range said {
			until(
				t, "bob is told that it is rejected", func() bool { _, _, rejected := bob.outcome(m); return rejected },
			)
		}
		unheard(t, e, group, said, ann, bob, cid, dee)
	})
	t.Run("behind", func(t *testing.T) {
		group, err := ann.u.CreateGroup(e.context(t), "behind", bob.me.User, cid.me.User, dee.me.User)
		must(t, err)
		to := client.To{Thread: group}
		begin := ann.say(to, "begin")
		for _, d := range []*device{bob, cid, dee} {
			d.has(begin)
		}
		e.caughtUp(t)
		projector := e.Role(cluster.Threads, 0)
		sleep(t, projector)
		must(t, ann.u.RemoveMember(e.context(t), group, bob.me.User))
		bob.leave()
		var said []id.MessageID
		must(t, e.Edge(1).Restart(e.context(t)))
		bob.come()
		for _, text := range numbered("Postgres believes it", 5) {
			said = append(said, bob.say(to, text))
		}
		// How long the edge hesitates is its own affair; once Postgres goes on, there is an answer.
		ann.has(ann.say(to, "without bob"))
		wake(t, projector)
		for _, m := range said {
			until(
				t, "there is an answer",
				func() bool { acked, failed, rejected := bob.outcome(m); return acked || failed != nil || rejected },
			)
		}
		unheard(t, e, group, said, ann, bob, cid, dee)
	})
}

// unheard checks that everybody agrees on what a member wrote after he was removed.
func unheard(t *testing.T, e *env, group id.ThreadID, said []id.MessageID, ann, bob, cid, dee *device) {
	t.Helper()
	after := ann.say(client.To{Thread: group}, "all hear again")
	cid.has(after)
	dee.has(after)
	tr := e.agree(t, ann, bob, cid, dee)
	told(t, bob, said, tr.threads[group])
	for _, s := range tr.threads[group].accepted {
		if s.Kind == 10 && s.Sender == bob.me.User {
			t.Errorf("bob's message at %d is accepted", s.At)
		}
	}
	e.viewsAgree(t)
	e.accountFor(t, tr, bob, said, group, ann, bob, cid, dee)
	e.accountFor(t, tr, ann, []id.MessageID{after}, group, ann, bob, cid, dee)
}

// sleep pauses processes, and wake lets them go on; the test's end does in any case.
func sleep(t *testing.T, ps ...*cluster.Process) {
	t.Helper()
	t.Cleanup(func() {
		for _, p := range ps {
			_ = p.Signal(syscall.SIGCONT) // one that has ended needs none
		}
	})
	for _, p := range ps {
		must(t, p.Signal(syscall.SIGSTOP))
	}
}

func wake(t *testing.T, ps ...*cluster.Process) {
	t.Helper()
	for _, p := range ps {
		must(t, p.Signal(syscall.SIGCONT))
	}
}

// testRevoked: a device is revoked over one edge while Postgres is down, and is connected to another edge: it is cut
// all the same, and stays out.
func testRevoked(t *testing.T, e *env) {
	ctx := e.context(t)
	ann, bob := e.user(t, "ann", 0), e.user(t, "bob", 0)
	stolen := e.linked(t, ann, "stolen", 1)
	stolen.waitSynced()
	other := e.linked(t, ann, "other", 1)
	other.waitSynced()
	to := ann.to(bob)
	m := ann.say(to, "before")
	stolen.has(m)
	bob.has(m)

	// With Postgres there, on its own edge and on another.
	ann.cuts(e.lose(t, ann, "on the same edge", 0)...)
	ann.cuts(e.lose(t, ann, "on another edge", 1)...)

	// While the edges hear nothing of the log, Postgres tells them.
	unheard := e.lose(t, ann, "where nothing is heard", 1)
	sleep(t, e.All(cluster.Delivery)...)
	ann.revokes(unheard[0], 2*prompt)
	wake(t, e.All(cluster.Delivery)...)

	lost := append(e.lose(t, ann, "without Postgres", 1), stolen)
	pg := e.Engine(embedded.Postgres)
	must(t, pg.Kill())
	ann.cuts(lost...)
	if got := codeOf(stolen.u.Err()); got != wirev1.Code_CODE_DEVICE_REVOKED {
		t.Errorf("it ended with %v, want that it is revoked", stolen.u.Err())
	}
	after := bob.say(bob.to(ann), "after")
	ann.has(after)
	other.has(after)

	// It knocks again, on an edge that has the user live.
	stolen.leave()
	stolen.come()
	select {
	case <-stolen.u.Done():
		if got := codeOf(stolen.u.Err()); got != wirev1.Code_CODE_DEVICE_REVOKED {
			t.Errorf("knocking again ended with %v", stolen.u.Err())
		}
	case <-ctx.Done():
		t.Error("a revoked device that knocks again is not told")
	}
	if _, ok := stolen.place(after); ok {
		t.Error("the revoked device got a message")
	}
	must(t, pg.Restart(ctx))
	must(t, e.WaitReady(ctx))
	tr := e.agree(t, ann, bob, other)
	rev := tr.users[ann.me.User].Devices[stolen.me.Device]
	if rev == nil || !rev.Revoked {
		t.Error("the log does not say that the device is revoked")
	}
	e.viewsAgree(t)
	var flagged bool
	must(t, e.pg.QueryRow(ctx, `SELECT revoked FROM views.devices WHERE user_id = $1 AND device_id = $2`,
		[16]byte(ann.me.User), [16]byte(stolen.me.Device)).Scan(&flagged))
	if !flagged {
		t.Error("Postgres does not say that the device is revoked")
	}
	// And when no edge has the user live any more, by Postgres.
	for _, d := range []*device{ann, bob, other, stolen} {
		d.leave()
	}
	must(t, e.Edge(1).Restart(ctx))
	stolen.come()
	select {
	case <-stolen.u.Done():
		if got := codeOf(stolen.u.Err()); got != wirev1.Code_CODE_DEVICE_REVOKED {
			t.Errorf("knocking on a fresh edge ended with %v", stolen.u.Err())
		}
	case <-ctx.Done():
		t.Error("a revoked device that knocks on a fresh edge is not told")
	}
}

const (
	// promised is within which time a revoked device is cut by an edge that hears the log.
	promised = time.Second
	// prompt is how late a single one may be on a machine that does much else.
	prompt = 5 * time.Second
)

// lose links a few devices that are to be lost.
func (e *env) lose(t *testing.T, by *device, where string, edge int) []*device {
	t.Helper()
	var lost []*device
	for i := range 3 {
		d := e.linked(t, by, fmt.Sprintf("lost %s %d", where, i+1), edge)
		d.waitSynced()
		lost = append(lost, d)
	}
	return lost
}

// cuts revokes devices of the user, one after the other: each is cut, and not all later than is promised.
func (d *device) cuts(lost ...*device) {
	d.t.Helper()
	best := prompt
	for _, l := range lost {
		best = min(best, d.revokes(l, prompt))
	}
	if best > promised {
		d.t.Errorf("%s and those after it were cut %v after their revocation was acknowledged, or later; want %v",
			lost[0].name, best, promised)
	}
}

// revokes revokes a device of the user and returns how long after the acknowledgement it was cut.
func (d *device) revokes(lost *device, limit time.Duration) time.Duration {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	must(d.t, d.u.RevokeDevice(ctx, lost.me.Device))
	return lost.gone(time.Now(), limit)
}

// gone waits until the device is cut and returns how long after its revocation was acknowledged.
func (d *device) gone(acknowledged time.Time, limit time.Duration) time.Duration {
	d.t.Helper()
	select {
	case <-d.u.Done():
		after := time.Since(acknowledged)
		d.t.Logf("%s was cut %v after its revocation was acknowledged", d.name, after)
		return after
	case <-time.After(limit):
		d.t.Fatalf("%s: still connected %v after its revocation was acknowledged", d.name, limit)
		return limit
	}
}

// testQuarantine: an event that nobody can decode parks its subject, in both views and on the edges; its slot goes on.
func testQuarantine(t *testing.T, e *env) {
	ctx := e.context(t)
	ann, bob := e.user(t, "ann", 0), e.user(t, "bob", 1)
	sick, err := ann.u.CreateGroup(ctx, "sick", bob.me.User)
	must(t, err)
	bob.has(ann.say(client.To{Thread: sick}, "before the unreadable one"))
	// A healthy thread in the same slot.
	healthy := sick
	for slotOf(e, healthy) != slotOf(e, sick) || healthy == sick {
		healthy, err = ann.u.CreateGroup(ctx, "healthy", bob.me.User)
		must(t, err)
	}
	e.append(t, unreadable(e, sick))
	behind := id.NewMessage()
	data, err := proto.Marshal(eventv1.Event_builder{
		UserId:   ann.me.User[:],
		DeviceId: ann.me.Device[:],
		MessageSent: eventv1.MessageSent_builder{
			MessageId: behind[:],
			Content:   eventv1.Sealed_builder{Data: outgoing(t, client.To{}, "behind the unreadable one").Data}.Build(),
		}.Build(),
	}.Build())
	must(t, err)
	r := unreadable(e, sick)
	r.Value = data
	e.append(t, r)
	fine := ann.say(client.To{Thread: healthy}, "goes on")
	bob.has(fine)
	// The thread takes nothing more: the sender is told why, and keeps the message.
	refused := ann.say(client.To{Thread: sick}, "too late")
	until(t, "the sender is told", func() bool {
		ann.mu.Lock()
		defer ann.mu.Unlock()
		return codeOf(ann.delayed[refused]) == wirev1.Code_CODE_THREAD_PARKED
	})
	if ann.u.Outbox() != 1 {
		t.Errorf("%d messages in the outbox, want 1", ann.u.Outbox())
	}
	e.caughtUp(t)

	tr := e.readLog(t)
	before := tr.threads[sick].accepted[:2]
	var n, n2 uint64
	must(t, e.pg.QueryRow(ctx, `SELECT count(*) FROM views.quarantine WHERE subject = $1`, [16]byte(sick)).Scan(&n))
	must(t, e.ch.QueryRow(ctx, `SELECT count() FROM quarantine FINAL WHERE subject = ?`, sick.String()).Scan(&n2))
	if n < 2 || n2 != n {
		t.Errorf("%d events are parked in Postgres and %d in ClickHouse, "+
			"want the unreadable one and the one behind it in each", n, n2)
	}
	for view, n := range e.eventsOf(t, sick) {
		if n != len(before) {
			t.Errorf("%s has %d events of the thread in quarantine, want the %d before the unreadable one",
				view, n, len(before))
		}
	}
	if _, ok := bob.place(behind); ok {
		t.Error("a device got an event that both views have parked")
	}
	delete(tr.threads, sick) // what our plain fold makes of it counts for nothing
	for _, d := range []*device{ann, bob} {
		d.mu.Lock()
		delete(d.got, sick)
		d.mu.Unlock()
		settled(t, d.name+" has the healthy thread", func() string { return tr.complaint(d) })
	}
	e.viewsAgree(t)
}

// testSlow: a device that never reads hurts nobody, is told to resume, and gets everything once it reads.
func testSlow(t *testing.T, e *env) {
	ctx := e.context(t)
	ann, bob := e.user(t, "ann", 0), e.user(t, "bob", 0)
	slow := e.newDevice(t, "slow", 0)
	slow.cfg.Buffer = 16
	me, err := e.Register(ctx, slow.cfg, e.phone(), "slow")
	must(t, err)
	slow.me = me
	slow.come()
	slow.waitSynced()
	group, err := ann.u.CreateGroup(ctx, "loud", bob.me.User, slow.me.User)
	must(t, err)
	to := client.To{Thread: group}
	slow.has(ann.say(to, "listen"))
	dropped := func() float64 { return metric(t, e, 0, `helio_session_dropped_frames_total{reason="lagged"}`) }
	resyncs := func() float64 { return metric(t, e, 0, "helio_session_resyncs_total") }
	dropsBefore, resyncsBefore := dropped(), resyncs() // the edge counts for all
	slow.stall()

	// Far more than the connection's windows and the outbox hold.
	big := make([]byte, 32<<10)
	for i := range big {
		big[i] = 'a' + byte(i%26)
	}
	var last id.MessageID
	for range 400 {
		last = ann.say(to, string(big))
	}
	bob.has(last)
	ann.has(last)
	direct := bob.say(bob.to(ann), "undisturbed")
	ann.has(direct)
	if _, ok := slow.place(last); ok {
		t.Fatal("the device that does not read has it all")
	}
	until(t, "the edge says that it dropped pushes", func() bool { return dropped() > dropsBefore })
	until(t, "the device is told to resume", func() bool { return resyncs() > resyncsBefore })
	slow.read()
	slow.has(last)
	e.agree(t, ann, bob, slow)
	e.viewsAgree(t)
}

// testZombie: a projector is paused past its session timeout, another takes its slots over, and the first wakes up in
// the middle of its work.
func testZombie(t *testing.T, e *env) {
	ctx := e.context(t)
	ann, bob := e.user(t, "ann", 0), e.user(t, "bob", 1)
	var lines []*line
	threads := map[id.ThreadID]bool{}
	for range 6 {
		group, err := ann.u.CreateGroup(ctx, "many", bob.me.User)
		must(t, err)
		threads[group] = true
		lines = append(lines,
			&line{from: ann, to: client.To{Thread: group}}, &line{from: bob, to: client.To{Thread: group}})
	}
	for l := range threads {
		settled(t, "bob has the thread", func() string {
			if bob.count(l) == 0 {
				return "not yet"
			}
			return ""
		})
	}
	f := flow(t, 60*time.Millisecond, lines...)
	f.goOn(100)
	regressed := e.watchPositions(t)
	for _, r := range projectors {
		zombie := e.Role(r, 0)
		heir, err := e.Extra(r)
		must(t, err)
		mark, began := f.total(), time.Now()
		since := func() float64 { return time.Since(began).Seconds() }
		must(t, zombie.Signal(syscall.SIGSTOP))
		must(t, heir.Start(ctx))
		f.goOn(100)
		e.caughtUp(t) // only the heir can have done it
		slept := since()
		must(t, zombie.Signal(syscall.SIGCONT))
		f.goOn(100)
		must(t, heir.Stop(ctx))
		stopped := since()
		e.caughtUp(t)
		t.Logf("%s slept for %.1f s while %d messages were sent; "+
			"the heir ended after %.1f s, and it had caught up after %.1f s",
			zombie, slept, f.total()-mark, stopped, since())
	}
	if s := regressed(); s != "" {
		t.Errorf("the zombie was not fenced: %s", s)
	}
	f.finish()
	tr := e.agree(t, ann, bob)
	e.accounted(t, tr, f, ann, bob)
	e.viewsAgree(t)
}
