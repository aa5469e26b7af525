package fanout

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"heliograph/edge/replica"
	"heliograph/edge/replica/replicatest"
	"heliograph/schemas/event"
	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// phone is a client with its store: what it has applied stays over connections.
type phone struct {
	user  id.UserID
	id    id.DeviceID
	floor int64
	// its sessions are in the background
	background bool

	mu       sync.Mutex // taken inside a session's mu
	applied  map[id.ThreadID]replica.Row
	got      map[id.ThreadID][]topic.Position
	saw      map[id.ThreadID]map[topic.Position]bool // everything that came, also what the cursor rule ignored
	changed  map[id.ThreadID]int
	listed   map[id.ThreadID]*wirev1.ThreadSummary // the last of changed
	late     map[id.ThreadID][]wirev1.Code         // what it was told, 0 for live
	receipts map[id.ThreadID]map[id.UserID]thread.Watermark
	sent     map[id.ThreadID]int64 // the ordinal of the user's last message
	logged   []thread.Watermark
	rejected []topic.Position
	// invitations are the frames, as text
	invitations []string
	resyncs     int
	syncs       int
	told        int  // receipts that came
	frames      int  // that came
	own         bool // it says what it has
	window      int
	rest        int         // of the last SyncComplete
	closed      wirev1.Code // of the last session
	faults      []string
}

func newPhone(u id.UserID, d id.DeviceID, floor int64) *phone {
	return &phone{
		user: u, id: d, floor: floor, applied: map[id.ThreadID]replica.Row{}, got: map[id.ThreadID][]topic.Position{},
		changed: map[id.ThreadID]int{}, sent: map[id.ThreadID]int64{}, listed: map[id.ThreadID]*wirev1.ThreadSummary{},
		late: map[id.ThreadID][]wirev1.Code{},
		saw:  map[id.ThreadID]map[topic.Position]bool{}, receipts: map[id.ThreadID]map[id.UserID]thread.Watermark{},
	}
}

var errEnded = errors.New("the session has ended")

// testSession is a connection of a device: an outbox with a bound, and a reader.
type testSession struct {
	*phone
	edge     *edge
	capacity int
	slow     time.Duration // between two frames
	done     chan struct{}
	wg       sync.WaitGroup

	mu      sync.Mutex
	queue   [][]byte
	lagging bool
	ended   bool
	refuses int           // of the next receipts
	more    chan struct{} // closed when the queue has changed
}

func (s *testSession) User() id.UserID     { return s.user }
func (s *testSession) Device() id.DeviceID { return s.phone.id }
func (s *testSession) Background() bool    { return s.background }

func (s *testSession) news() {
	close(s.more)
	s.more = make(chan struct{})
}

func (s *testSession) Push(f []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return true
	}
	if s.lagging {
		s.fault("pushed to a session that lags")
	}
	if len(s.queue) >= s.capacity {
		return false
	}
	s.queue = append(s.queue, f)
	s.news()
	return true
}

func (s *testSession) PushWait(ctx context.Context, f []byte) error {
	for {
		s.mu.Lock()
		switch {
		case s.ended || s.lagging:
			s.mu.Unlock()
			return errEnded
		case len(s.queue) < s.capacity:
			s.queue = append(s.queue, f)
			s.news()
			s.mu.Unlock()
			return nil
		}
		more := s.more
		s.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *testSession) WaitReceipts(context.Context) error { return nil }

func (s *testSession) Logged(_ id.ThreadID, _ topic.Position, w thread.Watermark) {
	d := s.phone
	d.mu.Lock()
	defer d.mu.Unlock()
	d.logged = append(d.logged, w)
}

func (s *testSession) PushReceipts(t id.ThreadID, m []replica.Mark) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuses > 0 {
		s.refuses--
		return false
	}
	d := s.phone
	d.mu.Lock()
	defer d.mu.Unlock()
	d.told += len(m)
	if d.receipts[t] == nil {
		d.receipts[t] = map[id.UserID]thread.Watermark{}
	}
	for _, w := range m {
		d.receipts[t][w.User] = d.receipts[t][w.User].Merge(w.Watermark)
	}
	return true
}

