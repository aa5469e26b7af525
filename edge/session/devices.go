package session

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"time"

	"golang.org/x/time/rate"

	"heliograph/edge/auth"
	"heliograph/edge/wording"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// The outcomes of helio_session_watermarks_total.
const (
	markTaken   = "taken"
	markInvalid = "invalid"   // not a thread's id
	markUnknown = "unknown"   // the thread is not live here, or the user never was in it
	markAhead   = "ahead"     // waits until this edge has read as far; counted again when that is so
	markFull    = "full"      // too many wait already
	markSame    = "unchanged" // the log has the device say so already: nothing is written
	markLate    = "late"      // the log has a lower one behind it, of an edge that the device has left: said again
)

// watermarks takes what the device has stored and shown (wire 6.2, 6.4). A device cannot claim more than the thread
// has. Each may become a record in the log, unless the log has the device say so already: a device that sends too many
// is read no further for a while. With a request id it is told when all were taken. Reader only.
func (s *Session) watermarks(ctx context.Context, req uint64, w *wirev1.Watermarks) {
	if s.moves == nil && len(w.GetItems()) > 0 { // the keep-alives of an idle device have none
		s.moves = rate.NewLimiter(rate.Limit(s.srv.cfg.WatermarkRate), s.srv.cfg.WatermarkBurst)
	}
	for n := len(w.GetItems()); n > 0; n -= s.srv.cfg.WatermarkBurst {
		if s.moves.WaitN(ctx, min(n, s.srv.cfg.WatermarkBurst)) != nil {
			return // the connection has ended: the device says it again on the next
		}
	}
	var refused *wire.Error
	for _, m := range w.GetItems() {
		outcome := s.watermark(ctx, m)
		s.srv.metrics.watermarks.WithLabelValues(outcome).Inc()
		switch outcome {
		case markInvalid:
			refused = invalid("thread_id is not a thread's id")
		case markFull:
			if refused == nil {
				refused = wire.Errorf(wirev1.Code_CODE_TOO_MANY_REQUESTS, "too many watermarks wait already")
			}
		}
	}
	if refused != nil {
		s.refuse(req, refused)
		return
	}
	s.reply(req, wirev1.ServerFrame_builder{Done: &wirev1.Done{}})
}

func (s *Session) watermark(ctx context.Context, m *wirev1.Watermark) (outcome string) {
	t, err := id.From[id.ThreadID](m.GetThreadId())
	if err != nil {
		return markInvalid
	}
	claim := thread.Watermark{}.Merge(thread.Watermark{
		DeliveredPosition: topic.Position(m.GetDeliveredPosition()), DeliveredOrdinal: m.GetDeliveredOrdinal(),
		ReadPosition: topic.Position(m.GetReadPosition()), ReadOrdinal: m.GetReadOrdinal(),
	})
	s.mu.Lock()
	claim = claim.Merge(s.ahead[t])
	s.mu.Unlock()
	if outcome = s.move(t, claim); outcome == markAhead && !s.await(ctx, t, claim) {
		outcome = markFull
	}
	return outcome
}

// move has a claim written, cut to what the thread has (wire 6.3). Of what this edge has not read yet it cannot tell
// what the thread has: then nothing is written, for a receipt that is lower than one of before would be what compaction
// keeps.
func (s *Session) move(t id.ThreadID, claim thread.Watermark) (outcome string) {
	v, ok := s.srv.replica.View(t)
	switch {
	case !ok || v.Kind == thread.None || !v.Roster.WasMember(s.user):
		return markUnknown
	case max(claim.DeliveredPosition, claim.ReadPosition) >= v.Next && !v.Quarantined:
		return markAhead
	}
	known := s.srv.replica.Watermark(t, s.user)
	w := thread.Watermark{
		DeliveredPosition: min(claim.DeliveredPosition, v.LastPosition),
		DeliveredOrdinal:  min(claim.DeliveredOrdinal, v.LastOrdinal),
		ReadPosition:      max(known.ReadPosition, min(claim.ReadPosition, v.LastPosition)),
		ReadOrdinal:       max(known.ReadOrdinal, min(claim.ReadOrdinal, v.LastOrdinal)),
	}
	s.mu.Lock()
	had := s.logged[t].w // what was only handed in may have been dropped: that counts for nothing
	s.mu.Unlock()
	if w == (thread.Watermark{}) || had.Merge(w) == had {
		return markSame
	}
	s.srv.ingest.Watermark(t, s.user, s.device, w)
	return markTaken
}

