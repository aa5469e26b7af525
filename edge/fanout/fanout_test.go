package fanout

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"

	"heliograph/edge/replica"
	"heliograph/edge/replica/replicatest"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// inBench runs a test on one edge, inside a bubble.
func inBench(t *testing.T, edges int, fn func(t *testing.T, b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1, edges, testConfig())
		defer b.stop()
		fn(t, b)
	})
}

// person registers a user with one device.
func (b *bench) person(n byte) *phone {
	u, d := replicatest.User(n), id.NewDevice()
	return newPhone(u, d, b.world.Register(u, d, 1))
}

// online connects a device to an edge until the test ends.
func (b *bench) online(d *phone, edge int) *testSession {
	b.t.Helper()
	s, err := d.connect(b.edges[edge], 1000, 0, rand.New(rand.NewPCG(1, 1)))
	if err != nil {
		b.t.Fatalf("connect: %v", err)
	}
	return s
}

// group makes a group as an edge does.
func (b *bench) group(by id.UserID, others ...id.UserID) id.ThreadID {
	t := id.NewGroup()
	b.world.Join(t, b.world.Next(t), append([]id.UserID{by}, others...)...)
	b.world.Create(t, by, others...)
	return t
}

// settle lets everything happen that is going to; what the devices hold may be read after it.
func (b *bench) settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

func (d *phone) count(t id.ThreadID) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.got[t])
}

func codeOfError(err error) wirev1.Code {
	var w *wire.Error
	if !errors.As(err, &w) {
		return wirev1.Code_CODE_INTERNAL
	}
	return w.Code
}

func TestLiveWithTheStoreDown(t *testing.T) {
	inBench(t, 2, func(t *testing.T, b *bench) {
		ann, bob := b.person(1), b.person(2)
		b.settle()
		defer b.online(ann, 0).leave()
		defer b.online(bob, 1).leave()
		g := b.group(ann.user, bob.user)
		b.settle()
		b.store(true)
		for range 5 {
			b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		}
		// A thread that begins now is live on both edges too.
		direct := id.DirectThread(ann.user, bob.user)
		b.world.Join(direct, b.world.Next(direct), ann.user, bob.user)
		b.world.Send(direct, bob.user, bob.id, id.NewMessage(), ann.user)
		b.settle()
		for _, d := range []*phone{ann, bob} {
			if f := d.lacks(b.world); f != "" {
				t.Errorf("device of %v: %s", d.user, f)
			}
			mustBe(t, "group", d.count(g), 6)
			mustBe(t, "direct", d.count(direct), 1)
			mustBe(t, "told of the direct thread", d.changed[direct] > 0, true)
		}
		v, ok := b.edges[1].View(direct)
		mustBe(
			t, "view",
			ok && v.Kind == thread.Direct && v.IsMember(ann.user) && v.IsMember(bob.user) && v.ActiveMembers == 2, true,
		)
		// Who was not there cannot be served, and is told so.
		_, err := b.person(3).connect(b.edges[0], 10, 0, nil)
		mustBe(t, "attach", codeOfError(err), wirev1.Code_CODE_UNAVAILABLE)
		mustBe(
			t, "ensure", codeOfError(b.edges[0].EnsureThread(context.Background(), id.NewGroup())),
			wirev1.Code_CODE_UNAVAILABLE,
		)
	})
}

