package replica_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"heliograph/edge/replica"
	"heliograph/edge/replica/replicatest"
	"heliograph/infra/budget"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// bench is a world with one replica, to be used inside a bubble.
type bench struct {
	t       *testing.T
	world   *replicatest.World
	cluster *replicatest.Cluster
	replica *replica.Replica
	log     journal
}

func inBench(t *testing.T, cfg replica.Config, fn func(t *testing.T, b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, world: replicatest.NewWorld(1)}
		b.cluster = replicatest.NewCluster(b.world, "a")
		for s := range topic.Slot(replicatest.Slots) {
			b.cluster.Give(s, "a", 0)
		}
		if cfg.Partitions == 0 {
			cfg.Partitions = replicatest.Slots
		}
		cfg.Log = b.world
		if cfg.Budget == nil {
			cfg.Budget = budget.New(1<<30, nil)
		}
		log := slog.New(slog.NewTextHandler(&b.log, nil))
		r, err := replica.New(cfg, &b.world.Views, b.cluster, b.cluster, log, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.replica = r
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() { b.cluster.Run(ctx) })
		wg.Go(func() { // the projector
			for tick := time.NewTicker(10 * time.Millisecond); ; {
				select {
				case <-tick.C:
					b.world.Views.Fold(100)
				case <-ctx.Done():
					tick.Stop()
					return
				}
			}
		})
		wg.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		fn(t, b)
		synctest.Wait()
		if waiting, kept := r.Memory(); cfg.Budget.Used() != waiting || cfg.Budget.Kept() != kept {
			t.Errorf("%d bytes wait and %d are kept, the budget has %d and %d",
				waiting, kept, cfg.Budget.Used(), cfg.Budget.Kept())
		}
	})
}

// settle lets everything happen that is going to.
func (b *bench) settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// journal is a log that is read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// ear is a follower that writes down what it hears.
type ear struct {
	user    id.UserID
	replica *replica.Replica
	hold    chan struct{} // each event waits for it, unless nil

	mu     sync.Mutex // guards what follows
	heard  []topic.Position
	views  []replica.View // as the replica showed the thread meanwhile
	joined int
	missed []topic.Position
	late   []error
	marks  []replica.Mark
	// invitations are as they were told
	invitations []replica.Invitation
}

func (e *ear) User() id.UserID { return e.user }

func (e *ear) Event(ev *replica.Event, now *replica.Glance) {
	if e.hold != nil {
		<-e.hold
	}
	e.replica.Follow(e) // a follower may call the replica, of which no lock is held
	v, _ := e.replica.View(ev.Thread)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard, e.views = append(e.heard, ev.Position), append(e.views, v)
	if now != nil {
		e.joined++
	}
}

// last is the last position that it heard; -1 before the first.
func (e *ear) last() topic.Position {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.heard) == 0 {
		return -1
	}
	return e.heard[len(e.heard)-1]
}

func (e *ear) Missed(_ id.ThreadID, _, upTo topic.Position) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.missed = append(e.missed, upTo)
}

func (e *ear) GoesOn(id.ThreadID) {}

func (e *ear) Late(_ id.ThreadID, why error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.late = append(e.late, why)
}

func (e *ear) Receipt(r *replica.Receipt) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.marks = append(e.marks, r.Marks...)
}

func (e *ear) Invited(i *replica.Invitation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.invitations = append(e.invitations, *i)
}

func (e *ear) Rejected(*replica.Rejected) {}
func (e *ear) Revoked(id.DeviceID)        {}

// follower is a user with one device whom the replica follows.
func (b *bench) follower(n byte) (*ear, id.DeviceID) {
	d := id.NewDevice()
	e := &ear{user: replicatest.User(n), replica: b.replica}
	b.world.Register(e.user, d, 1)
	b.settle()
	b.replica.Follow(e)
	b.settle()
	return e, d
}

// group makes a group as an edge does.
func (b *bench) group(by id.UserID, others ...id.UserID) id.ThreadID {
	t := id.NewGroup()
	b.world.Join(t, b.world.Next(t), append([]id.UserID{by}, others...)...)
	b.world.Create(t, by, others...)
	return t
}

// inSlot makes a group in a slot.
func (b *bench) inSlot(n topic.Slot, by id.UserID) id.ThreadID {
	for {
		if t := id.NewGroup(); b.world.Slot(topic.Subject(t)) == n {
			b.world.Join(t, b.world.Next(t), by)
			b.world.Create(t, by)
			return t
		}
	}
}

