package edge

import (
	"context"
	"crypto/ed25519"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"heliograph/edge/auth"
	"heliograph/edge/fanout"
	"heliograph/edge/replica"
	"heliograph/edge/session"
	"heliograph/ingest"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

const partitions = 4

// world stands for the log, the replica, the stores and the registration: one lock, and events are folded and pushed by
// fold, as the stream would.
type world struct {
	mu   sync.Mutex // guards the rest
	down bool       // the log
	// the log's answer to an event: an error, after which it may have it all the same
	refuse      func(*eventv1.Event) (refused, kept bool)
	refusals    int
	sync        func(context.Context, fanout.Session) error
	keys        map[id.DeviceID]ed25519.PublicKey
	owners      map[id.DeviceID]id.UserID
	users       map[id.UserID]bool
	threads     map[id.ThreadID]*thread.State
	people      map[id.UserID]*user.State
	ensured     map[id.ThreadID]int            // how often a thread was to be made live here
	next        map[topic.Topic]topic.Position // one slot's worth of positions is enough
	seen        topic.Position                 // of users: what the replica has read
	further     chan struct{}                  // closed when seen goes on; nil while nobody waits
	waiting     atomic.Int32                   // those who wait for it
	appended    []record
	marks       []mark
	sessions    map[fanout.Session]bool
	page        int // bytes of each page of history; 0: it has no event
	pagesRead   int
	cold        map[id.ThreadID]bool // not live at this edge until EnsureThread
	quarantined map[id.ThreadID]bool
	blind       bool                           // the replica knows nobody's invitations, the views do
	spent       map[auth.Spending]int          // of everybody
	broke       auth.Spending                  // of this nobody has any left
	known       thread.Watermark               // everybody's in every thread
	behind      bool                           // the views are behind what the replica has read
	viewsAt     map[topic.Topic]topic.Position // the first positions that the views do not have; nil: they have all
	verdicts    map[topic.Position]thread.Verdict
	listed      int           // times that somebody's invitations were read
	stuck       chan struct{} // the store answers nobody about users before it is closed; nil: it answers
	asking      atomic.Int32  // those whom it has not answered
	askingMost  atomic.Int32  // and the most that they were
	hold        bool          // events are appended and acknowledged, and the replica does not see them yet
	held        []func()
}

type record struct {
	topic   topic.Topic
	subject topic.Subject
	ev      *eventv1.Event
}

type mark struct {
	thread id.ThreadID
	user   id.UserID
	device id.DeviceID
	w      thread.Watermark
}

func newWorld() *world {
	return &world{
		keys: map[id.DeviceID]ed25519.PublicKey{}, owners: map[id.DeviceID]id.UserID{}, users: map[id.UserID]bool{},
		threads: map[id.ThreadID]*thread.State{}, people: map[id.UserID]*user.State{}, ensured: map[id.ThreadID]int{},
		next:     map[topic.Topic]topic.Position{},
		sessions: map[fanout.Session]bool{}, verdicts: map[topic.Position]thread.Verdict{},
	}
}

// append is Append of what came through another edge.
func (w *world) append(t topic.Topic, s topic.Subject, ev *eventv1.Event) {
	done := make(chan error, 1)
	w.Append(t, s, ev, func(_ ingest.Receipt, err error) { done <- err })
	if err := <-done; err != nil {
		panic(err)
	}
}

// Append implements session.Log. Acknowledgements come on another goroutine, one after the other as a producer's do.
func (w *world) Append(t topic.Topic, s topic.Subject, ev *eventv1.Event, done func(ingest.Receipt, error)) {
	w.mu.Lock()
	if w.down {
		w.mu.Unlock()
		done(ingest.Receipt{}, ingest.ErrUnavailable)
		return
	}
	var refused, kept bool
	if w.refuse != nil {
		if refused, kept = w.refuse(ev); refused {
			w.refusals++
		}
	}
	if refused && !kept {
		w.mu.Unlock()
		done(ingest.Receipt{}, ingest.ErrUnavailable)
		return
	}
	at := w.next[t]
	w.next[t] = at + 1
	ev = proto.CloneOf(ev)
	ev.SetRules(event.CurrentRules) // as ingest does
	w.appended = append(w.appended, record{t, s, ev})
	see := func() { w.fold(t, s, ev, at) }
	if w.hold {
		w.held = append(w.held, see)
	} else {
		see()
	}
	w.mu.Unlock()
	if refused {
		done(ingest.Receipt{}, ingest.ErrUnavailable)
		return
	}
	go done(ingest.Receipt{
		Topic:    t,
		Slot:     topic.SlotOf(s, partitions),
		Position: at,
		LogTime:  time.UnixMilli(1_000_000 + int64(at)),
	}, nil)
}

// fold is what the replica does with an event; the caller holds mu.
func (w *world) fold(t topic.Topic, s topic.Subject, ev *eventv1.Event, at topic.Position) {
	defer w.news()
	if t != topic.Threads {
		w.seen = at + 1
		if l := ev.GetDeviceLinked(); l != nil {
			d := id.DeviceID(l.GetDeviceId())
			w.keys[d], w.owners[d] = l.GetPublicKey(), id.UserID(s)
		}
		w.foldUser(id.UserID(s), ev, at)
		return
	}
	th := w.threads[id.ThreadID(s)]
	if th == nil {
		th = thread.New(id.ThreadID(s))
		w.threads[th.ID] = th
	}
	v := th.Apply(event.Of(ev), at, 1_000_000+int64(at))
	w.verdicts[at] = v
	if v.Outcome != thread.Accepted {
		return
	}
	raw, err := proto.Marshal(ev)
	if err != nil {
		panic(err)
	}
	push, err := frame.Append(nil, wirev1.ServerFrame_builder{Event: wirev1.Event_builder{
		ThreadId: th.ID[:], Position: int64(at), Ordinal: v.Ordinal, LogTimeMs: 1_000_000 + int64(at), Event: raw,
	}.Build()}.Build())
	if err != nil {
		panic(err)
	}
	for x := range w.sessions {
		if th.IsMember(x.User()) && !x.Push(push) {
			x.Lagged()
		}
	}
}

// person is a user as the log has him; the caller holds mu.
func (w *world) person(u id.UserID) *user.State {
	p := w.people[u]
	if p == nil {
		p = user.New(u)
		p.Generation = 1
		w.people[u] = p
	}
	return p
}

// foldUser takes in an event of a user, and pushes his invitations; the caller holds mu.
func (w *world) foldUser(u id.UserID, ev *eventv1.Event, at topic.Position) {
	p := w.person(u)
	v := p.Apply(event.Of(ev), at, 1_000_000+int64(at))
	if v.Outcome != user.Accepted || v.Invitation == (id.ThreadID{}) {
		return
	}
	push, err := frame.Append(nil, wirev1.ServerFrame_builder{Invitation: invitationOf(p, v.Invitation)}.Build())
	if err != nil {
		panic(err)
	}
	for x := range w.sessions {
		if x.User() == u && !x.Push(push) {
			x.Lagged()
		}
	}
}

// invitationOf is a user's invitation into a thread, or that there is none any more.
func invitationOf(p *user.State, t id.ThreadID) *wirev1.Invitation {
	i, open := p.Invitations[t]
	if !open {
		return wirev1.Invitation_builder{ThreadId: t[:], Ended: true}.Build()
	}
	return wirev1.Invitation_builder{
		ThreadId: t[:], Title: i.Title, InviterId: i.By[:], TimeMs: i.TimeMS,
	}.Build()
}

// news has those asked again who wait for something; the caller holds mu.
func (w *world) news() {
	if w.further != nil {
		close(w.further)
		w.further = nil
	}
}

func (w *world) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hold = false
	for _, see := range w.held {
		see()
	}
	w.held = nil
	w.news()
}

