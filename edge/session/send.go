package session

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"heliograph/edge/replica"
	"heliograph/edge/wording"
	"heliograph/ingest"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// sendPause is the least pause after a message that was over the rate: the next few are let through together.
const sendPause = 50 * time.Millisecond

// maxBegun bounds Session.begun.
const maxBegun = 64

// sending is a message on its way.
type sending struct {
	req     uint64
	nth     uint64 // of the connection's messages
	thread  id.ThreadID
	message id.MessageID
	peer    id.UserID // zero: not given
	m       *wirev1.SendMessage
}

// lane holds the messages to a thread that this edge does not know yet, in order (wire 7.3), while the first of them
// waits. Guarded by Session.mu.
type lane struct {
	queue []sending
}

// size is how many bytes it holds while it waits.
func (x *sending) size() int { return 256 + len(x.m.GetContent().GetData()) }

// room counts a message that is to wait in a lane; false when too much waits already. The caller holds mu.
func (s *Session) room(x *sending) bool {
	n := x.size()
	if s.laned > 0 && s.laned+n > s.Room(maxLanes) {
		return false
	}
	s.wait(n)
	return true
}

// wait counts n bytes more, or less, that wait in lanes. The caller holds mu.
func (s *Session) wait(n int) {
	s.laned += n
	s.Hold(n)
}

// sendMessage takes SendMessage (wire 7.1). It does not wait: what must wait goes to a lane. Reader only.
func (s *Session) sendMessage(ctx context.Context, req uint64, m *wirev1.SendMessage) {
	if s.sends == nil {
		s.sends = rate.NewLimiter(rate.Limit(s.srv.cfg.SendRate), s.srv.cfg.SendBurst)
	}
	x, err := s.parseSend(req, m)
	var refused *wire.Error
	if err == nil {
		s.mu.Lock()
		refused = s.outOfTurn(x)
		s.mu.Unlock()
	}
	if refused != nil { // before it is counted: what the rate allows is for those whose turn it is
		s.refuse(req, refused)
		return
	}
	var v View
	known := false
	if refused = over(s.sends); refused != nil {
		refused.RetryAfter = max(refused.RetryAfter, sendPause)
	} else if refused = s.enter(); refused == nil && err == nil {
		v, known = s.srv.replica.View(x.thread)
		// deliveries as far as this edge knows
		if refused = s.srv.budgets.take(s.user, max(1, v.ActiveMembers)); refused != nil {
			s.finish()
		}
	}
	switch {
	case err != nil && refused != nil:
		s.refuse(req, refused)
		return
	case err != nil:
		s.finish()
		s.fail(req, err)
		return
	case refused != nil:
		s.refuseSend(x, refused)
		return
	}
	s.mu.Lock()
	if refused = s.outOfTurn(x); refused == nil { // the lane may have failed meanwhile
		if l := s.lanes[x.thread]; l != nil {
			room := s.room(&x)
			if room {
				l.queue = append(l.queue, x) // bounded by the requests in flight too
			}
			s.mu.Unlock()
			if !room {
				s.tooMuchWaits(x)
			}
			return
		}
	}
	s.mu.Unlock()
	if refused != nil {
		s.finish()
		s.refuse(req, refused)
		return
	}
	if s.sendTo(v, known, x) {
		return
	}
	l := &lane{queue: []sending{x}}
	s.mu.Lock()
	if !s.room(&x) {
		s.mu.Unlock()
		s.tooMuchWaits(x)
		return
	}
	if s.lanes == nil {
		s.lanes = map[id.ThreadID]*lane{}
	}
	s.lanes[x.thread] = l
	s.mu.Unlock()
	if !s.spawn(func() { s.drive(ctx, x.thread, l) }) {
		s.finish()
	}
}

// tooMuchWaits refuses a message for which there is no room in a lane (wire 2.4).
func (s *Session) tooMuchWaits(x sending) {
	s.finish()
	s.refuseSend(x, wire.Errorf(wirev1.Code_CODE_TOO_MANY_REQUESTS, "too much waits for its thread"))
}