var resyncFrame = encode(wirev1.ServerFrame_builder{Resync: &wirev1.Resync{}}.Build())

func (s *testSession) Lagged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lagging {
		return
	}
	s.lagging = true
	s.queue = [][]byte{resyncFrame}
	s.news()
}

func (s *testSession) Close(code wirev1.Code) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	s.phone.mu.Lock()
	s.phone.closed = code
	s.phone.mu.Unlock()
	close(s.done)
	s.news()
}

// connect attaches a session, syncs it and reads for it until it ends.
func (d *phone) connect(h *edge, capacity int, slow time.Duration, rnd *rand.Rand) (*testSession, error) {
	s := &testSession{
		phone:    d,
		edge:     h,
		capacity: capacity,
		slow:     slow,
		done:     make(chan struct{}),
		more:     make(chan struct{}),
	}
	if _, err := h.Attach(context.Background(), s); err != nil {
		return nil, err
	}
	ask := make(chan struct{}, 1)
	ask <- struct{}{}
	ctx, cancel := context.WithCancel(context.Background())
	s.wg.Go(func() { // what the client's Sync makes the session do
		for {
			select {
			case <-ask:
			case <-s.done:
				cancel()
				return
			}
			for {
				s.mu.Lock()
				s.lagging = false
				s.mu.Unlock()
				sctx, stop := context.WithCancel(ctx)
				go func() {
					select {
					case <-s.done:
					case <-sctx.Done():
					}
					stop()
				}()
				err := d.sync(sctx, h, s)
				stop()
				if err == nil || !sleep(ctx, 200*time.Millisecond) {
					break
				}
				select {
				case <-s.done:
					cancel()
					return
				default:
				}
			}
		}
	})
	s.wg.Go(func() {
		for {
			s.mu.Lock()
			if s.ended {
				s.mu.Unlock()
				return
			}
			if len(s.queue) == 0 {
				more := s.more
				s.mu.Unlock()
				<-more
				continue
			}
			f := s.queue[0]
			s.queue = s.queue[1:]
			s.news()
			d.take(f, ask) // under mu, as if it had been read before anything else can be dropped
			s.mu.Unlock()
			if s.slow > 0 {
				time.Sleep(s.slow)
			}
		}
	})
	return s, nil
}

// next asks for what a window has left.
func (s *testSession) next(threads int) (rest int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	return s.edge.More(ctx, s, threads)
}

// leave ends the session.
func (s *testSession) leave() {
	s.Close(wirev1.Code_CODE_UNSPECIFIED)
	s.edge.Detach(s)
	s.wg.Wait()
}

func (d *phone) fault(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, fmt.Sprintf(format, args...))
}