func (w *world) Watermark(t id.ThreadID, u id.UserID, d id.DeviceID, m thread.Watermark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.marks = append(w.marks, mark{t, u, d, m})
}

func (w *world) Flush(context.Context) error { return nil }

func (w *world) log() []record {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]record(nil), w.appended...)
}

// list puts a thread into a user's list, as ThreadJoined does.
func (w *world) list(u id.UserID, t id.ThreadID) {
	done := make(chan bool)
	w.Append(topic.Users, topic.Subject(u), eventv1.Event_builder{
		UserId: u[:], ThreadJoined: eventv1.ThreadJoined_builder{ThreadId: t[:]}.Build(),
	}.Build(), func(ingest.Receipt, error) { close(done) })
	<-done
}

// readSide is the replica's part of a world.
type readSide struct{ *world }

func (w readSide) Attach(_ context.Context, s fanout.Session) (user.Device, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions[s] = true
	var dev user.Device
	copy(dev.Key[:], w.keys[s.Device()])
	return dev, nil
}

// More pretends that a Sync has left 10 threads.
func (w readSide) More(_ context.Context, _ fanout.Session, threads int) (int, error) {
	return 10 - threads, nil
}

func (w readSide) Sync(ctx context.Context, s fanout.Session, _ fanout.Known, _ int) error {
	w.mu.Lock()
	fn := w.sync
	w.mu.Unlock()
	if fn != nil {
		return fn(ctx, s)
	}
	done, err := frame.Append(nil, wirev1.ServerFrame_builder{SyncComplete: &wirev1.SyncComplete{}}.Build())
	if err != nil {
		return err
	}
	return s.PushWait(ctx, done)
}

