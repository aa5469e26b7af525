package session

import (
	"maps"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// A sender's messages to a thread must not overtake each other. When one is refused for now, those behind it are on
// their way already; so they are refused too until it has come again or was given up (wire 7.4), also when the log
// turns out to have it: only that tells that the device knows of the refusals behind it.

// head is a message that was refused for now and must come again before any later one of its thread.
type head struct {
	message id.MessageID
	nth     uint64
	refused *wire.Error
	until   time.Time // by then nothing can be on its way any more that was sent before the refusal was read
}

const (
	// maxHeads bounds Session.heads.
	maxHeads = wire.MaxInflight
	// headLasts is how long a message is waited for that does not come again.
	headLasts = time.Minute
)

// refuseSend answers a message with an error. Whatever is refused because of it is answered after it (wire 7.4).
func (s *Session) refuseSend(x sending, err error) {
	e := s.judge(err)
	s.mu.Lock()
	tooMany := s.holdBehind(x, e)
	v := s.handRefusal(x.req, e)
	s.mu.Unlock()
	s.handed(v)
	if tooMany {
		s.Close(wirev1.Code_CODE_SLOW_CONSUMER)
	}
}

// abandon takes AbandonMessage (wire 7.5). Reader only: what the device has sent before it was judged without it.
func (s *Session) abandon(req uint64, r *wirev1.AbandonMessage) {
	t, err := threadID(r.GetThreadId())
	if err != nil {
		s.fail(req, err)
		return
	}
	m, err := id.From[id.MessageID](r.GetMessageId())
	if err != nil {
		s.refuse(req, invalid("message_id is not a message's id"))
		return
	}
	s.mu.Lock()
	if h, held := s.heads[t]; held && h.message == m {
		delete(s.heads, t)
	}
	s.mu.Unlock()
	s.reply(req, wirev1.ServerFrame_builder{Done: &wirev1.Done{}})
}

// holdBehind makes a refused message the head of its thread, unless an earlier one is or the refusal is for good.
// tooMany: there is no room, and only a new connection keeps the order. The caller holds mu.
func (s *Session) holdBehind(x sending, e *wire.Error) (tooMany bool) {
	if !e.Retriable() || x.req == 0 { // whoever wants no answer does not send it again
		return false
	}
	h, held := s.heads[x.thread]
	switch {
	case held && h.nth < x.nth:
		return false
	case !held && len(s.heads) >= maxHeads:
		maps.DeleteFunc(s.heads, func(_ id.ThreadID, h head) bool { return time.Now().After(h.until) })
		if len(s.heads) >= maxHeads {
			return true
		}
	case s.heads == nil:
		s.heads = map[id.ThreadID]head{}
	}
	s.heads[x.thread] = head{message: x.message, nth: x.nth, refused: e, until: time.Now().Add(headLasts)}
	return false
}

// outOfTurn refuses a message behind one that must come first. The caller holds mu.
func (s *Session) outOfTurn(x sending) *wire.Error {
	h, held := s.heads[x.thread]
	switch {
	case !held, x.nth < h.nth: // it waited in a lane meanwhile
		return nil
	case h.message == x.message || time.Now().After(h.until):
		delete(s.heads, x.thread)
		return nil
	}
	return &wire.Error{
		Code:    wirev1.Code_CODE_OUT_OF_TURN,
		Message: "an earlier message of the thread must come first", RetryAfter: s.after(h.refused), First: h.message,
	}
}