// Followers are told of each event once and in order, with no lock of the replica held, and of what they were not told
// before what comes after it.
func TestFollowersAreTold(t *testing.T) {
	inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
		ann, d := b.follower(1)
		g := b.group(ann.user)
		b.settle()
		var want []topic.Position
		for range 5 {
			want = append(want, b.world.Send(g, ann.user, d, id.NewMessage(), id.UserID{}))
		}
		b.settle()
		mustBe(t, "told of the thread's beginning as a new member", ann.joined, 1)
		mustBe(t, "events", len(ann.heard), 6)
		mustBe(t, "listed", b.replica.Listed(ann.user, g), true)
		mustBe(t, "another's listed", b.replica.Listed(replicatest.User(9), g), false)
		mustBe(t, "another listed", b.replica.Listed(ann.user, id.NewGroup()), false)
		for i, at := range want {
			mustBe(t, "event", ann.heard[i+1], at)
			if ann.views[i+1].Next <= at {
				t.Errorf("told of %d when the replica had read to %d", at, ann.views[i+1].Next)
			}
		}
		// The link breaks, and the ring has nothing of what comes meanwhile.
		b.cluster.Give(b.world.Slot(topic.Subject(g)), "", 0)
		synctest.Wait()
		for range 3 {
			b.world.Send(g, ann.user, d, id.NewMessage(), id.UserID{})
		}
		b.settle()
		b.cluster.Give(b.world.Slot(topic.Subject(g)), "a", 0)
		b.settle()
		after := b.world.Send(g, ann.user, d, id.NewMessage(), id.UserID{})
		b.settle()
		mustBe(t, "told that it missed something", len(ann.missed), 1)
		mustBe(t, "up to", ann.missed[0], after-1)
		mustBe(t, "events after the gap", ann.last(), after)
		mustBe(t, "events of the gap", len(ann.heard), 7)
	})
}

// What is noted while a follower of the same slot is told waits until he was.
func TestOneTellsAtATime(t *testing.T) {
	inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
		ann, _ := b.follower(1)
		bob, _ := b.follower(2)
		ann.hold = make(chan struct{})
		g := id.NewGroup()
		b.world.Join(g, b.world.Next(g), ann.user)
		b.world.Create(g, ann.user, bob.user) // nobody says so to bob
		b.settle()
		if _, now, err := b.replica.Enter(t.Context(), bob, g); err != nil || now == nil {
			t.Fatalf("enter: %v, %v", now, err)
		}
		synctest.Wait()
		mustBe(t, "told of the same slot meanwhile", len(bob.missed), 0)
		close(ann.hold)
		synctest.Wait()
		mustBe(t, "told thereafter", len(bob.missed), 1)
	})
}

// TestViewTellsHowFarItIsRead: a view reaches as far as its slot was read, whatever thread the last event was of, and
// no further while it is loaded anew.
func TestViewTellsHowFarItIsRead(t *testing.T) {
	inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
		ann, d := b.follower(1)
		first, other := b.inSlot(2, ann.user), b.inSlot(2, ann.user)
		b.settle()
		last := b.world.Send(other, ann.user, d, id.NewMessage(), id.UserID{})
		b.settle()
		v, _ := b.replica.View(first)
		mustBe(t, "read up to the other's last event", v.Next, last+1)
		mustBe(t, "which is not its own", v.LastPosition < last, true)
		b.replica.SetLoading(first, true)
		v, _ = b.replica.View(first)
		mustBe(t, "only its own events count while it is loaded anew", v.Next, v.LastPosition+1)
		b.replica.SetLoading(first, false)
	})
}

// WaitFor returns with the Progress that passes the position, and not before.
func TestWaitFor(t *testing.T) {
	inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
		b.settle()
		r := b.replica
		cursor, _ := r.Cursor(3)
		at := cursor.At(topic.Users)
		done := make(chan error, 2)
		for range cap(done) {
			go func() { done <- r.WaitFor(t.Context(), 3, topic.Users, at) }()
		}
		pass := func(p topic.Position) {
			next, _ := r.Cursor(3)
			next.Raise(topic.Users, p)
			r.Progress(3, next)
			synctest.Wait()
		}
		synctest.Wait()
		pass(at)
		mustBe(t, "returned before the position was passed", len(done), 0)
		pass(at + 1)
		for range cap(done) {
			mustBe(t, "passed", <-done, nil)
		}
		mustBe(t, "long passed", r.WaitFor(t.Context(), 3, topic.Users, at), nil)

		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- r.WaitFor(ctx, 3, topic.Users, at+100) }()
		synctest.Wait()
		cancel()
		mustBe(t, "given up", errors.Is(<-done, context.Canceled), true)
		mustBe(t, "a slot that is none", r.WaitFor(t.Context(), -1, topic.Users, 0) != nil, true)
	})
}