func (w readSide) Detach(s fanout.Session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.sessions, s)
}

type roster struct {
	w *world
	t *thread.State
}

func (r roster) IsMember(u id.UserID) bool {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	return r.t.IsMember(u)
}

func (r roster) WasMember(u id.UserID) bool {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	return r.t.Member(u) != nil
}

func (r roster) IsInvited(u id.UserID) bool {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	_, invited := r.t.Invited[u]
	return invited
}

func (r roster) Role(u id.UserID) thread.Role {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if m := r.t.Member(u); m.Active() {
		return m.Role
	}
	return 0
}

func (r roster) Members() []id.UserID {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	var out []id.UserID
	for u, m := range r.t.Members {
		if m.Active() {
			out = append(out, u)
		}
	}
	return out
}

func (w readSide) View(t id.ThreadID) (session.View, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	th := w.threads[t]
	if th == nil || w.cold[t] {
		return session.View{}, false
	}
	next := w.next[topic.Threads]
	if len(w.held) > 0 {
		next = th.Next
	}
	return session.View{
		Kind: th.Kind, Title: th.Title, ActiveMembers: th.ActiveMembers(), LastPosition: th.LastPosition,
		LastOrdinal: th.LastOrdinal, Quarantined: w.quarantined[t], Next: next, Roster: roster{w.world, th},
	}, true
}

func (w readSide) Seen(t id.ThreadID, key thread.Key) (thread.Seen, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	th := w.threads[t]
	if th == nil {
		return thread.Seen{}, false
	}
	s, ok := th.Recent[key]
	return s, ok
}

func (w readSide) Watermark(id.ThreadID, id.UserID) thread.Watermark {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known
}

func (w readSide) Cursor(topic.Slot) (at topic.Cursor, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at.Set(topic.Threads, w.next[topic.Threads])
	at.Set(topic.Users, w.seen)
	return at, true
}

func (w readSide) WaitFor(ctx context.Context, _ topic.Slot, t topic.Topic, p topic.Position) error {
	if t != topic.Users {
		panic("waits for users alone")
	}
	return w.until(ctx, func() bool { return w.seen > p })
}

// until waits for what holds under mu.
func (w readSide) until(ctx context.Context, holds func() bool) error {
	for {
		w.mu.Lock()
		if holds() {
			w.mu.Unlock()
			return nil
		}
		if w.further == nil {
			w.further = make(chan struct{})
		}
		further := w.further
		w.mu.Unlock()
		if err := w.wait(ctx, further); err != nil {
			return err
		}
	}
}

// wait waits for news.
func (w readSide) wait(ctx context.Context, news <-chan struct{}) error {
	w.waiting.Add(1)
	defer w.waiting.Add(-1)
	select {
	case <-news:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w readSide) Judge(
	ctx context.Context, t id.ThreadID, put func(context.Context) (topic.Position, error),
) (thread.Verdict, error) {
	at, err := put(ctx)
	if err != nil {
		return thread.Verdict{}, err
	}
	_, _, err = w.Await(ctx, t, func(v session.View, known bool) bool { return known && v.Next > at })
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.verdicts[at], err
}

func (w readSide) Await(
	ctx context.Context, t id.ThreadID, enough func(v session.View, known bool) bool,
) (v session.View, known bool, err error) {
	for {
		w.mu.Lock()
		if w.further == nil {
			w.further = make(chan struct{})
		}
		further := w.further
		w.mu.Unlock()
		if v, known = w.View(t); enough(v, known) {
			return v, known, nil
		}
		if err := w.wait(ctx, further); err != nil {
			return v, known, err
		}
	}
}

func (w readSide) WaitViews(
	ctx context.Context, _ topic.Topic, _ topic.Subject, beyond topic.Position,
) (at topic.Position, err error) {
	err = w.until(ctx, func() bool { at = w.seen; return w.seen > beyond && !w.behind })
	return at, err
}

// Past implements session.Replica: the views are as far as the world, unless viewsAt says how far they are.
func (w readSide) Past(ctx context.Context, n replica.Needs) error {
	return w.until(ctx, func() bool {
		for k, at := range n {
			if w.viewsAt != nil && w.viewsAt[k.Topic] <= at {
				return false
			}
		}
		return true
	})
}

func (w readSide) TakenIn(t id.ThreadID, n replica.Needs) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if th := w.threads[t]; th != nil {
		n.Add(topic.Threads, topic.SlotOf(topic.Subject(t), partitions), th.Next-1)
	}
}

