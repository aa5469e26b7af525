package hub

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
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
func (b *bench) person(n byte) *device {
	u, d := userID(n), id.NewDevice()
	return newDevice(u, d, b.world.register(u, d, 1))
}

// online connects a device to an edge until the test ends.
func (b *bench) online(d *device, edge int) *testSession {
	b.t.Helper()
	s, err := d.connect(b.hubs[edge], 1000, 0, rand.New(rand.NewPCG(1, 1)))
	if err != nil {
		b.t.Fatalf("connect: %v", err)
	}
	return s
}

// group makes a group as an edge does.
func (b *bench) group(by id.UserID, others ...id.UserID) id.ThreadID {
	t := id.NewGroup()
	b.world.join(t, b.world.next(t), append([]id.UserID{by}, others...)...)
	b.world.create(t, by, others...)
	return t
}

// settle lets everything happen that is going to; what the devices hold may be read after it.
func (b *bench) settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

func (d *device) count(t id.ThreadID) int {
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
			b.world.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		}
		// A thread that begins now is live on both edges too.
		direct := id.DirectThread(ann.user, bob.user)
		b.world.join(direct, b.world.next(direct), ann.user, bob.user)
		b.world.send(direct, bob.user, bob.id, id.NewMessage(), ann.user)
		b.settle()
		for _, d := range []*device{ann, bob} {
			if f := d.lacks(b.world); f != "" {
				t.Errorf("device of %v: %s", d.user, f)
			}
			mustBe(t, "group", d.count(g), 6)
			mustBe(t, "direct", d.count(direct), 1)
			mustBe(t, "told of the direct thread", d.changed[direct] > 0, true)
		}
		v, ok := b.hubs[1].View(direct)
		mustBe(
			t, "view",
			ok && v.Kind == thread.Direct && v.IsMember(ann.user) && v.IsMember(bob.user) && v.ActiveMembers == 2, true,
		)
		// Who was not there cannot be served, and is told so.
		_, err := b.person(3).connect(b.hubs[0], 10, 0, nil)
		mustBe(t, "attach", codeOfError(err), wirev1.Code_CODE_UNAVAILABLE)
		mustBe(
			t, "ensure", codeOfError(b.hubs[0].EnsureThread(context.Background(), id.NewGroup())),
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
			b.world.mu.Lock()
			b.world.views.stopped, b.world.views.down = true, down
			b.world.mu.Unlock()
			b.world.addMember(g, ann.user, bob.user) // before the list says so: he misses it
			b.settle()
			b.world.join(g, -1, bob.user)
			b.settle()
			for range 20 {
				b.world.send(old, ann.user, ann.id, id.NewMessage(), id.UserID{})
				b.world.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
				b.settle()
			}
			mustBe(t, "the other thread", bob.count(old), 21)
			mustBe(t, "the new thread", bob.count(g), 0)
			b.world.mu.Lock()
			b.world.views.stopped, b.world.views.down = false, false
			b.world.mu.Unlock()
			time.Sleep(10 * time.Second)
			b.settle()
			mustBe(t, "lacks", bob.lacks(b.world), "")
			mustBe(t, "resyncs", bob.resyncs, 0)
		})
	}
}