// TestCatchUpHoldsOneThread adds somebody to a group that is live on his edge already while the views stand still: what
// he missed must wait, and the rest must not.
func TestCatchUpHoldsOneThread(t *testing.T) {
	for _, down := range []bool{false, true} {
		inBench(t, 1, func(t *testing.T, b *bench) {
			ann, bob := b.person(1), b.person(2)
			b.settle()
			defer b.online(ann, 0).leave()
			defer b.online(bob, 0).leave()
			old, g := b.group(ann.user, bob.user), b.group(ann.user)
			b.settle()
			b.world.Mu.Lock()
			b.world.Views.Stopped, b.world.Views.Down = true, down
			b.world.Mu.Unlock()
			b.world.AddMember(g, ann.user, bob.user) // before the list says so: he misses it
			b.settle()
			b.world.Join(g, -1, bob.user)
			b.settle()
			for range 20 {
				b.world.Send(old, ann.user, ann.id, id.NewMessage(), id.UserID{})
				b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
				b.settle()
			}
			mustBe(t, "the other thread", bob.count(old), 21)
			mustBe(t, "the new thread", bob.count(g), 0)
			b.world.Mu.Lock()
			b.world.Views.Stopped, b.world.Views.Down = false, false
			b.world.Mu.Unlock()
			time.Sleep(10 * time.Second)
			b.settle()
			mustBe(t, "lacks", bob.lacks(b.world), "")
			mustBe(t, "resyncs", bob.resyncs, 0)
		})
	}
}

// A target does not hold if more was found to be missing between the look at the thread and the taking down of it.
func TestTargetIsTakenAgain(t *testing.T) {
	f := New(nil, nil, nil, nil)
	g := id.NewGroup()
	d := &device{state: syncing, targets: map[id.ThreadID]topic.Position{g: uncaptured}}
	f.catchUp(d, g, -1, 20)
	mustBe(t, "short of what is missing", d.aim(g, 10), false)
	mustBe(t, "that is taken again", d.aim(g, 20), true)
	f.catchUp(d, g, -1, 20)
	mustBe(t, "further threads to begin with", len(d.joins), 0)
	f.catchUp(d, g, -1, 21)
	mustBe(t, "further threads to begin with", len(d.joins), 1)
	mustBe(t, "the thread's target", d.targets[g], uncaptured)
}

func TestAttach(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann := b.person(1)
		// The registration is in the log and not yet in the views: the stream brings it.
		b.world.Mu.Lock()
		b.world.Views.Stopped = true
		b.world.Mu.Unlock()
		s := b.online(ann, 0)
		mustBe(t, "the device's first moment", b.edges[0].device(s).shown().MS, ann.floor)
		key, err := b.edges[0].DeviceKey(context.Background(), ann.user, ann.id)
		mustBe(t, "live key", err == nil && !key.Revoked && key.Primary, true)
		b.world.Mu.Lock()
		b.world.Views.Stopped = false
		b.world.Mu.Unlock()

		stranger := newPhone(ann.user, id.NewDevice(), 0)
		_, err = stranger.connect(b.edges[0], 10, 0, nil)
		mustBe(t, "unknown device", codeOfError(err), wirev1.Code_CODE_UNAVAILABLE)
		_, err = b.edges[0].DeviceKey(context.Background(), replicatest.User(9), id.NewDevice())
		mustBe(t, "unknown key", codeOfError(err), wirev1.Code_CODE_AUTHENTICATION_FAILED)

		again := b.online(ann, 0)
		b.settle()
		mustBe(t, "older session", ann.closed, wirev1.Code_CODE_SUPERSEDED)
		s.edge.Detach(s)
		s.wg.Wait()
		ann.closed = 0
		defer again.leave()

		bob := b.person(2)
		b.settle()
		key, err = b.edges[0].DeviceKey(context.Background(), bob.user, bob.id)
		mustBe(t, "stored key", err == nil && !key.Revoked, true)
		b.world.Revoke(bob.user, bob.id)
		b.settle()
		_, err = bob.connect(b.edges[0], 10, 0, nil)
		mustBe(t, "revoked device", codeOfError(err), wirev1.Code_CODE_DEVICE_REVOKED)
	})
}