func (s *Session) parseSend(req uint64, m *wirev1.SendMessage) (sending, error) {
	s.nth++
	x := sending{req: req, nth: s.nth, m: m}
	var err error
	if x.thread, err = threadID(m.GetThreadId()); err != nil {
		return x, err
	}
	if x.message, err = id.From[id.MessageID](m.GetMessageId()); err != nil || !x.message.Valid() {
		return x, invalid("message_id is not a UUIDv7")
	}
	if n := thread.SealedSize(m.GetContent(), m.GetReply()); n > thread.MaxSealed { // wire 7.8
		return x, wire.Errorf(wirev1.Code_CODE_TOO_LARGE, "the content has %d bytes, at most %d",
			n, thread.MaxSealed)
	}
	if empty(m.GetContent()) {
		return x, invalid("the content has nothing to be seen")
	}
	if len(m.GetDirectPeer()) != 0 {
		if x.peer, err = userID("direct_peer", m.GetDirectPeer()); err != nil {
			return x, err
		}
		if id.DirectThread(s.user, x.peer) != x.thread {
			return x, invalid("direct_peer does not belong to the thread")
		}
	}
	return x, nil
}

// empty tells whether nothing of plain content would be seen. What this version does not know is something.
func empty(c *eventv1.Sealed) bool {
	if c.GetKeyId() != 0 || plainly(c.GetData()) {
		return false
	}
	var content eventv1.Content
	if proto.Unmarshal(c.GetData(), &content) != nil {
		return false // ingest's to refuse
	}
	return wording.Blank(content.GetText()) && len(content.GetParts()) == 0 &&
		len(content.ProtoReflect().GetUnknown()) == 0
}

// plainly tells whether content is a text alone, and one that begins with something to be seen: nearly all is, and it
// need not be decoded to be found so.
func plainly(content []byte) bool {
	const text, enough = 1, 32
	n, kind, size := protowire.ConsumeTag(content)
	if size < 0 || n != text || kind != protowire.BytesType {
		return false
	}
	begin, rest := protowire.ConsumeBytes(content[size:])
	if rest != len(content)-size { // what follows may change it
		return false
	}
	if len(begin) > enough {
		cut := enough
		for cut > 0 && !utf8.RuneStart(begin[cut]) {
			cut--
		}
		begin = begin[:cut]
	}
	return !wording.Blank(string(begin))
}

// sendNow appends a message to a thread that this edge knows, or that this session has begun. False: it does not, yet.
func (s *Session) sendNow(x sending) bool {
	v, known := s.srv.replica.View(x.thread)
	return s.sendTo(v, known, x)
}

// sendTo is sendNow to a thread of which this edge knew so much a moment ago.
func (s *Session) sendTo(v View, known bool, x sending) bool {
	if known && (v.Kind != thread.None || v.Quarantined) {
		e := v.closed(s.user, false)
		if e != nil && !v.Roster.WasMember(s.user) {
			if x.peer.IsZero() {
				return false // a stranger waits as for a thread that is not there
			}
			e = v.closed(s.user, true) // the other member is himself
		}
		if e != nil {
			s.finish()
			s.refuseSend(x, e)
			return true
		}
		s.append(x, id.UserID{})
		return true
	}
	s.mu.Lock()
	peer, begun := s.begun[x.thread]
	s.mu.Unlock()
	if begun {
		s.append(x, peer)
	}
	return begun
}

// append hands a message over to the log; the ack comes on the producer's goroutine and goes straight to the outbox.
// peer is given while the thread may have no event yet, so that whichever message is the first can begin it.
func (s *Session) append(x sending, peer id.UserID) {
	// wire 7.2
	if seen, ok := s.srv.replica.Seen(x.thread, thread.Key{Sender: s.user, Message: x.message}); ok {
		s.finish()
		slot := topic.SlotOf(topic.Subject(x.thread), s.srv.cfg.Partitions)
		s.reply(x.req, ack(x.thread, x.message[:], slot, seen.Position, seen.TimeMS))
		return
	}
	sent := eventv1.MessageSent_builder{
		MessageId: x.message[:], Content: x.m.GetContent(), ReplyTo: x.m.GetReplyTo(), Reply: x.m.GetReply(),
		ClientTimeMs: x.m.GetClientTimeMs(),
	}
	if !peer.IsZero() {
		sent.DirectPeer = peer[:]
	}
	ev := eventv1.Event_builder{
		UserId: s.user[:], DeviceId: s.device[:], RequestId: wire.RequestID(s.tag[:], x.req), MessageSent: sent.Build(),
	}.Build()
	s.srv.ingest.Append(topic.Threads, topic.Subject(x.thread), ev, func(r ingest.Receipt, err error) {
		s.finish()
		if err != nil {
			s.refuseSend(x, err)
			return
		}
		s.acknowledged(topic.Threads, r.Slot, r.Position)
		s.reply(x.req, ack(x.thread, x.message[:], r.Slot, r.Position, r.LogTime.UnixMilli()))
	})
}