// take applies a frame with the client's rule (wire section 6).
func (d *phone) take(b []byte, ask chan struct{}) {
	r := bufio.NewReader(bytes.NewReader(b))
	raw, err := frame.Read(r, nil, 1<<20)
	var f wirev1.ServerFrame
	if err == nil {
		err = proto.Unmarshal(raw, &f)
	}
	if err != nil {
		d.fault("a frame that cannot be read: %v", err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.frames++
	switch f.WhichBody() {
	case wirev1.ServerFrame_Event_case:
		e := f.GetEvent()
		t, at := id.ThreadID(e.GetThreadId()), topic.Position(e.GetPosition())
		if d.saw[t] == nil {
			d.saw[t] = map[topic.Position]bool{}
		}
		d.saw[t][at] = true
		if last, ok := d.applied[t]; ok && at <= last.Position {
			return
		}
		d.applied[t] = replica.Row{Position: at, Ordinal: e.GetOrdinal(), LogTimeMS: e.GetLogTimeMs()}
		d.got[t] = append(d.got[t], at)
		if ev, err := event.Decode(e.GetEvent()); err == nil && ev.HasMessageSent() && ev.User == d.user {
			d.sent[t] = e.GetOrdinal()
		}
	case wirev1.ServerFrame_ThreadChanged_case:
		t := id.ThreadID(f.GetThreadChanged().GetThread().GetThreadId())
		d.changed[t]++
		d.listed[t] = f.GetThreadChanged().GetThread()
	case wirev1.ServerFrame_Rejected_case:
		d.rejected = append(d.rejected, topic.Position(f.GetRejected().GetPosition()))
	case wirev1.ServerFrame_ThreadLate_case:
		t := id.ThreadID(f.GetThreadLate().GetThreadId())
		d.late[t] = append(d.late[t], f.GetThreadLate().GetError().GetCode())
	case wirev1.ServerFrame_Invitation_case:
		i := f.GetInvitation()
		d.invitations = append(d.invitations, fmt.Sprintf("%v %q of %x at %d, ended %v",
			id.ThreadID(i.GetThreadId()), i.GetTitle(), i.GetInviterId(), i.GetTimeMs(), i.GetEnded()))
	case wirev1.ServerFrame_SyncComplete_case:
		d.syncs++
		d.rest = int(f.GetSyncComplete().GetRest())
	case wirev1.ServerFrame_Resync_case:
		d.resyncs++
		select {
		case ask <- struct{}{}:
		default:
		}
	}
}

// sync asks for what the device lacks, as a client does.
func (d *phone) sync(ctx context.Context, h *edge, s *testSession) error {
	d.mu.Lock()
	known, window := d.known(), d.window
	d.mu.Unlock()
	return h.Sync(ctx, s, known, window)
}

// page has it take a window at a time.
func (d *phone) page(window int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.window = window
}

// mark is how far it was told that a user is in a thread.
func (d *phone) mark(t id.ThreadID, u id.UserID) thread.Watermark {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.receipts[t][u]
}

// known is what the device says that it has; nil: it does not. It needs mu.
func (d *phone) known() Known {
	if !d.own {
		return nil
	}
	k := Known{}
	for t, a := range d.applied {
		var sum wire.Digest
		for u, w := range d.receipts[t] {
			if u == d.user {
				sum += wire.Of(u, 0, w.ReadOrdinal, 0)
			} else {
				sum += wire.Of(u, w.DeliveredOrdinal, w.ReadOrdinal, d.sent[t])
			}
		}
		k[t] = Has{a.Position, sum, d.sent[t]}
	}
	return k
}

// backup is what restore puts back.
type backup struct {
	applied map[id.ThreadID]replica.Row
	got     map[id.ThreadID][]topic.Position
}

func (d *phone) backup() backup {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := backup{maps.Clone(d.applied), map[id.ThreadID][]topic.Position{}}
	for t, got := range d.got {
		b.got[t] = slices.Clone(got)
	}
	return b
}

func (d *phone) restore(b backup) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.applied, d.got = b.applied, b.got
	d.receipts, d.sent = map[id.ThreadID]map[id.UserID]thread.Watermark{}, map[id.ThreadID]int64{}
}

// acknowledge moves the device's watermark in a thread to what it has applied.
func (d *phone) acknowledge(w *replicatest.World, t id.ThreadID, read bool) {
	d.mu.Lock()
	a, ok := d.applied[t]
	d.mu.Unlock()
	if !ok {
		return
	}
	m := thread.Watermark{DeliveredPosition: a.Position, DeliveredOrdinal: a.Ordinal}
	if read {
		m.ReadPosition, m.ReadOrdinal = a.Position, a.Ordinal
	}
	w.Watermark(t, d.user, d.id, m)
}

// lacks compares the device with the log: what it should have and has not, and what it has and should not. Empty: all
// is well.
func (d *phone) lacks(w *replicatest.World) string {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	for t, o := range w.Oracles {
		m := o.State.Members[d.user]
		var want []topic.Position
		may := map[topic.Position]bool{}
		for _, r := range o.Accepted {
			if m.Sees(r.Position) && r.LogTimeMS >= d.floor {
				want = append(want, r.Position)
				may[r.Position] = true
			}
		}
		if fmt.Sprint(d.got[t]) != fmt.Sprint(want) {
			return fmt.Sprintf("thread %v in slot %d:\n got %v\nwant %v", t, w.Slot(topic.Subject(t)), d.got[t], want)
		}
		for at := range d.saw[t] {
			if !may[at] {
				return fmt.Sprintf("thread %v: shown position %d, which it may not see", t, at)
			}
		}
	}
	if len(d.faults) > 0 {
		return d.faults[0]
	}
	return ""
}