func TestRevokedAtOnce(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob := b.person(1), b.person(2)
		b.settle()
		s := b.online(bob, 0)
		defer s.leave()
		defer b.online(ann, 0).leave()
		g := b.group(ann.user, bob.user)
		b.settle()
		b.store(true)
		b.world.Register(bob.user, id.NewDevice(), 2)
		b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		synctest.Wait()
		mustBe(t, "closed", bob.closed, wirev1.Code_CODE_DEVICE_REVOKED)
		b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		if n := bob.count(g); n > 2 { // what came before the registration, and what overtook it on the other topic
			t.Errorf("a revoked device got %d events", n)
		}
	})
}

// With nobody to tell of the revocation, the views are asked.
func TestRevokedWhileDeaf(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob := b.person(1), b.person(2)
		b.settle()
		s := b.online(bob, 0)
		defer s.leave()
		defer b.online(ann, 0).leave()
		for n := range topic.Slot(replicatest.Slots) {
			b.cluster.Give(n, "", 0)
		}
		b.world.Revoke(bob.user, bob.id)
		b.settle()
		mustBe(t, "closed", bob.closed, wirev1.Code_CODE_DEVICE_REVOKED)
		mustBe(t, "the other", ann.closed, wirev1.Code_CODE_UNSPECIFIED)
		key, err := b.edges[0].DeviceKey(context.Background(), bob.user, bob.id)
		mustBe(t, "its key", err == nil && key.Revoked, true)
		_, err = bob.connect(b.edges[0], 10, 0, nil)
		mustBe(t, "its next connection", codeOfError(err), wirev1.Code_CODE_DEVICE_REVOKED)
	})
}

func TestRemovedMember(t *testing.T) {
	inBench(t, 2, func(t *testing.T, b *bench) {
		ann, bob := b.person(1), b.person(2)
		b.settle()
		defer b.online(ann, 0).leave()
		defer b.online(bob, 1).leave()
		g := b.group(ann.user, bob.user)
		b.settle()
		b.world.RemoveMember(g, ann.user, bob.user)
		at := b.world.Send(g, bob.user, bob.id, id.NewMessage(), id.UserID{})
		b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		mustBe(t, "events of who was removed", bob.count(g), 2) // creation and removal
		mustBe(t, "events of who was not", ann.count(g), 3)
		mustBe(t, "rejected", len(bob.rejected) == 1 && bob.rejected[0] == at, true)
		mustBe(t, "others' rejections", len(ann.rejected), 0)
		v, ok := b.edges[1].View(g)
		mustBe(
			t, "view", ok && !v.IsMember(bob.user) && v.WasMember(bob.user) && v.Role(ann.user) == thread.RoleAdmin,
			true,
		)
		for _, d := range []*phone{ann, bob} {
			mustBe(t, "lacks", d.lacks(b.world), "")
		}
	})
}

func TestReceiptsGoToThoseConcerned(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob, cem := b.person(1), b.person(2), b.person(3)
		second := newPhone(bob.user, id.NewDevice(), bob.floor)
		b.world.LinkDevice(bob.user, bob.id, second.id)
		b.settle()
		for _, d := range []*phone{ann, bob, cem, second} {
			defer b.online(d, 0).leave()
		}
		g := b.group(ann.user, bob.user, cem.user)
		mid := id.NewMessage()
		at := b.world.Send(g, ann.user, ann.id, mid, id.UserID{})
		b.settle()
		seen, ok := b.edges[0].Seen(g, thread.Key{Sender: ann.user, Message: mid})
		mustBe(t, "seen", ok && seen.Position == at && seen.Ordinal == 1, true)
		bob.acknowledge(b.world, g, true)
		b.settle()
		want := thread.Watermark{DeliveredPosition: at, DeliveredOrdinal: 1, ReadPosition: at, ReadOrdinal: 1}
		mustBe(t, "the sender", ann.mark(g, bob.user), want)
		mustBe(t, "the reader's other device", second.mark(g, bob.user), want)
		mustBe(t, "the reader's device", len(bob.receipts[g]), 0)
		mustBe(t, "who sent nothing", len(cem.receipts[g]), 0)
		mustBe(t, "watermark", b.edges[0].Watermark(g, bob.user), want)
		// The sender's other moment: away while it was read, back later.
		away := newPhone(ann.user, id.NewDevice(), ann.floor)
		b.world.LinkDevice(ann.user, ann.id, away.id)
		b.settle()
		defer b.online(away, 0).leave()
		b.settle()
		mustBe(t, "the sender who was away", away.mark(g, bob.user), want)
		// A device is told of each of its own in the log, also of one that an edge wrote late; of no other's.
		late := thread.Watermark{DeliveredPosition: at, DeliveredOrdinal: 1}
		b.world.Watermark(g, bob.user, bob.id, late)
		b.settle()
		both := []thread.Watermark{want, late}
		mustBe(t, "receipts of the device in the log", fmt.Sprint(bob.logged), fmt.Sprint(both))
		for _, d := range []*phone{ann, cem, second, away} {
			mustBe(t, "receipts of another's device", len(d.logged), 0)
		}
		mustBe(t, "watermark", b.edges[0].Watermark(g, bob.user), want)
	})
}

