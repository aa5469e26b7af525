package session

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"

	"golang.org/x/time/rate"

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
	markInvalid = "invalid" // not a thread's id
	markUnknown = "unknown" // the thread is not live here, or the user never was in it
)

// watermarks takes what the device has stored and shown (section 6). A device cannot claim more than the thread has. Each may become a record in the log, even
// if it says what the one before said, so a device that sends too many is read no further for a while. Reader only.
func (s *Session) watermarks(ctx context.Context, w *wirev1.Watermarks) {
	if s.moves == nil {
		s.moves = rate.NewLimiter(rate.Limit(s.srv.cfg.WatermarkRate), s.srv.cfg.WatermarkBurst)
	}
	for n := len(w.GetItems()); n > 0; n -= s.srv.cfg.WatermarkBurst {
		if s.moves.WaitN(ctx, min(n, s.srv.cfg.WatermarkBurst)) != nil {
			return // the connection has ended: the device says it again on the next
		}
	}
	for _, m := range w.GetItems() {
		s.srv.metrics.watermarks.WithLabelValues(s.watermark(m)).Inc()
	}
}

func (s *Session) watermark(m *wirev1.Watermark) (outcome string) {
	t, err := id.From[id.ThreadID](m.GetThreadId())
	if err != nil {
		return markInvalid
	}
	v, ok := s.srv.hub.View(t)
	if !ok || v.Kind == thread.None || !v.Roster.WasMember(s.user) {
		return markUnknown
	}
	read := thread.Watermark{ReadPosition: topic.Position(m.GetReadPosition()), ReadOrdinal: m.GetReadOrdinal()}
	known := s.srv.hub.Watermark(t, s.user)
	read = read.Merge(thread.Watermark{ReadPosition: known.ReadPosition, ReadOrdinal: known.ReadOrdinal})
	position := func(p topic.Position) topic.Position { return max(0, min(p, v.LastPosition)) }
	ordinal := func(o int64) int64 { return max(0, min(o, v.LastOrdinal)) }
	s.srv.ingest.Watermark(t, s.user, s.device, thread.Watermark{
		DeliveredPosition: position(topic.Position(m.GetDeliveredPosition())), DeliveredOrdinal: ordinal(m.GetDeliveredOrdinal()),
		ReadPosition: position(read.ReadPosition), ReadOrdinal: ordinal(read.ReadOrdinal),
	})
	return markTaken
}

// own appends an event to the session's own user and waits.
func (s *Session) own(ctx context.Context, b eventv1.Event_builder) (wirev1.ServerFrame_builder, error) {
	b.UserId, b.DeviceId = s.user[:], s.device[:]
	if _, err := s.appendAll(ctx, topic.Users, []id.UserID{s.user}, b.Build()); err != nil {
		return wirev1.ServerFrame_builder{}, fmt.Errorf("append to own user: %w", err)
	}
	return wirev1.ServerFrame_builder{Done: &wirev1.Done{}}, nil
}

func (s *Session) setProfile(ctx context.Context, r *wirev1.SetProfile) (wirev1.ServerFrame_builder, error) {
	if r.GetName() == "" || !user.ValidName(r.GetName()) {
		return wirev1.ServerFrame_builder{}, invalid("name is not 1 to %d bytes of plain text", user.MaxName)
	}
	return s.own(ctx, eventv1.Event_builder{ProfileChanged: eventv1.ProfileChanged_builder{Name: r.GetName()}.Build()})
}

// linkDevice approves a further device. What the store knows is checked first; two approvals at one time are judged by the fold.
func (s *Session) linkDevice(ctx context.Context, r *wirev1.LinkDevice) (wirev1.ServerFrame_builder, error) {
	var none wirev1.ServerFrame_builder
	d, err := id.From[id.DeviceID](r.GetDeviceId())
	switch {
	case err != nil || !d.Valid():
		return none, invalid("device_id is not a UUIDv7")
	case len(r.GetPublicKey()) != ed25519.PublicKeySize:
		return none, invalid("public_key has %d bytes, needs %d", len(r.GetPublicKey()), ed25519.PublicKeySize)
	case !user.ValidName(r.GetDeviceName()):
		return none, invalid("device_name is longer than %d bytes or not plain text", user.MaxName)
	}
	have, err := s.srv.queries.ListDevices(ctx, s.user)
	if err != nil {
		return none, err
	}
	if len(have.GetDevices()) >= user.MaxDevices {
		return none, wire.Errorf(wirev1.Code_CODE_NOT_ALLOWED, "a user has at most %d devices", user.MaxDevices)
	}
	for _, x := range have.GetDevices() {
		if bytes.Equal(x.GetDeviceId(), d[:]) {
			return none, wire.Errorf(wirev1.Code_CODE_CONFLICT, "the device is linked already")
		}
	}
	return s.own(ctx, eventv1.Event_builder{DeviceLinked: eventv1.DeviceLinked_builder{
		DeviceId: d[:], PublicKey: r.GetPublicKey(), DeviceName: r.GetDeviceName(),
	}.Build()})
}

// revokeDevice revokes a device of the own user, this one included. Revoking one that is not there, or no longer, does nothing.
func (s *Session) revokeDevice(ctx context.Context, r *wirev1.RevokeDevice) (wirev1.ServerFrame_builder, error) {
	d, err := id.From[id.DeviceID](r.GetDeviceId())
	if err != nil {
		return wirev1.ServerFrame_builder{}, invalid("device_id is not a device's id")
	}
	return s.own(ctx, eventv1.Event_builder{DeviceRevoked: eventv1.DeviceRevoked_builder{DeviceId: d[:]}.Build()})
}