func ack(t id.ThreadID, message []byte, slot topic.Slot, at topic.Position, timeMS int64) wirev1.ServerFrame_builder {
	return wirev1.ServerFrame_builder{Ack: wirev1.Ack_builder{
		MessageId: message, ThreadId: t[:], Topic: topic.Threads.Number(), Slot: int32(slot), Position: int64(at),
		LogTimeMs: timeMS,
	}.Build()}
}

// drive is the goroutine of a lane: it sends what waits, in order, and ends when nothing does.
func (s *Session) drive(ctx context.Context, t id.ThreadID, l *lane) {
	for done := 0; ; {
		s.mu.Lock()
		s.wait(-done)
		if len(l.queue) == 0 {
			delete(s.lanes, t)
			s.mu.Unlock()
			return
		}
		x := l.queue[0]
		l.queue = l.queue[1:]
		done = x.size() // it waits until it is sent or refused
		refused := s.outOfTurn(x)
		s.mu.Unlock()
		if refused != nil {
			s.finish()
			s.refuse(x.req, refused)
			continue
		}
		if s.sendNow(x) {
			continue
		}
		err := s.prepare(ctx, x)
		if err == nil && s.sendNow(x) {
			continue
		}
		if err == nil {
			err = notMember()
		}
		e := s.judge(err)
		s.mu.Lock()
		failed := append([]sending{x}, l.queue...)
		for _, y := range l.queue {
			s.wait(-y.size())
		}
		l.queue = nil
		tooMany := s.holdBehind(x, e) // before any other message can come into the lane
		v := taken
		for _, y := range failed {
			why := e
			if y.message != x.message {
				if turn := s.outOfTurn(y); turn != nil {
					why = turn
				}
			}
			s.finish()
			if got := s.handRefusal(y.req, why); got != taken {
				v = got
			}
		}
		s.mu.Unlock()
		s.handed(v)
		if tooMany {
			s.Close(wirev1.Code_CODE_SLOW_CONSUMER)
		}
	}
}