// WaitThread returns with the thread's own event or with the Progress of its slot, whichever comes first; it waits for
// a thread that is not followed yet.
func TestWaitThread(t *testing.T) {
	inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
		ann, d := b.follower(1)
		g := id.NewGroup()
		done := make(chan error, 1)
		wait := func(p topic.Position) {
			go func() { done <- b.replica.WaitThread(t.Context(), g, p) }()
			synctest.Wait()
		}
		at := b.world.Next(g)
		wait(at)
		b.world.Join(g, at, ann.user)
		b.settle()
		mustBe(t, "returned before the event came", len(done), 0)
		b.world.Create(g, ann.user)
		b.settle()
		mustBe(t, "its own event", <-done, nil)
		wait(at + 1)
		var other id.ThreadID
		for other == (id.ThreadID{}) || b.world.Slot(topic.Subject(other)) != b.world.Slot(topic.Subject(g)) {
			other = id.NewGroup()
		}
		b.world.Create(other, ann.user)
		b.settle()
		mustBe(t, "another's, of which only the Progress tells", <-done, nil)
		wait(at + 2)
		mustBe(t, "returned before", len(done), 0)
		b.world.Send(g, ann.user, d, id.NewMessage(), id.UserID{})
		b.settle()
		mustBe(t, "its own message", <-done, nil)
	})
}

// WaitViews returns once the views are as far as this edge was, and waits for more to be read here when it is to.
func TestWaitViews(t *testing.T) {
	inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
		ann, d := b.follower(1)
		stop := func(yes bool) {
			b.world.Mu.Lock()
			defer b.world.Mu.Unlock()
			b.world.Views.Stopped = yes
		}
		type answer struct {
			at  topic.Position
			err error
		}
		done := make(chan answer, 1)
		wait := func(beyond topic.Position) {
			go func() {
				at, err := b.replica.WaitViews(t.Context(), topic.Users, topic.Subject(ann.user), beyond)
				done <- answer{at, err}
			}()
			b.settle()
		}
		cursor, _ := b.replica.Cursor(b.world.Slot(topic.Subject(ann.user)))
		at := cursor.At(topic.Users)
		wait(-1)
		mustBe(t, "as far as both are", <-done, answer{at, nil})
		wait(at)
		mustBe(t, "returned before more was read", len(done), 0)
		stop(true)
		b.world.Revoke(ann.user, d)
		b.settle()
		mustBe(t, "returned before the views had it", len(done), 0)
		stop(false)
		b.settle()
		mustBe(t, "once they do", <-done, answer{at + 1, nil})
	})
}

// A fold that panics is the end of its subject here, and of nothing else.
func TestBrokenFoldStopsItsSubject(t *testing.T) {
	inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
		ann, d := b.follower(1)
		bad := b.inSlot(2, ann.user)
		good := b.inSlot(2, ann.user)
		b.settle()
		b.replica.Break(bad)
		b.world.Send(bad, ann.user, d, id.NewMessage(), id.UserID{})
		b.world.Send(bad, ann.user, d, id.NewMessage(), id.UserID{})
		last := b.world.Send(good, ann.user, d, id.NewMessage(), id.UserID{})
		b.settle()
		mustBe(t, "events", len(ann.heard), 3)
		mustBe(t, "the other thread's", ann.heard[2], last)
		for g, want := range map[id.ThreadID]bool{bad: true, good: false} {
			v, ok := b.replica.View(g)
			mustBe(t, "view", ok, true)
			mustBe(t, "in quarantine", v.Quarantined, want)
			mustBe(t, "still a member", v.IsMember(ann.user), true)
		}
		if want := "subject=" + bad.String(); !strings.Contains(b.log.String(), want) {
			t.Errorf("the log does not name the thread as %q:\n%s", want, &b.log)
		}
	})
}

// Slots of which nothing waits cost no timer; one with a user costs one.
func TestIdleSlotsHaveNoAppointments(t *testing.T) {
	inBench(t, replica.Config{Linger: time.Second}, func(t *testing.T, b *bench) {
		b.settle()
		mustBe(t, "appointments of an idle edge", b.replica.Appointments(), 0)
		ann, _ := b.follower(1)
		b.settle()
		time.Sleep(10 * time.Second) // he was live in time
		mustBe(t, "of one with a user", b.replica.Appointments(), 1)
		b.replica.Unfollow(ann)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		mustBe(t, "after he went", b.replica.Appointments(), 0)
	})
}