// logged is the most that the log has a device say of a thread, and the place up to which that is known.
type logged struct {
	at topic.Position
	w  thread.Watermark
}

// maxLogged bounds Session.logged: all threads of a user. What it does not know is not mended, and written again when
// the device says it again. loggedWeight is the bytes of one.
const maxLogged, loggedWeight = user.MaxThreads, 128

// Logged implements fanout.Session. A receipt that says less than one before it in the log comes from an edge that the
// device has left, which was slow to write it: a log that is compacted would keep that one and drop the other, so what
// the device has said is said again.
func (s *Session) Logged(t id.ThreadID, at topic.Position, w thread.Watermark) {
	s.mu.Lock()
	had, known := s.logged[t]
	if s.over || known && at <= had.at { // the link repeats itself
		s.mu.Unlock()
		return
	}
	most := had.w.Merge(w)
	if s.logged == nil {
		s.logged = map[id.ThreadID]logged{}
	}
	switch {
	case known:
	case len(s.logged) < maxLogged:
		s.Hold(loggedWeight)
	default:
		for any := range s.logged {
			delete(s.logged, any)
			break
		}
	}
	s.logged[t] = logged{at, most}
	s.mu.Unlock()
	if w != most {
		s.srv.metrics.watermarks.WithLabelValues(markLate).Inc()
		s.srv.ingest.Watermark(t, s.user, s.device, most)
	}
}

// maxAhead bounds Session.ahead.
const maxAhead = 1024

// await keeps a claim until this edge has read as far. False: too many wait. Reader only.
func (s *Session) await(ctx context.Context, t id.ThreadID, claim thread.Watermark) bool {
	s.mu.Lock()
	begin := len(s.ahead) == 0
	if begin {
		s.ahead = map[id.ThreadID]thread.Watermark{}
	}
	if _, waits := s.ahead[t]; !waits && len(s.ahead) >= maxAhead {
		s.mu.Unlock()
		return false
	}
	s.ahead[t] = claim
	s.mu.Unlock()
	if begin {
		s.spawn(func() { s.follow(ctx) })
	}
	return true
}

// followFor is how long follow waits for one claim before it looks at the others.
const followFor = time.Second

// follow is the goroutine that writes claims as this edge gets to where they are. What the end of the connection leaves
// over, the device says again on the next.
func (s *Session) follow(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		claims := maps.Clone(s.ahead)
		if len(claims) == 0 {
			s.ahead = nil
		}
		s.mu.Unlock()
		var wait id.ThreadID // for one of those that are left; most come together
		for t, claim := range claims {
			outcome := s.move(t, claim)
			if outcome == markAhead {
				wait = t
				continue
			}
			s.srv.metrics.watermarks.WithLabelValues(outcome).Inc()
			s.mu.Lock()
			if s.ahead[t] == claim {
				delete(s.ahead, t)
			}
			s.mu.Unlock()
		}
		switch {
		case len(claims) == 0:
			return
		case wait != id.ThreadID{}:
			limited, cancel := context.WithTimeout(ctx, followFor)
			upTo := max(claims[wait].DeliveredPosition, claims[wait].ReadPosition)
			_, _, _ = s.srv.replica.Await(limited, wait, func(v View, known bool) bool {
				return !known || v.Next > upTo || v.Quarantined
			})
			cancel()
		}
	}
}

// tell appends an event to the session's own user and waits.
func (s *Session) tell(ctx context.Context, b eventv1.Event_builder) (wirev1.ServerFrame_builder, error) {
	b.UserId, b.DeviceId = s.user[:], s.device[:]
	got, err := s.appendAll(ctx, topic.Users, []id.UserID{s.user}, b.Build())
	if err != nil {
		return wirev1.ServerFrame_builder{}, fmt.Errorf("append to own user: %w", err)
	}
	s.acknowledged(topic.Users, got[0].Slot, got[0].Position)
	return wirev1.ServerFrame_builder{Done: &wirev1.Done{}}, nil
}