func (w readSide) TakenInBy(u id.UserID, threads bool, n replica.Needs) {
	w.mu.Lock()
	n.Add(topic.Users, topic.SlotOf(topic.Subject(u), partitions), w.seen-1)
	var list []id.ThreadID
	for t, th := range w.threads {
		if threads && th.Member(u) != nil {
			list = append(list, t)
		}
	}
	w.mu.Unlock()
	for _, t := range list {
		w.TakenIn(t, n)
	}
}

func (w readSide) DeviceKey(_ context.Context, u id.UserID, d id.DeviceID) (user.Device, error) {
	w.answers()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.keys[d] == nil || w.owners[d] != u {
		return user.Device{}, wire.Errorf(wirev1.Code_CODE_AUTHENTICATION_FAILED, "no")
	}
	return user.Device{Key: [ed25519.PublicKeySize]byte(w.keys[d])}, nil
}

func (w readSide) Listed(u id.UserID, t id.ThreadID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, listed := w.person(u).Threads[t]
	return listed
}

func (w readSide) Invited(u id.UserID, t id.ThreadID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, open := w.person(u).Invitations[t]
	return open && !w.blind
}

func (w readSide) EnsureThread(_ context.Context, t id.ThreadID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ensured[t]++
	if w.threads[t] == nil {
		w.threads[t] = thread.New(t)
	}
	delete(w.cold, t)
	w.news()
	return nil
}

// gate is registration and proof, without a store.
type gate struct{ *world }

func (g gate) Spend(_ context.Context, u id.UserID, what auth.Spending, n int) error {
	g.answers()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.spent == nil {
		g.spent = map[auth.Spending]int{}
	}
	if g.spent[what] += n; g.broke == what {
		return &wire.Error{Code: wirev1.Code_CODE_RATE_LIMITED, RetryAfter: time.Hour}
	}
	return nil
}

func (g gate) RequestPin(context.Context, *wirev1.RequestPin, netip.Addr) (*wirev1.PinRequested, error) {
	return wirev1.PinRequested_builder{ExpiresInMs: 1000}.Build(), nil
}

