package replica

import (
	"context"
	"slices"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
)

// View is a thread as this edge knows it. The fields are copied; the methods read the state as it is when they are
// called. The zero value is a thread without members.
type View struct {
	ID            id.ThreadID
	Kind          thread.Kind // None: no event has begun the thread
	Title         string
	ActiveMembers int
	Invited       int // how many are invited now
	LastPosition  topic.Position
	LastOrdinal   int64
	// Next is how far this edge has read: the thread has no event before it that is not in here.
	Next topic.Position
	// Quarantined: an event could not be applied, so the thread is as it was before that event and takes nothing more.
	Quarantined bool

	replica *Replica
	entry   *threadEntry
}

// View returns a thread as this edge knows it; false when the thread is not live here. No I/O.
func (r *Replica) View(t id.ThreadID) (View, bool) {
	s := r.slotOf(topic.Subject(t))
	v, known := r.view(s, r.look(s, t))
	s.mu.RUnlock()
	return v, known
}

// look returns a thread with its state at hand, or none, and the slot's lock held for reading.
func (r *Replica) look(s *slot, t id.ThreadID) *threadEntry {
	for {
		s.mu.RLock()
		ts := s.threads[t]
		switch {
		case ts == nil || !ts.loaded():
			return nil
		case ts.warm != nil:
			ts.use()
			return ts
		}
		s.mu.RUnlock()
		s.mu.Lock()
		r.thaw(ts) // it may be gone by now, and then is looked for again
		s.mu.Unlock()
	}
}

// view is a thread with its state at hand, or nil. The caller holds the slot's lock.
func (r *Replica) view(s *slot, ts *threadEntry) (View, bool) {
	if ts == nil {
		return View{}, false
	}
	next := ts.state.Next
	if ts.phase == live && s.known && !ts.waits() {
		next = max(next, s.cursor.At(topic.Threads))
	}
	return View{
		ID: ts.id(), Kind: ts.state.Kind, Title: ts.state.Title, ActiveMembers: ts.state.ActiveMembers(),
		Invited: len(ts.state.Invited), LastPosition: ts.state.LastPosition, LastOrdinal: ts.state.LastOrdinal,
		Next:        next,
		Quarantined: ts.isQuarantined(topic.Threads), replica: r, entry: ts,
	}, true
}

// IsMember tells whether the user is a member now.
func (v View) IsMember(u id.UserID) bool { return v.Role(u) != 0 }

// Role returns the user's role; 0 when he is not a member now.
func (v View) Role(u id.UserID) (role thread.Role) {
	if s := v.look(); s != nil {
		if m := s.Members[u]; m.Active() {
			role = m.Role
		}
		v.entry.slot.mu.RUnlock()
	}
	return role
}

// WasMember tells whether the user is a member now or was one: he may still acknowledge what he has seen.
func (v View) WasMember(u id.UserID) (was bool) {
	if s := v.look(); s != nil {
		was = s.Members[u] != nil
		v.entry.slot.mu.RUnlock()
	}
	return was
}

// IsInvited tells whether the user is invited now.
func (v View) IsInvited(u id.UserID) (invited bool) {
	if s := v.look(); s != nil {
		_, invited = s.Invited[u]
		v.entry.slot.mu.RUnlock()
	}
	return invited
}

// Members returns the members now, in no order.
func (v View) Members() (out []id.UserID) {
	s := v.look()
	if s == nil {
		return nil
	}
	defer v.entry.slot.mu.RUnlock()
	out = make([]id.UserID, 0, s.ActiveMembers())
	for u, m := range s.Members {
		if m.Active() {
			out = append(out, u)
		}
	}
	return out
}

// look returns the thread's state with the slot's lock held for reading; nil, and no lock, for the zero value.
func (v View) look() *ThreadState {
	t := v.entry
	if t == nil {
		return nil
	}
	for {
		t.slot.mu.RLock()
		if t.warm != nil {
			t.use()
			return t.state
		}
		t.slot.mu.RUnlock()
		t.slot.mu.Lock()
		v.replica.thaw(t)
		t.slot.mu.Unlock()
	}
}