// Receipts that a session does not take make it sync anew, live and while it syncs, and the Sync makes up for them:
// also for those of the user's other device in a thread in which he has sent nothing.
func TestReceiptsThatDoNotFit(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob := b.person(1), b.person(2)
		second := newPhone(bob.user, id.NewDevice(), bob.floor)
		b.world.LinkDevice(bob.user, bob.id, second.id)
		b.settle()
		defer b.online(bob, 0).leave()
		as, ss := b.online(ann, 0), b.online(second, 0)
		defer as.leave()
		defer ss.leave()
		g := b.group(ann.user, bob.user)
		at := b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		for _, s := range []*testSession{as, ss} {
			s.mu.Lock()
			s.refuses = 2 // the live one, and that of the first Sync after it
			s.mu.Unlock()
		}
		bob.acknowledge(b.world, g, true)
		for range 5 {
			b.settle()
		}
		want := thread.Watermark{DeliveredPosition: at, DeliveredOrdinal: 1, ReadPosition: at, ReadOrdinal: 1}
		mustBe(t, "the sender", ann.mark(g, bob.user), want)
		mustBe(t, "the reader's other device", second.mark(g, bob.user), want)
		mustBe(t, "resyncs of the sender", ann.resyncs, 2)
		mustBe(t, "resyncs of the other device", second.resyncs, 2)
		mustBe(t, "lacks", ann.lacks(b.world)+second.lacks(b.world), "")
	})
}

// What only a newer version can apply stops its subject here too; what may be passed over does not.
func TestNewerVersionStopsOneSubject(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann := b.person(1)
		b.settle()
		defer b.online(ann, 0).leave()
		newer, ignorable := b.group(ann.user), b.group(ann.user)
		b.settle()
		left := eventv1.Event_builder{
			UserId: ann.user[:], MemberLeft: &eventv1.MemberLeft{}, MinReader: event.Reader + 1,
		}
		b.world.Add(topic.Threads, newer[:], left.Build())
		left.Ignorable = true
		b.world.Add(topic.Threads, ignorable[:], left.Build())
		for _, g := range []id.ThreadID{newer, ignorable} {
			b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		}
		b.settle()
		mustBe(t, "of the newer version", ann.count(newer), 1)
		mustBe(t, "that may be passed over", ann.count(ignorable), 2)
		for g, want := range map[id.ThreadID]bool{newer: true, ignorable: false} {
			v, ok := b.edges[0].View(g)
			mustBe(t, "view", ok, true)
			mustBe(t, "in quarantine", v.Quarantined, want)
			mustBe(t, "still a member", v.IsMember(ann.user), true)
		}
	})
}