func (s *Session) setProfile(ctx context.Context, r *wirev1.SetProfile) (wirev1.ServerFrame_builder, error) {
	name, err := wording.Name(r.GetName())
	if err != nil {
		return wirev1.ServerFrame_builder{}, invalid("name is %v; at most %d characters", err, wording.NameChars)
	}
	if err := s.spend(ctx, auth.Profile, 1); err != nil {
		return wirev1.ServerFrame_builder{}, err
	}
	return s.tell(ctx, eventv1.Event_builder{ProfileChanged: eventv1.ProfileChanged_builder{Name: name}.Build()})
}

// linkDevice approves a further device; doing so again with the same key is safe. What the store knows is checked
// first; two approvals at one time are judged by the fold.
func (s *Session) linkDevice(ctx context.Context, r *wirev1.LinkDevice) (wirev1.ServerFrame_builder, error) {
	var none wirev1.ServerFrame_builder
	d, err := id.From[id.DeviceID](r.GetDeviceId())
	switch {
	case err != nil || !d.Valid():
		return none, invalid("device_id is not a UUIDv7")
	case len(r.GetPublicKey()) != ed25519.PublicKeySize:
		return none, invalid("public_key has %d bytes, needs %d", len(r.GetPublicKey()), ed25519.PublicKeySize)
	}
	name, err := wording.OptionalName(r.GetDeviceName())
	if err != nil {
		return none, invalid("device_name is %v; at most %d characters", err, wording.NameChars)
	}
	have, err := s.devices(ctx)
	if err != nil {
		return none, err
	}
	for _, x := range have.GetDevices() {
		if !bytes.Equal(x.GetDeviceId(), d[:]) {
			continue
		}
		switch known, err := s.deviceOf(ctx, d); {
		case err != nil:
			return none, err
		case known.Revoked || !bytes.Equal(known.Key[:], r.GetPublicKey()):
			return none, wire.Errorf(wirev1.Code_CODE_CONFLICT, "the device is linked already, with another key")
		}
		return wirev1.ServerFrame_builder{Done: &wirev1.Done{}}, nil // repeating is safe
	}
	if len(have.GetDevices()) >= user.MaxDevices {
		return none, wire.Errorf(wirev1.Code_CODE_NOT_ALLOWED, "a user has at most %d devices", user.MaxDevices)
	}
	if err := s.spend(ctx, auth.Profile, 1); err != nil {
		return none, err
	}
	return s.tell(ctx, eventv1.Event_builder{DeviceLinked: eventv1.DeviceLinked_builder{
		DeviceId: d[:], PublicKey: r.GetPublicKey(), DeviceName: name,
	}.Build()})
}

// deviceOf returns a device of the own user, revoked or not.
func (s *Session) deviceOf(ctx context.Context, d id.DeviceID) (user.Device, error) {
	return inTurn(ctx, s.asking, func() (user.Device, error) { return s.srv.replica.DeviceKey(ctx, s.user, d) })
}

// revokeDevice revokes a device of the own user, this one included. Revoking one that is not there, or no longer, does
// nothing.
func (s *Session) revokeDevice(ctx context.Context, r *wirev1.RevokeDevice) (wirev1.ServerFrame_builder, error) {
	d, err := id.From[id.DeviceID](r.GetDeviceId())
	if err != nil {
		return wirev1.ServerFrame_builder{}, invalid("device_id is not a device's id")
	}
	// No budget stands in the way of a revocation: what would change nothing is not appended.
	known, err := s.deviceOf(ctx, d)
	if err == nil && known.Revoked || errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_AUTHENTICATION_FAILED}) {
		return wirev1.ServerFrame_builder{Done: &wirev1.Done{}}, nil
	}
	return s.tell(ctx, eventv1.Event_builder{DeviceRevoked: eventv1.DeviceRevoked_builder{DeviceId: d[:]}.Build()})
}