// prepare waits until a message's thread is known here, or begins it when it is a direct one that does not exist (wire
// 7.7).
func (s *Session) prepare(ctx context.Context, x sending) error {
	ctx, cancel := context.WithTimeout(s.during(ctx, x.req), s.srv.cfg.RequestTimeout)
	defer cancel()
	if x.peer.IsZero() {
		_, err := s.member(ctx, x.thread)
		return err
	}
	// Before the first Sync the thread may exist and only not be loaded.
	if !s.hasSynced() {
		limited, cancel := context.WithTimeout(ctx, waitStarting)
		limited, stop := s.untilSynced(limited)
		_, _, _ = s.srv.replica.Await(limited, x.thread, func(v View, known bool) bool {
			return known && v.Kind != thread.None
		})
		stop()
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	since := s.cursor(x.thread)
	if v, ok := s.srv.replica.View(x.thread); ok && v.Kind != thread.None {
		return nil
	}
	users := []id.UserID{s.user}
	if x.peer != s.user {
		if err := s.exists(ctx, x.peer); err != nil {
			return err
		}
		users = append(users, x.peer)
	}
	if err := s.join(ctx, x.thread, users, since); err != nil {
		return err
	}
	s.mu.Lock()
	if s.begun == nil || len(s.begun) >= maxBegun {
		s.begun = map[id.ThreadID]id.UserID{}
	}
	s.begun[x.thread] = x.peer
	s.mu.Unlock()
	s.srv.metrics.begun.Inc()
	return nil
}

// notNew is the place of a thread that may have events.
const notNew = topic.Position(-1)

// cursor is how far this edge has read the slot of a thread: one that has no event yet, judged after this call, has
// none before it.
func (s *Session) cursor(t id.ThreadID) topic.Position {
	if at, ok := s.srv.replica.Cursor(topic.SlotOf(topic.Subject(t), s.srv.cfg.Partitions)); ok {
		return at.At(topic.Threads)
	}
	return notNew
}

// join tells users that they are about to be in a thread: ThreadJoined in the log for each, before the event in the
// thread that makes them members. since is a place before which the thread is known to have no event, or notNew: edges
// believe it. When the session's own user is among them it returns once this edge listens to the thread, from a place
// at or before its first event.
func (s *Session) join(ctx context.Context, t id.ThreadID, users []id.UserID, since topic.Position) error {
	joined := eventv1.ThreadJoined_builder{ThreadId: t[:]}
	if since != notNew {
		joined.NewThread, joined.SincePosition = true, int64(since)
	}
	ev := eventv1.Event_builder{UserId: s.user[:], DeviceId: s.device[:], ThreadJoined: joined.Build()}.Build()
	receipts, err := s.appendAll(ctx, topic.Users, users, ev)
	if err != nil {
		return fmt.Errorf("append ThreadJoined of %s: %w", t, err)
	}
	for k, u := range users {
		if u != s.user {
			continue
		}
		// The other side may have begun the same thread a moment ago. What is ahead of our own ThreadJoined in this
		// user's slot, this edge has taken in by now, and the first one's beginning counts.
		own := receipts[k]
		limited, cancel := context.WithTimeout(ctx, waitStarting)
		err := s.srv.replica.WaitFor(limited, own.Slot, topic.Users, own.Position)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "this edge does not hear the log now")
		}
		if err := s.srv.replica.EnsureThread(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// appendAll appends one event of ctx's request to several users' subjects at once and waits for all.
func (s *Session) appendAll(
	ctx context.Context, t topic.Topic, users []id.UserID, ev *eventv1.Event,
) ([]ingest.Receipt, error) {
	type outcome struct {
		k   int
		r   ingest.Receipt
		err error
	}
	ev.SetRequestId(ingest.Request(ctx))
	outcomes := make(chan outcome, len(users))
	for k, u := range users {
		s.srv.ingest.Append(
			t, topic.Subject(u), ev, func(r ingest.Receipt, err error) { outcomes <- outcome{k, r, err} },
		)
	}
	receipts := make([]ingest.Receipt, len(users))
	var failed error
	for range users {
		select {
		case o := <-outcomes:
			receipts[o.k] = o.r
			if o.err != nil {
				failed = o.err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return receipts, failed
}

// rejection is the fold's verdict on an event that the log has: it changes nothing.
type rejection struct{ reason thread.Reason }

func (r rejection) Error() string { return "the fold rejects it: " + string(r.reason) }

// appendThread appends a change to a thread and answers by the verdict on it (wire 7.10): the ack of one that is
// accepted, which by then this edge has made, so that what its author does next finds it done; else a rejection. Where
// this edge does not come to it in time, nobody is told that it is done.
func (s *Session) appendThread(
	ctx context.Context, t id.ThreadID, b eventv1.Event_builder,
) (wirev1.ServerFrame_builder, error) {
	var none wirev1.ServerFrame_builder
	b.UserId, b.DeviceId = s.user[:], s.device[:]
	var got ingest.Receipt
	logged := false
	v, err := s.srv.replica.Judge(ctx, t, func(ctx context.Context) (topic.Position, error) {
		all, err := s.appendAll(ctx, topic.Threads, []id.UserID{id.UserID(t)}, b.Build())
		if err != nil {
			return 0, fmt.Errorf("append to %s: %w", t, err)
		}
		got, logged = all[0], true
		return got.Position, nil
	})
	switch {
	case err == nil && v.Outcome == thread.Rejected:
		return none, rejection{v.Reason}
	case err == nil:
		return ack(t, nil, got.Slot, got.Position, got.LogTime.UnixMilli()), nil
	case !logged:
		return none, err
	case errors.Is(err, replica.ErrParked):
		return none, parked()
	}
	return none, wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "the log has it; whether it counts is not known here yet")
}