func TestQuarantineStopsOneSubject(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann := b.person(1)
		b.settle()
		defer b.online(ann, 0).leave()
		bad, good := b.group(ann.user), b.group(ann.user)
		b.settle()
		b.world.AddRaw(topic.Threads, bad[:], []byte{0xff})
		for _, g := range []id.ThreadID{bad, good} {
			b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		}
		b.settle()
		mustBe(t, "in quarantine", ann.count(bad), 1)
		mustBe(t, "the other", ann.count(good), 2)
		for g, want := range map[id.ThreadID]bool{bad: true, good: false} {
			v, ok := b.edges[0].View(g)
			mustBe(t, "view", ok, true)
			mustBe(t, "in quarantine", v.Quarantined, want)
			mustBe(t, "still a member", v.IsMember(ann.user), true)
		}
	})
}

func TestInterestEnds(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann := b.person(1)
		b.settle()
		s := b.online(ann, 0)
		g := b.group(ann.user)
		b.settle()
		s.leave()
		b.settle()
		_, ok := b.edges[0].View(g)
		mustBe(t, "view right after", ok, true)
		time.Sleep(3 * testConfig().replica.Linger)
		_, ok = b.edges[0].View(g)
		mustBe(t, "view", ok, false)
		for _, name := range []string{"threads", "users", "subjects_pending"} {
			mustBe(t, name, b.edges[0].gauge(t, "helio_replica_"+name), 0.0)
		}
		mustBe(t, "subscriptions", b.cluster.Subscriptions(), 0)
		// And it comes back.
		if err := b.edges[0].EnsureThread(context.Background(), g); err != nil {
			t.Fatal(err)
		}
		v, ok := b.edges[0].View(g)
		mustBe(t, "view again", ok && v.IsMember(ann.user), true)
	})
}

// What is held for a session that cannot catch up has an age.
func TestHeldForASessionShows(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob := b.person(1), b.person(2)
		b.settle()
		defer b.online(ann, 0).leave()
		defer b.online(bob, 0).leave()
		g := b.group(ann.user)
		b.settle()
		b.world.Mu.Lock()
		b.world.Views.Stopped = true
		b.world.Mu.Unlock()
		b.world.AddMember(g, ann.user, bob.user) // before the list says so: he misses it
		b.settle()
		b.world.Join(g, -1, bob.user)
		b.settle()
		for range 3 { // of which the second begins when the catch-up has given up for the first time
			got := b.edges[0].Fanout.OldestUndelivered()
			b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
			b.settle()
			if more := b.edges[0].Fanout.OldestUndelivered() - got; got < time.Second/2 || more != time.Second {
				t.Errorf("he has been behind for %v, and a second later for %v more", got, more)
			}
		}
		b.world.Mu.Lock()
		b.world.Views.Stopped = false
		b.world.Mu.Unlock()
		time.Sleep(10 * time.Second)
		b.settle()
		mustBe(t, "after", b.edges[0].Fanout.OldestUndelivered(), time.Duration(0))
	})
}

// A subject that waits for its snapshot shows, by its age.
func TestPendingShows(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		b.settle()
		mustBe(t, "before", b.edges[0].OldestPending(), time.Duration(0))
		store := func(down bool) {
			b.world.Mu.Lock()
			defer b.world.Mu.Unlock()
			b.world.Views.Stopped, b.world.Views.Down = down, down
		}
		store(true)
		const unavailable = wirev1.Code_CODE_UNAVAILABLE // after Wait
		begun := time.Now()
		mustBe(t, "ensure", codeOfError(b.edges[0].EnsureThread(context.Background(), id.NewGroup())), unavailable)
		waited := time.Since(begun)
		got := b.edges[0].OldestPending()
		mustBe(t, "it has waited", got > 0 && got <= waited, true)
		store(false)
		b.settle()
		mustBe(t, "after", b.edges[0].OldestPending(), time.Duration(0))
	})
}