func TestAttach(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann := b.person(1)
		// The registration is in the log and not yet in the views: the stream brings it.
		b.world.mu.Lock()
		b.world.views.stopped = true
		b.world.mu.Unlock()
		s := b.online(ann, 0)
		mustBe(t, "the device's first moment", b.hubs[0].client(s).floor.Load(), ann.floor)
		key, err := b.hubs[0].DeviceKey(context.Background(), ann.user, ann.id)
		mustBe(t, "live key", err == nil && !key.Revoked && key.Primary, true)
		b.world.mu.Lock()
		b.world.views.stopped = false
		b.world.mu.Unlock()

		stranger := newDevice(ann.user, id.NewDevice(), 0)
		_, err = stranger.connect(b.hubs[0], 10, 0, nil)
		mustBe(t, "unknown device", codeOfError(err), wirev1.Code_CODE_UNAVAILABLE)
		_, err = b.hubs[0].DeviceKey(context.Background(), userID(9), id.NewDevice())
		mustBe(t, "unknown key", codeOfError(err), wirev1.Code_CODE_AUTHENTICATION_FAILED)

		again := b.online(ann, 0)
		b.settle()
		mustBe(t, "older session", ann.closed, wirev1.Code_CODE_SUPERSEDED)
		s.hub.Detach(s)
		s.wg.Wait()
		ann.closed = 0
		defer again.leave()

		bob := b.person(2)
		b.settle()
		key, err = b.hubs[0].DeviceKey(context.Background(), bob.user, bob.id)
		mustBe(t, "stored key", err == nil && !key.Revoked, true)
		b.world.revoke(bob.user, bob.id)
		b.settle()
		_, err = bob.connect(b.hubs[0], 10, 0, nil)
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
		b.world.register(bob.user, id.NewDevice(), 2)
		b.world.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		synctest.Wait()
		mustBe(t, "closed", bob.closed, wirev1.Code_CODE_DEVICE_REVOKED)
		b.world.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
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
		for n := range topic.Slot(testSlots) {
			b.cluster.give(n, "", 0)
		}
		b.world.revoke(bob.user, bob.id)
		b.settle()
		mustBe(t, "closed", bob.closed, wirev1.Code_CODE_DEVICE_REVOKED)
		mustBe(t, "the other", ann.closed, wirev1.Code_CODE_UNSPECIFIED)
		key, err := b.hubs[0].DeviceKey(context.Background(), bob.user, bob.id)
		mustBe(t, "its key", err == nil && key.Revoked, true)
		_, err = bob.connect(b.hubs[0], 10, 0, nil)
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
		b.world.removeMember(g, ann.user, bob.user)
		at := b.world.send(g, bob.user, bob.id, id.NewMessage(), id.UserID{})
		b.world.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		mustBe(t, "events of who was removed", bob.count(g), 2) // creation and removal
		mustBe(t, "events of who was not", ann.count(g), 3)
		mustBe(t, "rejected", len(bob.rejected) == 1 && bob.rejected[0] == at, true)
		mustBe(t, "others' rejections", len(ann.rejected), 0)
		v, ok := b.hubs[1].View(g)
		mustBe(
			t, "view", ok && !v.IsMember(bob.user) && v.WasMember(bob.user) && v.Role(ann.user) == thread.RoleAdmin,
			true,
		)
		for _, d := range []*device{ann, bob} {
			mustBe(t, "lacks", d.lacks(b.world), "")
		}
	})
}

func TestReceiptsGoToThoseConcerned(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob, cem := b.person(1), b.person(2), b.person(3)
		second := newDevice(bob.user, id.NewDevice(), bob.floor)
		b.world.linkDevice(bob.user, bob.id, second.id)
		b.settle()
		for _, d := range []*device{ann, bob, cem, second} {
			defer b.online(d, 0).leave()
		}
		g := b.group(ann.user, bob.user, cem.user)
		mid := id.NewMessage()
		at := b.world.send(g, ann.user, ann.id, mid, id.UserID{})
		b.settle()
		seen, ok := b.hubs[0].Seen(g, thread.Key{Sender: ann.user, Message: mid})
		mustBe(t, "seen", ok && seen.Position == at && seen.Ordinal == 1, true)
		bob.acknowledge(b.world, g, true)
		b.settle()
		want := thread.Watermark{DeliveredPosition: at, DeliveredOrdinal: 1, ReadPosition: at, ReadOrdinal: 1}
		mustBe(t, "the sender", ann.receipts[g][bob.user], want)
		mustBe(t, "the reader's other device", second.receipts[g][bob.user], want)
		mustBe(t, "the reader's device", len(bob.receipts[g]), 0)
		mustBe(t, "who sent nothing", len(cem.receipts[g]), 0)
		mustBe(t, "watermark", b.hubs[0].Watermark(g, bob.user), want)
		// The sender's other moment: away while it was read, back later.
		away := newDevice(ann.user, id.NewDevice(), ann.floor)
		b.world.linkDevice(ann.user, ann.id, away.id)
		b.settle()
		defer b.online(away, 0).leave()
		b.settle()
		mustBe(t, "the sender who was away", away.receipts[g][bob.user], want)
	})
}