// Seen tells whether the thread accepted this message before, and where. No I/O.
func (r *Replica) Seen(t id.ThreadID, key thread.Key) (thread.Seen, bool) {
	s := r.slotOf(topic.Subject(t))
	ts := r.look(s, t)
	defer s.mu.RUnlock()
	if ts == nil || ts.isQuarantined(topic.Threads) {
		return thread.Seen{}, false
	}
	seen, ok := ts.state.Recent[key]
	return seen, ok
}

// Watermark returns the highest watermark of a user's devices in a thread that is live here. No I/O.
func (r *Replica) Watermark(t id.ThreadID, u id.UserID) thread.Watermark {
	s := r.slotOf(topic.Subject(t))
	ts := r.look(s, t)
	defer s.mu.RUnlock()
	if ts != nil {
		return ts.state.Marks[u]
	}
	return thread.Watermark{}
}

// Await returns a thread as this edge knows it once enough says so, which is asked at once and whenever the thread may
// have changed; known is false while it is not live here. It costs nothing while it waits, and fails with ctx. enough
// is called without locks.
func (r *Replica) Await(
	ctx context.Context, t id.ThreadID, enough func(v View, known bool) bool,
) (v View, known bool, err error) {
	s := r.slotOf(topic.Subject(t))
	for {
		s.mu.Lock()
		var news, further <-chan struct{}
		if ts := s.threads[t]; ts != nil {
			news, further = waited(&ts.news), waited(&s.further)
		} else {
			news = waited(&s.added)
		}
		ts := s.threads[t]
		if ts != nil && ts.loaded() {
			r.thaw(ts)
		} else {
			ts = nil
		}
		v, known = r.view(s, ts)
		s.mu.Unlock()
		if enough(v, known) {
			return v, known, nil
		}
		select {
		case <-news:
		case <-further:
		case <-ctx.Done():
			return v, known, context.Cause(ctx)
		}
	}
}

// WaitThread returns once this edge has taken in what a thread has at a position and before it, or cannot take it in
// any more. It costs nothing while it waits, and fails with ctx.
func (r *Replica) WaitThread(ctx context.Context, t id.ThreadID, p topic.Position) error {
	_, _, err := r.Await(ctx, t, func(v View, known bool) bool { return known && (v.Next > p || v.Quarantined) })
	return err
}

// Glance is a thread as somebody who is or was a member sees it at a moment.
type Glance struct {
	User          id.UserID
	Thread        id.ThreadID
	Slot          topic.Slot
	Kind          thread.Kind
	Title         string
	Member        thread.Member
	ActiveMembers int
	Peer          id.UserID // of a direct thread
	LastPosition  topic.Position
	LastOrdinal   int64
	LastTimeMS    int64
	LastSender    id.UserID
	LastMessage   topic.Position // of the last message; -1: it is older than what the views have at hand
	Preview       string
	Own           thread.Watermark
}

// glance is the thread as a user sees it who is or was a member. The caller holds the slot's lock.
func (t *threadEntry) glance(u id.UserID) Glance {
	s := t.state
	g := Glance{
		User: u, Thread: t.id(), Slot: t.slot.n, Kind: s.Kind, Title: s.Title, Member: *s.Members[u],
		ActiveMembers: s.ActiveMembers(), LastPosition: s.LastPosition, LastOrdinal: s.LastOrdinal,
		LastTimeMS: s.LastTimeMS, LastSender: s.LastSender, Preview: s.Preview, Own: s.Marks[u],
		LastMessage: -1,
	}
	if sent := s.Sent[s.LastSender]; sent.Ordinal == s.LastOrdinal && s.LastOrdinal > 0 {
		g.LastMessage = sent.Position
	}
	g.Member.Spans = slices.Clone(g.Member.Spans)
	if s.Kind == thread.Direct {
		g.Peer = s.Peer(u)
	}
	return g
}

