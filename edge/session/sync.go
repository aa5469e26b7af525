package session

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"heliograph/edge/fanout"
	"heliograph/infra/run"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// syncing is one run of Sync.
type syncing struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// sync answers Sync (wire 5.1, 5.5, 5.6). It may come again at any time: then the run before is cut short, since this
// one sends all that it would have. Done answers a request with an id once SyncComplete is on its way. With a store
// that is down the session stays, and sends what was missed when the store is back: the device can go on sending
// meanwhile. has is what the device has, if it says so (wire 12.1). Reader only.
func (s *Session) sync(ctx context.Context, req uint64, has fanout.Known, window int) {
	held := len(has) * haveWeight // since have
	answered, ok := s.begin(req, 0)
	if !ok {
		s.Hold(-held)
		return
	}
	finish := func() {
		s.Hold(-held)
		answered()
	}
	if s.syncRate == nil {
		s.syncRate = rate.NewLimiter(rate.Limit(syncRate), syncBurst)
	}
	turn := s.syncRate // each asks the store for every thread
	ctx, cancel := context.WithCancel(ctx)
	me := &syncing{cancel: cancel, done: make(chan struct{})}
	s.mu.Lock()
	if len(s.syncs) > 1 {
		s.mu.Unlock()
		cancel()
		finish()
		s.refuse(req, wire.Errorf(wirev1.Code_CODE_TOO_MANY_REQUESTS, "a Sync waits already"))
		return
	}
	var before *syncing
	if len(s.syncs) == 1 {
		before = s.syncs[0]
		before.cancel()
	}
	s.syncs = append(s.syncs, me)
	if s.lagged != nil {
		s.lagged.Stop()
		s.lagged = nil
	}
	s.mu.Unlock()
	if !s.spawn(func() {
		defer finish()
		if before != nil {
			<-before.done
		}
		defer close(me.done)
		defer cancel()
		s.out.resume()
		err := turn.Wait(ctx)
		if err == nil {
			err = s.catchUp(ctx, has, window)
		}
		s.mu.Lock()
		s.syncs = slices.DeleteFunc(s.syncs, func(y *syncing) bool { return y == me })
		s.mu.Unlock()
		e, _ := refusal(err)
		switch {
		case err == nil:
			s.reply(req, wirev1.ServerFrame_builder{Done: &wirev1.Done{}})
		case ctx.Err() != nil, s.out.isLagging(): // another run, or the answer to Resync, makes up for it
			s.fail(req, err)
		default:
			s.close(e.Code, e.Message) // or the device would wait for ever
		}
	}) {
		cancel()
		finish()
	}
}

// have takes down what the device has, until its Sync (wire 12.1, 12.2). Reader only.
func (s *Session) have(req uint64, m *wirev1.Have) error {
	if s.has == nil {
		s.has = fanout.Known{}
	}
	before := len(s.has)
	defer func() { s.Hold((len(s.has) - before) * haveWeight) }()
	for _, c := range m.GetThreads() {
		t, err := id.From[id.ThreadID](c.GetThreadId())
		if err != nil || c.GetPosition() < -1 || c.GetOwnOrdinal() < 0 {
			return wire.Errorf(wirev1.Code_CODE_PROTOCOL, "a cursor that is none")
		}
		s.has[t] = fanout.Has{
			Position: topic.Position(c.GetPosition()), Receipts: wire.Digest(c.GetReceipts()), Own: c.GetOwnOrdinal(),
		}
	}
	switch n := len(s.has); {
	case n > wire.MaxHave:
		return wire.Errorf(wirev1.Code_CODE_PROTOCOL, "more than %d threads before a Sync", wire.MaxHave)
	case n > leastHave && n*haveWeight > s.Room(wire.MaxHave*haveWeight):
		return wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "too little memory is free for what the device has")
	}
	s.reply(req, wirev1.ServerFrame_builder{Done: &wirev1.Done{}})
	return nil
}

// more answers SyncMore (wire 12.4).
func (s *Session) more(ctx context.Context, threads int) (wirev1.ServerFrame_builder, error) {
	rest, err := s.srv.fanout.More(ctx, s, threads)
	return wirev1.ServerFrame_builder{SyncComplete: wirev1.SyncComplete_builder{Rest: uint32(rest)}.Build()}, err
}

// catchUp runs a Sync until it ends well, or in an error that does not pass.
func (s *Session) catchUp(ctx context.Context, has fanout.Known, window int) error {
	backoff := run.Backoff{Min: 100 * time.Millisecond, Max: 3 * time.Second}
	for {
		err := s.srv.fanout.Sync(ctx, s, has, window)
		if err == nil {
			s.setSynced()
			return nil
		}
		e, known := refusal(err)
		if !known {
			s.srv.log.Error("sync failed", "user", s.user, "device", s.device, "err", err)
		}
		if ctx.Err() != nil || s.out.isLagging() || errors.Is(err, errClosed) || !e.Retriable() {
			return err
		}
		if err := backoff.Wait(ctx); err != nil {
			return err
		}
	}
}