// Receipts that a session does not take make it sync anew, live and while it syncs, and the Sync makes up for them:
// also for those of the user's other device in a thread in which he has sent nothing.
func TestReceiptsThatDoNotFit(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob := b.person(1), b.person(2)
		second := newDevice(bob.user, id.NewDevice(), bob.floor)
		b.world.linkDevice(bob.user, bob.id, second.id)
		b.settle()
		defer b.online(bob, 0).leave()
		as, ss := b.online(ann, 0), b.online(second, 0)
		defer as.leave()
		defer ss.leave()
		g := b.group(ann.user, bob.user)
		at := b.world.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
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
		mustBe(t, "the sender", ann.receipts[g][bob.user], want)
		mustBe(t, "the reader's other device", second.receipts[g][bob.user], want)
		mustBe(t, "resyncs of the sender", ann.resyncs, 2)
		mustBe(t, "resyncs of the other device", second.resyncs, 2)
		mustBe(t, "lacks", ann.lacks(b.world)+second.lacks(b.world), "")
	})
}

func TestPoisonStopsOneSubject(t *testing.T) { poisonStopsOneSubject(t, false) }

// What only a newer version can apply stops its subject here too; what may be passed over does not.
func TestNewerVersionStopsOneSubject(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann := b.person(1)
		b.settle()
		defer b.online(ann, 0).leave()
		newer, ignorable := b.group(ann.user), b.group(ann.user)
		b.settle()
		left := eventv1.Event_builder{UserId: ann.user[:], MemberLeft: &eventv1.MemberLeft{}, MinReader: event.Reader + 1}
		b.world.add(topic.Threads, newer[:], left.Build())
		left.Ignorable = true
		b.world.add(topic.Threads, ignorable[:], left.Build())
		for _, g := range []id.ThreadID{newer, ignorable} {
			b.world.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		}
		b.settle()
		mustBe(t, "of the newer version", ann.count(newer), 1)
		mustBe(t, "that may be passed over", ann.count(ignorable), 2)
		for g, want := range map[id.ThreadID]bool{newer: true, ignorable: false} {
			v, ok := b.hubs[0].View(g)
			mustBe(t, "view", ok, true)
			mustBe(t, "parked", v.Parked, want)
			mustBe(t, "still a member", v.IsMember(ann.user), true)
		}
	})
}

func TestBrokenFoldStopsItsSubject(t *testing.T) { poisonStopsOneSubject(t, true) }

func poisonStopsOneSubject(t *testing.T, broken bool) {
	t.Helper()
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann := b.person(1)
		b.settle()
		defer b.online(ann, 0).leave()
		bad, good := b.group(ann.user), b.group(ann.user)
		b.settle()
		if broken {
			s := b.hubs[0].slotOf(topic.Subject(bad))
			s.mu.Lock()
			s.threads[bad].state.Recent = nil // the fold panics when it notes a message, half way through it
			s.mu.Unlock()
			b.world.send(bad, ann.user, ann.id, id.NewMessage(), id.UserID{})
		} else {
			b.world.addRaw(topic.Threads, bad[:], []byte{0xff})
		}
		b.world.send(bad, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.world.send(good, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		mustBe(t, "poisoned", ann.count(bad), 1)
		mustBe(t, "the other", ann.count(good), 2)
		for g, want := range map[id.ThreadID]bool{bad: true, good: false} {
			v, ok := b.hubs[0].View(g)
			mustBe(t, "view", ok, true)
			mustBe(t, "parked", v.Parked, want)
			mustBe(t, "still a member", v.IsMember(ann.user), true)
		}
	})
}