func TestReady(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		b.settle()
		if err := b.edges[0].Ready(context.Background()); err != nil {
			t.Error(err)
		}
		_, ok := b.edges[0].Cursor(3)
		mustBe(t, "cursor", ok, true)
		b.cluster.Give(3, "", 0)
		synctest.Wait()
		if err := b.edges[0].Ready(context.Background()); err == nil {
			t.Error("ready without an owner of slot 3")
		}
		mustBe(t, "orphans", b.edges[0].WithoutOwner(), 1)
		mustBe(t, "before the silence", b.edges[0].CursorLag() < 10*time.Second, true)
		time.Sleep(10 * time.Second)
		mustBe(t, "silence", b.edges[0].CursorLag() >= 10*time.Second, true)
	})
}

// glance is a thread as a user sees it at an edge.
func (e *edge) glance(t *testing.T, u id.UserID, g id.ThreadID) *replica.Glance {
	t.Helper()
	p := &person{of: e.Fanout, user: u}
	e.Follow(p)
	defer e.Unfollow(p)
	_, now, err := e.Enter(t.Context(), p, g)
	if err != nil || now == nil {
		t.Fatalf("%v, %v", now, err)
	}
	return now
}

// The preview of a list is a message: it is not shown to a member who came after it, nor on a device that did.
func TestPreviewIsOfTheMembersTime(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob, eve := b.person(1), b.person(2), b.person(3)
		b.settle()
		defer b.online(ann, 0).leave()
		g := b.group(ann.user, bob.user)
		b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		b.world.AddMember(g, ann.user, eve.user)
		b.settle()
		last := b.edges[0].glance(t, bob.user, g).LastTimeMS
		for _, c := range []struct {
			who     string
			user    id.UserID
			floorMS int64
			shown   bool
		}{
			{"an old member", bob.user, 0, true},
			{"a new member", eve.user, 0, false},
			{"a new device of an old member", bob.user, last + 1, false},
			{"an older one", bob.user, last, true},
		} {
			sum := summary(b.edges[0].glance(t, c.user, g), replica.Counted{}, user.Floor{MS: c.floorMS})
			mustBe(t, c.who, sum.GetPreview() != "" && len(sum.GetLastSender()) > 0, c.shown)
		}
	})
}

// weighed counts what the fanout holds for it.
type weighed struct {
	Session
	held, room int
}

func (w *weighed) Hold(n int)        { w.held += n }
func (w *weighed) Room(most int) int { return min(most, w.room) }

// What is held back for a device that catches up is bounded in bytes, by its own bound and by what memory is free, and
// counted until it is sent or dropped.
func TestHeldBackIsBoundedInBytes(t *testing.T) {
	for _, c := range []struct{ room, want int }{{1 << 30, 4 << 20}, {1 << 20, 1 << 20}, {0, 60 << 10}} {
		w := &weighed{room: c.room}
		d := &device{sess: w, state: syncing}
		most := 0
		for i := range 100 { // 60 KiB each, and far fewer than the bound in events
			d.hold(push{id.ThreadID{1}, topic.Position(i), make([]byte, 60<<10), false}, defaultBounds())
			most = max(most, w.held)
		}
		if !d.over || w.held != 0 || most > max(c.want, 60<<10) || most < c.want/2 {
			t.Errorf("with room for %d: over %v, %d bytes held, at most %d, want %d",
				c.room, d.over, w.held, most, c.want)
		}
	}
	w := &weighed{room: 1 << 30}
	d := &device{sess: w, targets: map[id.ThreadID]topic.Position{{1}: 4}}
	for i := range 10 {
		d.hold(push{id.ThreadID{1}, topic.Position(i), make([]byte, 100), false}, defaultBounds())
	}
	list, kept := d.takePending(nil) // half of it is superfluous
	mustBe(t, "to be sent", len(list), 5)
	mustBe(t, "counted meanwhile", w.held, 500)
	d.reset(off)
	mustBe(t, "counted after a reset", w.held, 500)
	_ = d.sendAll(list, kept, func([]byte) error { return errLapsed })
	mustBe(t, "counted at the end", w.held, 0)
}