// Enter waits until a thread of a followed user is live here, and makes sure that he is told of what comes from then
// on. It returns the last position of which he is not told, -1 for none, and the thread as he sees it then; nil when he
// never was a member.
func (r *Replica) Enter(ctx context.Context, f Follower, t id.ThreadID) (last topic.Position, now *Glance, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	defer cancel()
	u := r.entryOf(f)
	if u == nil {
		return 0, nil, ended()
	}
	s := r.slotOf(topic.Subject(t))
	for first := true; ; first = false {
		var news <-chan struct{}
		var full error
		r.in(s, func(*actions) {
			ts := s.threads[t]
			if ts == nil {
				ts = r.addThread(s, t)
			}
			r.addLocal(ts, u, -1)
			if first {
				r.again(s, &ts.subject)
			}
			full = ts.full()
			if ts.phase != live {
				news = waited(&ts.news)
				return
			}
			r.thaw(ts)
			last = ts.state.last()
			if m := ts.state.Members[u.id]; m != nil && len(m.Spans) > 0 {
				g := ts.glance(u.id)
				now = &g
			}
		})
		switch {
		case full != nil:
			return 0, nil, full
		case news == nil:
			return last, now, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return 0, nil, Unavailable(context.Cause(ctx))
		}
	}
}

// Marks returns how far the members of a thread have got if the user is one and has sent something in it, and else, if
// own says so, how far he has himself. The slice is shared.
func (r *Replica) Marks(t id.ThreadID, u id.UserID, own bool) (out []Mark) {
	r.ofLive(t, func(ts *threadEntry) {
		mark, known := ts.state.Marks[u]
		_, sent := ts.state.Sent[u]
		switch {
		case sent && ts.state.IsMember(u):
			out = ts.marksOfAll()
		case own && known && ts.state.Members[u] != nil:
			out = []Mark{{u, mark}}
		}
	})
	return out
}

// MarksUnless is Marks, without what the device has according to its digest of a thread's watermarks (wire 12.3)
// and the ordinal of the user's last message that it knows.
func (r *Replica) MarksUnless(t id.ThreadID, u id.UserID, has wire.Digest, own int64) (out []Mark) {
	r.ofLive(t, func(ts *threadEntry) {
		sent, known := ts.state.Sent[u]
		if !known || !ts.state.IsMember(u) {
			return
		}
		all := ts.marksOfAll()
		if own != 0 && own != sent.Ordinal || digestOf(all, u, own) != has {
			out = all
		}
	})
	return out
}

// ofLive calls fn for a thread that is live, with its state at hand and its slot's lock held.
func (r *Replica) ofLive(t id.ThreadID, fn func(*threadEntry)) {
	s := r.slotOf(topic.Subject(t))
	s.mu.Lock()
	defer s.mu.Unlock()
	if ts := s.threads[t]; ts != nil && ts.phase == live {
		r.thaw(ts)
		fn(ts)
	}
}

// digestOf is the digest of watermarks, for a device of u.
func digestOf(all []Mark, u id.UserID, own int64) (sum wire.Digest) {
	for _, m := range all {
		if m.User == u {
			sum += wire.Of(u, 0, m.ReadOrdinal, 0)
		} else {
			sum += wire.Of(m.User, m.DeliveredOrdinal, m.ReadOrdinal, own)
		}
	}
	return sum
}

// marksOfAll returns the watermarks of all who are or were members. The caller holds the slot's lock.
func (t *threadEntry) marksOfAll() []Mark {
	if t.marks == nil {
		t.marks = make([]Mark, 0, len(t.state.Marks))
		for u, w := range t.state.Marks {
			if t.state.Members[u] != nil {
				t.marks = append(t.marks, Mark{u, w})
			}
		}
	}
	return t.marks
}

// EnsureThread makes a thread live here on behalf of a user who is about to join it, and waits until it is. It stays so
// for Linger unless a user of this edge has joined it.
func (r *Replica) EnsureThread(ctx context.Context, t id.ThreadID) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	defer cancel()
	s := r.slotOf(topic.Subject(t))
	for first := true; ; first = false {
		s.mu.Lock()
		ts := s.threads[t]
		if ts == nil {
			ts = r.addThread(s, t)
		}
		r.relax(&ts.subject)
		if ts.loaded() {
			s.mu.Unlock()
			return nil
		}
		if first {
			r.again(s, &ts.subject)
		}
		if full := ts.full(); full != nil {
			s.mu.Unlock()
			return full
		}
		news := waited(&ts.news)
		s.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			return Unavailable(context.Cause(ctx))
		}
	}
}