// TestViewTellsHowFarItIsRead: a view reaches as far as its slot was read, whatever thread the last event was of, and
// no further while it is loaded anew.
func TestViewTellsHowFarItIsRead(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann := b.person(1)
		b.settle()
		defer b.online(ann, 0).leave()
		var groups []id.ThreadID
		for len(groups) < 2 {
			if g := b.group(ann.user); len(groups) == 0 ||
				b.world.slot(topic.Subject(g)) == b.world.slot(topic.Subject(groups[0])) {
				groups = append(groups, g)
			}
		}
		b.settle()
		last := b.world.send(groups[1], ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		h := b.hubs[0]
		v, _ := h.View(groups[0])
		mustBe(t, "read up to the other's last event", v.Next, last+1)
		mustBe(t, "which is not its own", v.LastPosition < last, true)
		s := h.slotOf(topic.Subject(groups[0]))
		s.mu.Lock()
		s.threads[groups[0]].phase = loading
		s.mu.Unlock()
		v, _ = h.View(groups[0])
		mustBe(t, "only its own events count while it is loaded anew", v.Next, v.LastPosition+1)
		s.mu.Lock()
		s.threads[groups[0]].phase = live
		s.mu.Unlock()
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
		_, ok := b.hubs[0].View(g)
		mustBe(t, "view right after", ok, true)
		time.Sleep(3 * testConfig().Linger)
		_, ok = b.hubs[0].View(g)
		mustBe(t, "view", ok, false)
		got := b.hubs[0].sample()
		mustBe(t, "subjects", got.threads+got.users+got.waiting, 0)
		b.cluster.mu.Lock()
		left := 0
		for _, in := range b.cluster.instances {
			for l := range in.links {
				for _, of := range l.subs {
					left += len(of)
				}
			}
		}
		b.cluster.mu.Unlock()
		mustBe(t, "subscriptions", left, 0)
		// And it comes back.
		if err := b.hubs[0].EnsureThread(context.Background(), g); err != nil {
			t.Fatal(err)
		}
		v, ok := b.hubs[0].View(g)
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
		b.world.mu.Lock()
		b.world.views.stopped = true
		b.world.mu.Unlock()
		b.world.addMember(g, ann.user, bob.user) // before the list says so: he misses it
		b.settle()
		b.world.join(g, -1, bob.user)
		b.settle()
		mustBe(t, "before", b.hubs[0].OldestUndelivered(), time.Duration(0))
		b.world.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		if got := b.hubs[0].OldestUndelivered(); got < time.Second/2 || got > time.Second {
			t.Errorf("the event that is held has waited for %v", got)
		}
		b.world.mu.Lock()
		b.world.views.stopped = false
		b.world.mu.Unlock()
		time.Sleep(10 * time.Second)
		b.settle()
		mustBe(t, "after", b.hubs[0].OldestUndelivered(), time.Duration(0))
	})
}

// A subject that waits for its snapshot shows, by its age.
func TestPendingShows(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		b.settle()
		mustBe(t, "before", b.hubs[0].OldestPending(), time.Duration(0))
		store := func(down bool) {
			b.world.mu.Lock()
			defer b.world.mu.Unlock()
			b.world.views.stopped, b.world.views.down = down, down
		}
		store(true)
		const unavailable = wirev1.Code_CODE_UNAVAILABLE // after Wait
		begun := time.Now()
		mustBe(t, "ensure", codeOfError(b.hubs[0].EnsureThread(context.Background(), id.NewGroup())), unavailable)
		waited := time.Since(begun)
		got := b.hubs[0].OldestPending()
		mustBe(t, "it has waited", got > 0 && got <= waited, true)
		store(false)
		b.settle()
		mustBe(t, "after", b.hubs[0].OldestPending(), time.Duration(0))
	})
}

func TestReady(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		b.settle()
		if err := b.hubs[0].Ready(context.Background()); err != nil {
			t.Error(err)
		}
		_, ok := b.hubs[0].Cursor(3)
		mustBe(t, "cursor", ok, true)
		b.cluster.give(3, "", 0)
		synctest.Wait()
		if err := b.hubs[0].Ready(context.Background()); err == nil {
			t.Error("ready without an owner of slot 3")
		}
		mustBe(t, "orphans", b.hubs[0].WithoutOwner(), 1)
		mustBe(t, "before the silence", b.hubs[0].CursorLag() < 10*time.Second, true)
		time.Sleep(10 * time.Second)
		mustBe(t, "silence", b.hubs[0].CursorLag() >= 10*time.Second, true)
	})
}