func mustBe(t *testing.T, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// A thread that is of no use is packed, and is itself again at the first event or question, with the views down.
func TestIdleThreadsArePacked(t *testing.T) {
	inBench(t, replica.Config{Idle: time.Second}, func(t *testing.T, b *bench) {
		ann, d := b.follower(1)
		bob, _ := b.follower(2)
		g := b.group(ann.user, bob.user)
		mid := id.NewMessage()
		at := b.world.Send(g, ann.user, d, mid, id.UserID{})
		b.settle()
		time.Sleep(4 * time.Second)
		synctest.Wait()
		mustBe(t, "packed", b.replica.Packed(g), true)
		b.world.Mu.Lock()
		b.world.Views.Down = true
		b.world.Mu.Unlock()
		v, ok := b.replica.View(g)
		mustBe(t, "a member", ok && v.IsMember(bob.user), true)
		mustBe(t, "packed by a question", b.replica.Packed(g), false)
		seen, _ := b.replica.Seen(g, thread.Key{Sender: ann.user, Message: mid})
		mustBe(t, "a message that was accepted", seen.Position, at)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		mustBe(t, "packed again", b.replica.Packed(g), true)
		b.world.Send(g, ann.user, d, mid, id.UserID{}) // a retry
		last := b.world.Send(g, ann.user, d, id.NewMessage(), id.UserID{})
		b.settle()
		mustBe(t, "events", len(bob.heard), 3)
		mustBe(t, "the last", bob.heard[2], last)
		// Without use it is packed and costs no appointment; in use it stays as it is.
		for range 8 {
			time.Sleep(time.Second / 2)
			b.replica.View(g)
		}
		mustBe(t, "packed while in use", b.replica.Packed(g), false)
	})
}

// Who is invited is known as the events say, also of a thread that was packed, and who accepts hears the event that
// lets him in.
func TestInvited(t *testing.T) {
	inBench(t, replica.Config{Idle: time.Second}, func(t *testing.T, b *bench) {
		ann, _ := b.follower(1)
		bob, _ := b.follower(2)
		g := b.group(ann.user)
		b.settle()
		check := func(what string, invited, members int, bobs bool) {
			t.Helper()
			v, _ := b.replica.View(g)
			mustBe(t, what+": invited", v.Invited, invited)
			mustBe(t, what+": bob is", v.IsInvited(bob.user), bobs)
			mustBe(t, what+": members", v.ActiveMembers, members)
		}
		check("nobody yet", 0, 1, false)
		b.world.Invite(g, ann.user, bob.user)
		b.world.Invite(g, ann.user, replicatest.User(3))
		b.settle()
		check("two", 2, 1, true)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		mustBe(t, "packed", b.replica.Packed(g), true)
		check("after it was packed", 2, 1, true)
		b.world.Join(g, -1, bob.user)
		b.settle()
		at := b.world.Accept(g, bob.user)
		b.settle()
		check("one has accepted", 1, 2, false)
		mustBe(t, "events of who accepted", len(bob.heard), 1)
		mustBe(t, "the one that let him in", bob.heard[0], at)
		mustBe(t, "joined", bob.joined, 1)
		mustBe(t, "a zero view", replica.View{}.IsInvited(bob.user), false)
	})
}

// A device gives up for good when it is said to be unknown: so that is said of what the log does not have, and never of
// what the views do not have yet.
func TestUnknownOnlyAtTheLogsEnd(t *testing.T) {
	inBench(t, replica.Config{Wait: time.Second}, func(t *testing.T, b *bench) {
		views := func(stopped bool) {
			b.world.Mu.Lock()
			defer b.world.Mu.Unlock()
			b.world.Views.Stopped = stopped
		}
		u, d := replicatest.User(1), id.NewDevice()
		ask := func(want wirev1.Code) {
			t.Helper()
			_, err := b.replica.DeviceKey(context.Background(), u, d)
			var e *wire.Error
			if errors.As(err, &e); e != nil && e.Code != want || e == nil && want != 0 {
				t.Errorf("device key: got %v, want %v", err, want)
			}
		}
		b.settle()
		ask(wirev1.Code_CODE_AUTHENTICATION_FAILED)
		views(true)
		b.world.Register(u, d, 1)
		ask(wirev1.Code_CODE_UNAVAILABLE) // the views are empty, the log is not
		if err := b.replica.Current(context.Background(), u); err == nil {
			t.Error("views that are behind are current")
		}
		views(false)
		ask(0)
		known := d
		d = id.NewDevice()
		ask(wirev1.Code_CODE_AUTHENTICATION_FAILED)
		b.world.LinkNewer(u, known) // it may be this very device
		b.settle()
		ask(wirev1.Code_CODE_UNAVAILABLE)
	})
}

// However many strangers come at one time, the views are asked about them together, where those who log in are asked
// about too.
func TestStrangersAreAskedAboutTogether(t *testing.T) {
	inBench(t, replica.Config{}, func(t *testing.T, b *bench) {
		b.settle()
		b.world.Mu.Lock()
		b.world.Views.Asked = 0
		b.world.Mu.Unlock()
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				_, err := b.replica.DeviceKey(context.Background(), replicatest.User(byte(i)), id.NewDevice())
				if !errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_AUTHENTICATION_FAILED}) {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		b.world.Mu.Lock()
		defer b.world.Mu.Unlock()
		if n := b.world.Views.Asked; n == 0 || n > 20 {
			t.Errorf("the views were asked %d times about 200 strangers", n)
		}
	})
}
