package session

import (
	"context"
	"crypto/rand"
	"slices"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"heliograph/edge/auth"
	"heliograph/edge/fanout"
	"heliograph/ingest"
	"heliograph/schemas/event"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// handle takes one frame. An error closes the connection with its code. Reader only.
func (s *Session) handle(ctx context.Context, f *wirev1.ClientFrame) error {
	n := int(f.WhichBody())
	if n < 0 || n >= len(s.srv.metrics.received) {
		n = 0
	}
	s.srv.metrics.received[n].Inc()
	req := f.GetRequestId()
	if s.state != stateAuthenticated {
		return s.handleEarly(ctx, f, req)
	}
	switch f.WhichBody() {
	case wirev1.ClientFrame_Hello_case,
		wirev1.ClientFrame_RequestPin_case,
		wirev1.ClientFrame_Register_case,
		wirev1.ClientFrame_Authenticate_case:
		return wire.Errorf(wirev1.Code_CODE_PROTOCOL, "the connection is authenticated already")
	case wirev1.ClientFrame_SendMessage_case:
		s.sendMessage(ctx, req, f.GetSendMessage())
		return nil
	}
	if f.WhichBody() == wirev1.ClientFrame_Watermarks_case {
		s.watermarks(ctx, req, f.GetWatermarks())
		return nil
	}
	if f.WhichBody() == wirev1.ClientFrame_Have_case {
		return s.have(req, f.GetHave())
	}
	if s.requests == nil {
		s.requests = rate.NewLimiter(rate.Limit(requestRate), requestBurst)
	}
	if !s.allow(req, s.requests) {
		return nil
	}
	switch f.WhichBody() {
	case wirev1.ClientFrame_Sync_case:
		has := s.has
		if s.has = nil; !f.GetSync().GetOwnCursors() {
			s.Hold(-len(has) * haveWeight)
			has = nil
		} else if has == nil { // a device with nothing
			has = fanout.Known{}
		}
		s.sync(ctx, req, has, int(f.GetSync().GetWindow()))
	case wirev1.ClientFrame_SyncMore_case: // wire 12.4
		s.do(ctx, f, func(ctx context.Context) (wirev1.ServerFrame_builder, error) {
			return s.more(ctx, int(f.GetSyncMore().GetThreads()))
		})
	case wirev1.ClientFrame_Ping_case: // wire 2.5
		s.reply(req, wirev1.ServerFrame_builder{Pong: &wirev1.Pong{}})
	case wirev1.ClientFrame_AbandonMessage_case:
		s.abandon(req, f.GetAbandonMessage())
	case wirev1.ClientFrame_CreateGroup_case:
		s.do(ctx, f, func(ctx context.Context) (wirev1.ServerFrame_builder, error) {
			return s.createGroup(ctx, f.GetCreateGroup())
		})
	case wirev1.ClientFrame_AddMembers_case:
		s.do(ctx, f, func(ctx context.Context) (wirev1.ServerFrame_builder, error) {
			return s.addMembers(ctx, f.GetAddMembers())
		})
	case wirev1.ClientFrame_RemoveMember_case:
		s.do(ctx, f, func(ctx context.Context) (wirev1.ServerFrame_builder, error) {
			return s.removeMember(ctx, f.GetRemoveMember())
		})
	case wirev1.ClientFrame_LeaveThread_case:
		s.do(ctx, f, func(ctx context.Context) (wirev1.ServerFrame_builder, error) {
			return s.leaveThread(ctx, f.GetLeaveThread())
		})
	case wirev1.ClientFrame_RenameThread_case:
		s.do(ctx, f, func(ctx context.Context) (wirev1.ServerFrame_builder, error) {
			return s.renameThread(ctx, f.GetRenameThread())
		})
	case wirev1.ClientFrame_SetRole_case:
		s.do(
			ctx, f,
			func(ctx context.Context) (wirev1.ServerFrame_builder, error) { return s.setRole(ctx, f.GetSetRole()) },
		)
	case wirev1.ClientFrame_InviteMembers_case:
		s.do(ctx, f, func(ctx context.Context) (wirev1.ServerFrame_builder, error) {
			return s.inviteMembers(ctx, f.GetInviteMembers())
		})
	case wirev1.ClientFrame_WithdrawInvitation_case:
		s.do(ctx, f, func(ctx context.Context) (wirev1.ServerFrame_builder, error) {
			return s.withdrawInvitation(ctx, f.GetWithdrawInvitation())
		})
	case wirev1.ClientFrame_AnswerInvitation_case:
		s.do(ctx, f, func(ctx context.Context) (wirev1.ServerFrame_builder, error) {
			return s.answerInvitation(ctx, f.GetAnswerInvitation())
		})
	case wirev1.ClientFrame_SetMayAdd_case:
		s.do(ctx, f, func(ctx context.Context) (wirev1.ServerFrame_builder, error) {
			return s.setMayAdd(ctx, f.GetSetMayAdd())
		})
	case wirev1.ClientFrame_SetBlocked_case:
		s.do(ctx, f, func(ctx context.Context) (wirev1.ServerFrame_builder, error) {
			return s.setBlocked(ctx, f.GetSetBlocked())
		})
	case wirev1.ClientFrame_SetProfile_case:
		s.do(ctx, f, func(ctx context.Context) (wirev1.ServerFrame_builder, error) {
			return s.setProfile(ctx, f.GetSetProfile())
		})
	case wirev1.ClientFrame_LinkDevice_case:
		s.do(ctx, f, func(ctx context.Context) (wirev1.ServerFrame_builder, error) {
			return s.linkDevice(ctx, f.GetLinkDevice())
		})
	case wirev1.ClientFrame_RevokeDevice_case:
		s.do(ctx, f, func(ctx context.Context) (wirev1.ServerFrame_builder, error) {
			return s.revokeDevice(ctx, f.GetRevokeDevice())
		})
	case wirev1.ClientFrame_GetHistory_case:
		s.history(ctx, f)
	default:
		if read := s.reading(f); read != nil {
			s.do(ctx, f, read)
			return nil
		}
		if req != 0 { // else it is skipped (wire 1.6)
			s.refuse(req, wire.Errorf(wirev1.Code_CODE_UNKNOWN_REQUEST, "this server does not know the request"))
		}
	}
	return nil
}

// handleEarly takes a frame before authentication (wire 3.2, 3.6). These requests run one after the other: nothing else
// could go on meanwhile.
func (s *Session) handleEarly(ctx context.Context, f *wirev1.ClientFrame, req uint64) error {
	s.early++
	if s.early > maxEarlyFrames {
		return wire.Errorf(wirev1.Code_CODE_PROTOCOL, "more than %d frames without authentication",
			maxEarlyFrames)
	}
	switch f.WhichBody() {
	case wirev1.ClientFrame_Hello_case:
		if s.state != stateHello {
			return wire.Errorf(wirev1.Code_CODE_PROTOCOL, "a second Hello")
		}
		return s.hello(req, f.GetHello())
	case wirev1.ClientFrame_CheckPhone_case, wirev1.ClientFrame_RequestPin_case, wirev1.ClientFrame_Register_case,
		wirev1.ClientFrame_Authenticate_case:
		if s.state == stateHello {
			return wire.Errorf(wirev1.Code_CODE_PROTOCOL, "Hello comes first")
		}
	default:
		s.refuse(req, wire.Errorf(
			wirev1.Code_CODE_NOT_AUTHENTICATED,
			"only Hello, CheckPhone, RequestPin, Register and Authenticate are allowed yet",
		))
		return nil
	}
	if f.WhichBody() == wirev1.ClientFrame_CheckPhone_case {
		got, err := auth.CheckPhone(f.GetCheckPhone())
		if err != nil {
			s.fail(req, err)
			return nil
		}
		s.reply(req, wirev1.ServerFrame_builder{PhoneNumber: got})
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.srv.cfg.RequestTimeout)
	defer cancel()
	ctx = s.during(ctx, req)
	addr := s.conn.Remote()
	if f.WhichBody() == wirev1.ClientFrame_RequestPin_case {
		got, err := s.srv.auth.RequestPin(ctx, f.GetRequestPin(), addr)
		if err != nil {
			s.fail(req, err)
			return nil
		}
		s.deadline.Reset(pinTimeout)
		s.reply(req, wirev1.ServerFrame_builder{PinRequested: got})
		return nil
	}
	exporter, err := s.conn.Exporter()
	if err != nil {
		s.fail(req, err)
		return nil
	}
	var who auth.Identity
	if f.WhichBody() == wirev1.ClientFrame_Register_case {
		who, err = s.srv.auth.Register(ctx, f.GetRegister(), s.nonce, exporter, addr)
	} else {
		who, err = s.srv.auth.Authenticate(ctx, f.GetAuthenticate(), s.nonce, exporter, addr)
		s.background = f.GetAuthenticate().GetBackground()
	}
	if err == nil {
		err = s.attach(ctx, who)
	}
	if err != nil {
		s.user, s.device, s.floor, s.background = id.UserID{}, id.DeviceID{}, user.Floor{}, false
		return s.failEarly(req, err)
	}
	s.deadline.Stop()
	s.nonce = nil
	s.setState(stateAuthenticated)
	s.conn.Authenticated()
	s.srv.registry.Enter(s) // after Attach: an older session of the device lasts until this one can take over
	s.reply(req, wirev1.ServerFrame_builder{
		Authenticated: wirev1.Authenticated_builder{UserId: s.user[:], DeviceId: s.device[:]}.Build(),
	})
	return nil
}

// attach (wire 3.9) makes the fanout know the session as who has proved to be a device of a user.
func (s *Session) attach(ctx context.Context, who auth.Identity) error {
	s.user, s.device = who.User, who.Device
	dev, err := s.srv.fanout.Attach(ctx, s)
	if err != nil {
		return err
	}
	// a registration under a device id that was used before counts for nothing: the device is still the other's
	if dev.Key != who.Key {
		s.srv.fanout.Detach(s)
		return wire.Errorf(wirev1.Code_CODE_AUTHENTICATION_FAILED, "the device id was used before")
	}
	s.floor = dev.Floor()
	return nil
}

// failEarly answers a failed proof, or closes when the code says so: a revoked device (wire 3.5).
func (s *Session) failEarly(req uint64, err error) error {
	e, _ := refusal(err)
	if wire.Lookup(e.Code).Closes {
		return e
	}
	s.fail(req, err)
	return nil
}

func (s *Session) hello(req uint64, h *wirev1.Hello) error {
	if len(h.GetClient()) > wire.MaxClient || !event.OneLine(h.GetClient(), true) {
		s.refuse(req, invalid("client is longer than %d bytes or not plain text", wire.MaxClient))
		return nil
	}
	if !wire.ValidFeatures(h.GetFeatures()) {
		s.refuse(req, invalid("features are not at most %d sorted words", wire.MaxFeatures))
		return nil
	}
	s.nonce = make([]byte, wire.NonceSize)
	s.invites = slices.Contains(h.GetFeatures(), wire.Invitations)
	_, _ = rand.Read(s.nonce) // never fails: crypto/rand ends the process instead
	copy(s.tag[:], s.nonce)
	s.setState(stateUnauthenticated)
	s.reply(req, wirev1.ServerFrame_builder{Welcome: wirev1.Welcome_builder{
		Nonce: s.nonce, Edge: s.srv.cfg.Edge, Features: wire.Features,
		Limits: wirev1.Limits_builder{
			MaxFrameBytes: wire.MaxFrame, MaxTextBytes: thread.MaxText, MaxMembers: thread.MaxMembers,
			MaxInflight: uint32(s.srv.cfg.MaxInflight), MaxServerFrameBytes: wire.MaxServerFrame,
		}.Build(),
	}.Build()})
	return nil
}

// over judges a request by a rate; nil when it may go on.
func over(lim *rate.Limiter) *wire.Error {
	if lim.Allow() {
		return nil
	}
	r := lim.Reserve()
	wait := r.Delay()
	if r.OK() && wait == 0 {
		return nil
	}
	r.Cancel()
	return &wire.Error{
		Code:       wirev1.Code_CODE_RATE_LIMITED,
		Message:    "too many requests",
		RetryAfter: max(wait, time.Millisecond),
	}
}

// allow refuses a request that is over a rate.
func (s *Session) allow(req uint64, lim *rate.Limiter) bool {
	e := over(lim)
	if e != nil {
		s.refuse(req, e)
	}
	return e == nil
}

// enter (wire 2.4) counts a request in, and finish counts it out; an error: it was not, because too many are in
// already.
func (s *Session) enter() *wire.Error {
	if int(s.inflight.Add(1)) <= s.srv.cfg.MaxInflight {
		return nil
	}
	s.inflight.Add(-1)
	return wire.Errorf(wirev1.Code_CODE_TOO_MANY_REQUESTS, "more than %d requests wait for an answer",
		s.srv.cfg.MaxInflight)
}

// begin is enter for a request, and counts the bytes that it keeps until its answer; else it is refused. done is its
// finish.
func (s *Session) begin(req uint64, size int) (done func(), ok bool) {
	e := s.enter()
	if asked := int(s.asked.Load()); e == nil && asked > 0 && size > 0 && asked+size > s.Room(maxAsked) {
		s.finish()
		e = wire.Errorf(wirev1.Code_CODE_TOO_MANY_REQUESTS, "too many bytes of requests wait for an answer")
	}
	if e != nil {
		s.refuse(req, e)
		return nil, false
	}
	s.asked.Add(int64(size))
	s.Hold(size)
	return func() {
		s.asked.Add(-int64(size))
		s.Hold(-size)
		s.finish()
	}, true
}

func (s *Session) finish() { s.inflight.Add(-1) }

// reply answers a request (wire 2.1); one without an id wants no answer (wire 2.3).
func (s *Session) reply(req uint64, b wirev1.ServerFrame_builder) {
	if req == 0 {
		return
	}
	b.RequestId = req
	s.answer(b)
}

// refuse answers a request with an error.
func (s *Session) refuse(req uint64, e *wire.Error) { s.handed(s.handRefusal(req, e)) }

// handRefusal is refuse, but for what hand leaves to its caller.
func (s *Session) handRefusal(req uint64, e *wire.Error) verdict {
	s.srv.metrics.refused(e.Code)
	if req == 0 {
		return taken
	}
	b := wirev1.Error_builder{Code: e.Code, Message: e.Message, RetryAfterMs: milliseconds(s.after(e))}
	if !e.First.IsZero() {
		b.MessageId = e.First[:]
	}
	if len(e.Users) > 0 {
		b.UserIds = rawUsers(e.Users)
	}
	return s.hand(wirev1.ServerFrame_builder{RequestId: req, Error: b.Build()})
}

// milliseconds rounds up, so that what is not 0 stays so.
func milliseconds(d time.Duration) uint32 {
	return uint32(min(max((d+time.Millisecond-1)/time.Millisecond, 0), 1<<31))
}

// after is when a refused request may come again; 0 where it may not (wire 13.5).
func (s *Session) after(e *wire.Error) time.Duration {
	if e.RetryAfter > 0 || !e.Retriable() {
		return e.RetryAfter
	}
	return s.srv.cfg.RetryAfter
}

// fail answers a request that ended in an error.
func (s *Session) fail(req uint64, err error) { s.refuse(req, s.judge(err)) }

// judge is refusal, and logs what nobody foresaw.
func (s *Session) judge(err error) *wire.Error {
	e, known := refusal(err)
	if !known {
		s.srv.log.Error("request failed", "user", s.user, "device", s.device, "err", err)
	}
	return e
}

// during returns a context for what a request does: what it appends carries its name (wire 2.7).
func (s *Session) during(ctx context.Context, req uint64) context.Context {
	return ingest.WithRequest(ctx, wire.RequestID(s.tag[:], req))
}

// do runs a request on a goroutine of its own (wire 2.2).
func (s *Session) do(
	ctx context.Context, f *wirev1.ClientFrame, fn func(context.Context) (wirev1.ServerFrame_builder, error),
) {
	req, kind := f.GetRequestId(), kindName(int(f.WhichBody()))
	done, ok := s.begin(req, proto.Size(f))
	if !ok {
		return
	}
	if !s.spawn(func() {
		defer done()
		begun := time.Now()
		ctx, cancel := context.WithTimeout(ctx, s.srv.cfg.RequestTimeout)
		defer cancel()
		b, err := fn(s.during(ctx, req))
		s.srv.metrics.requests.WithLabelValues(kind).Observe(time.Since(begun).Seconds())
		if err != nil {
			s.fail(req, err)
			return
		}
		s.reply(req, b)
	}) {
		done()
	}
}