func TestConfig(t *testing.T) {
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("zero: %v", err)
	}
	err := Config{Partitions: -1, Batch: -1, Linger: -1, RetryMin: time.Hour}.Validate()
	if err == nil || len(err.(interface{ Unwrap() []error }).Unwrap()) != 4 {
		t.Errorf("got %v, want four faults", err)
	}
}

var _ store = (*memStore)(nil)

// The preview of a list is a message: it is not shown to a member who came after it, nor on a device that did.
func TestPreviewIsOfTheMembersTime(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob, eve := b.person(1), b.person(2), b.person(3)
		b.settle()
		defer b.online(ann, 0).leave()
		g := b.group(ann.user, bob.user)
		b.world.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		b.world.addMember(g, ann.user, eve.user)
		b.settle()
		s := b.hubs[0].slotOf(topic.Subject(g))
		s.mu.Lock()
		defer s.mu.Unlock()
		ts := s.threads[g]
		for _, c := range []struct {
			who     string
			user    id.UserID
			floorMS int64
			shown   bool
		}{
			{"an old member", bob.user, 0, true},
			{"a new member", eve.user, 0, false},
			{"a new device of an old member", bob.user, ts.state.LastTimeMS + 1, false},
			{"an older one", bob.user, ts.state.LastTimeMS, true},
		} {
			sum := ts.summary(c.user, c.floorMS)
			mustBe(t, c.who, sum.GetPreview() != "" && len(sum.GetLastSender()) > 0, c.shown)
		}
	})
}

// What a group becomes after his time is not a former member's to know: not its title, nor how many are in it, nor when
// they write.
func TestSummaryOfAFormerMember(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		ann, bob := b.person(1), b.person(2)
		b.settle()
		defer b.online(ann, 0).leave()
		g := b.group(ann.user, bob.user)
		b.world.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		shown := func() *wirev1.ThreadSummary {
			s := b.hubs[0].slotOf(topic.Subject(g))
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.threads[g].summary(bob.user, 0)
		}
		before := shown()
		b.world.removeMember(g, ann.user, bob.user)
		b.settle()
		at := shown()
		mustBe(t, "title at the end", at.GetTitle(), before.GetTitle())
		mustBe(t, "time at the end", at.GetLastTimeMs(), before.GetLastTimeMs())
		mustBe(t, "count at the end", at.GetMemberCount(), uint32(0))
		b.world.send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
		b.settle()
		later := shown()
		mustBe(t, "title later", later.GetTitle(), "")
		mustBe(t, "time later", later.GetLastTimeMs(), int64(0))
		mustBe(t, "count later", later.GetMemberCount(), uint32(0))
		mustBe(t, "position later", later.GetLastPosition(), at.GetLastPosition())
	})
}

// WaitFor returns with the Progress that passes the position, and not before.
func TestWaitFor(t *testing.T) {
	inBench(t, 1, func(t *testing.T, b *bench) {
		b.settle()
		h := b.hubs[0]
		s := h.slots[3]
		s.mu.Lock()
		at := s.cursor.At(topic.Users)
		s.mu.Unlock()
		done := make(chan error, 2)
		for range cap(done) {
			go func() { done <- h.WaitFor(t.Context(), 3, topic.Users, at) }()
		}
		pass := func(p topic.Position) {
			s.mu.Lock()
			next := s.cursor
			next.Raise(topic.Users, p)
			s.progress(next)
			s.mu.Unlock()
			synctest.Wait()
		}
		synctest.Wait()
		pass(at)
		mustBe(t, "returned before the position was passed", len(done), 0)
		pass(at + 1)
		for range cap(done) {
			mustBe(t, "passed", <-done, nil)
		}
		mustBe(t, "long passed", h.WaitFor(t.Context(), 3, topic.Users, at), nil)

		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- h.WaitFor(ctx, 3, topic.Users, at+100) }()
		synctest.Wait()
		cancel()
		mustBe(t, "given up", errors.Is(<-done, context.Canceled), true)
		mustBe(t, "a slot that is none", h.WaitFor(t.Context(), -1, topic.Users, 0) != nil, true)
	})
}