// lagger is a session that counts how often it is told that its device lags.
type lagger struct {
	Session
	told int
}

func (l *lagger) Lagged() { l.told++ }

// What a device that lags loses is counted by its reason, and the device is told; one that has gone loses nothing.
func TestWhatALaggingDeviceLosesIsCounted(t *testing.T) {
	f := &Fanout{}
	f.metrics = newMetrics(nil, f)
	l := &lagger{}
	d := &device{sess: l, state: open}
	f.lag(d, "outbox_full")
	d.state = closed
	f.lag(d, "outbox_full")
	var m dto.Metric
	if err := f.metrics.drops.WithLabelValues("outbox_full").Write(&m); err != nil {
		t.Fatal(err)
	}
	mustBe(t, "counted", int(m.GetCounter().GetValue()), 1)
	mustBe(t, "told", l.told, 1)
}

// The preview of a list ends between two characters, though the state's is cut anywhere.
func TestPreviewIsCutForPeople(t *testing.T) {
	const family = "👨‍👩‍👧‍👦" // 25 bytes
	u := id.UserID{1}
	g := &replica.Glance{User: u, LastOrdinal: 1, Preview: strings.Repeat(family, 9)[:thread.MaxPreview]}
	g.Member.Spans = []thread.Span{{From: 0}}
	mustBe(t, "preview", summary(g, replica.Counted{}, user.Floor{}).GetPreview(), strings.Repeat(family, 6))
}

// What a group becomes after his time is not a former member's to know: not its title, nor how many are in it, nor when
// they write.
func TestSummaryOfAFormerMember(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob := b.person(1), b.person(2)
		b.settle()
		defer b.online(ann, 0).leave()
		g := b.group(ann.user, bob.user)
		b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		shown := func() *wirev1.ThreadSummary {
			return summary(b.edges[0].glance(t, bob.user, g), replica.Counted{}, user.Floor{})
		}
		before := shown()
		b.world.RemoveMember(g, ann.user, bob.user)
		b.settle()
		at := shown()
		mustBe(t, "title at the end", at.GetTitle(), before.GetTitle())
		mustBe(t, "time at the end", at.GetLastTimeMs(), before.GetLastTimeMs())
		mustBe(t, "count at the end", at.GetMemberCount(), uint32(0))
		b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		later := shown()
		mustBe(t, "title later", later.GetTitle(), "")
		mustBe(t, "time later", later.GetLastTimeMs(), int64(0))
		mustBe(t, "count later", later.GetMemberCount(), uint32(0))
		mustBe(t, "position later", later.GetLastPosition(), at.GetLastPosition())
	})
}

// TestBackground: a device's session in the background gets what that of its foreground gets; each is superseded by its
// like.
func TestBackground(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob := b.person(1), b.person(2)
		b.settle()
		back := newPhone(ann.user, ann.id, ann.floor)
		back.background = true
		front := b.online(ann, 0)
		defer front.leave()
		defer b.online(back, 0).leave()
		g := b.group(bob.user, ann.user)
		b.world.Send(g, bob.user, bob.id, id.NewMessage(), id.UserID{})
		b.settle()
		for name, d := range map[string]*phone{"foreground": ann, "background": back} {
			mustBe(t, name, d.count(g), 2)
			mustBe(t, name, d.closed, wirev1.Code_CODE_UNSPECIFIED)
		}
		newer := newPhone(ann.user, ann.id, ann.floor)
		newer.background = true
		defer b.online(newer, 0).leave()
		mustBe(t, "older one in the background", back.closed, wirev1.Code_CODE_SUPERSEDED)
		mustBe(t, "foreground", ann.closed, wirev1.Code_CODE_UNSPECIFIED)
		b.world.Send(g, bob.user, bob.id, id.NewMessage(), id.UserID{})
		b.settle()
		mustBe(t, "foreground", ann.count(g), 3)
	})
}