func (g gate) Register(
	_ context.Context, r *wirev1.Register, nonce, exporter []byte, _ netip.Addr,
) (auth.Identity, error) {
	d, err := id.From[id.DeviceID](r.GetDeviceId())
	if err != nil || len(r.GetPublicKey()) != ed25519.PublicKeySize ||
		!ed25519.Verify(r.GetPublicKey(), wire.Proof(nonce, exporter, id.UserID{}, d), r.GetSignature()) {
		return auth.Identity{}, wire.Errorf(wirev1.Code_CODE_AUTHENTICATION_FAILED, "no")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	u := id.User([]byte("test"), r.GetPhone(), 1)
	g.users[u] = true
	if g.keys[d] == nil { // as the fold has it
		g.keys[d], g.owners[d] = r.GetPublicKey(), u
	}
	return auth.Identity{User: u, Device: d, Key: [ed25519.PublicKeySize]byte(r.GetPublicKey())}, nil
}

func (g gate) Authenticate(
	_ context.Context, a *wirev1.Authenticate, nonce, exporter []byte, _ netip.Addr,
) (auth.Identity, error) {
	u, err := id.From[id.UserID](a.GetUserId())
	d, err2 := id.From[id.DeviceID](a.GetDeviceId())
	g.mu.Lock()
	defer g.mu.Unlock()
	key := g.keys[d]
	if err != nil || err2 != nil || key == nil || g.owners[d] != u ||
		!ed25519.Verify(key, wire.Proof(nonce, exporter, u, d), a.GetSignature()) {
		return auth.Identity{}, wire.Errorf(wirev1.Code_CODE_AUTHENTICATION_FAILED, "no")
	}
	return auth.Identity{User: u, Device: d, Key: [ed25519.PublicKeySize]byte(g.keys[d])}, nil
}

// reads answers queries.
type reads struct{ *world }

func (r reads) ListThreads(
	context.Context, id.UserID, user.Floor, func(id.ThreadID) thread.Watermark, *wirev1.ListThreads,
) (*wirev1.Threads, error) {
	return &wirev1.Threads{}, nil
}

func (r reads) GetThread(
	context.Context, id.UserID, user.Floor, func(id.ThreadID) thread.Watermark, id.ThreadID,
) (*wirev1.Thread, error) {
	panic("a broken invariant") // what tests ask of GetThread
}

func (r reads) History(
	_ context.Context, _ id.UserID, _ user.Floor, h *wirev1.GetHistory,
) (*wirev1.HistoryPage, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.page > 0 {
		r.pagesRead++
		e := wirev1.Event_builder{Event: make([]byte, r.page)}.Build()
		return wirev1.HistoryPage_builder{Events: []*wirev1.Event{e}}.Build(), nil
	}
	return wirev1.HistoryPage_builder{NextBefore: h.GetBeforePosition()}.Build(), nil
}

func (r reads) LookupUsers(context.Context, id.UserID, *wirev1.LookupUsers) (*wirev1.Users, error) {
	return &wirev1.Users{}, nil
}

// answers waits until the store does.
func (w *world) answers() {
	n := w.asking.Add(1)
	defer w.asking.Add(-1)
	for most := w.askingMost.Load(); n > most && !w.askingMost.CompareAndSwap(most, n); {
		most = w.askingMost.Load()
	}
	w.mu.Lock()
	stuck := w.stuck
	w.mu.Unlock()
	if stuck != nil {
		<-stuck
	}
}

func (r reads) GetUsers(_ context.Context, ids [][]byte) (*wirev1.Users, error) {
	r.answers()
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*wirev1.User
	for _, b := range ids {
		if u, err := id.From[id.UserID](b); err == nil && r.users[u] {
			out = append(out, wirev1.User_builder{UserId: b}.Build())
		}
	}
	return wirev1.Users_builder{Users: out}.Build(), nil
}

func (r reads) Unaddable(_ context.Context, by id.UserID, users []id.UserID) (out []id.UserID, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range users {
		if p := r.person(u); u != by &&
			(p.Blocked[by] || p.MayAdd == eventv1.MayAdd_MAY_ADD_NOBODY) {
			out = append(out, u)
		}
	}
	return out, nil
}

func (r reads) BlockedBy(_ context.Context, by id.UserID, users []id.UserID) (out []id.UserID, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range users {
		if r.person(u).Blocked[by] {
			out = append(out, u)
		}
	}
	return out, nil
}

func (r reads) InvitedTo(_ context.Context, t id.ThreadID, users []id.UserID) (out []id.UserID, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range users {
		if i, open := r.person(u).Invitations[t]; open && !r.person(u).Blocked[i.By] {
			out = append(out, u)
		}
	}
	return out, nil
}

func (r reads) MayBlock(_ context.Context, by, u id.UserID) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.person(by).Blocked)
	if r.person(by).Blocked[u] {
		n--
	}
	return n < mostBlocked, nil
}

// mostBlocked is how many the fake lets a user block.
const mostBlocked = 3

func (r reads) Invitations(_ context.Context, u id.UserID) (*wirev1.Invitations, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listed++
	var out []*wirev1.Invitation
	for t, i := range r.person(u).Invitations {
		if !r.person(u).Blocked[i.By] {
			out = append(out, invitationOf(r.person(u), t))
		}
	}
	return wirev1.Invitations_builder{Invitations: out}.Build(), nil
}

func (r reads) Settings(_ context.Context, u id.UserID) (*wirev1.Settings, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.person(u)
	out := wirev1.Settings_builder{MayAdd: max(p.MayAdd, eventv1.MayAdd_MAY_ADD_EVERYBODY)}
	for b := range p.Blocked {
		out.BlockedIds = append(out.BlockedIds, b[:])
	}
	return out.Build(), nil
}

func (r reads) WasMember(_ context.Context, u id.UserID, t id.ThreadID) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	th := r.threads[t]
	return th != nil && th.Member(u) != nil, nil
}

func (r reads) UserExists(_ context.Context, u id.UserID) (bool, error) {
	r.answers()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.users[u], nil
}

func (r reads) ListDevices(_ context.Context, u id.UserID) (*wirev1.Devices, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*wirev1.Device
	for d, owner := range r.owners {
		if owner == u {
			out = append(out, wirev1.Device_builder{DeviceId: d[:]}.Build())
		}
	}
	return wirev1.Devices_builder{Devices: out}.Build(), nil
}

func (r reads) Views(context.Context, id.ThreadID) (*wirev1.Views, error) {
	return &wirev1.Views{}, nil
}
