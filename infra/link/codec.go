package link

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

// MaxFrame bounds one encoded frame, either way. Writers split long lists well before it.
const MaxFrame = 4 << 20

// ErrMalformed is a frame that breaks link.proto; it closes the link.
var ErrMalformed = errors.New("link: malformed frame")

// decodeToEdge reads what an edge receives. A frame of an unknown kind is returned without a body.
func decodeToEdge(b []byte) (*linkv1.ToEdge, error) {
	m := new(linkv1.ToEdge)
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := checkToEdge(m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return m, nil
}

// decodeToDelivery reads what a delivery instance receives. A frame of an unknown kind is returned without a body.
func decodeToDelivery(b []byte) (*linkv1.ToDelivery, error) {
	m := new(linkv1.ToDelivery)
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := checkToDelivery(m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return m, nil
}

func checkToEdge(m *linkv1.ToEdge) error {
	switch m.WhichBody() {
	case linkv1.ToEdge_Owned_case:
		for _, s := range m.GetOwned().GetSlots() {
			if err := checkSlot(s); err != nil {
				return err
			}
		}
	case linkv1.ToEdge_Subscribed_case:
		return checkSlot(m.GetSubscribed().GetSlot())
	case linkv1.ToEdge_Events_case:
		e := m.GetEvents()
		if e.GetTopic() <= 0 { // one that this version does not know is the reader's to pass over
			return fmt.Errorf("topic number %d", e.GetTopic())
		}
		last := int64(-1)
		for _, r := range e.GetRecords() {
			if r.GetPosition() <= last {
				return fmt.Errorf("position %d follows %d", r.GetPosition(), last)
			}
			last = r.GetPosition()
			if len(r.GetKey()) < len(topic.Subject{}) {
				return fmt.Errorf("key of %d bytes", len(r.GetKey()))
			}
		}
		return checkSlot(e.GetSlot())
	case linkv1.ToEdge_Progress_case:
		for _, p := range m.GetProgress().GetSlots() {
			if err := checkSlot(p.GetSlot()); err != nil {
				return err
			}
			if err := checkCursor(p.GetNext()); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkToDelivery(m *linkv1.ToDelivery) error {
	var slot int32
	var subjects [][]byte
	switch m.WhichBody() {
	case linkv1.ToDelivery_Subscribe_case:
		slot, subjects = m.GetSubscribe().GetSlot(), m.GetSubscribe().GetSubjects()
		if err := checkCursor(m.GetSubscribe().GetFrom()); err != nil {
			return err
		}
	case linkv1.ToDelivery_Unsubscribe_case:
		slot, subjects = m.GetUnsubscribe().GetSlot(), m.GetUnsubscribe().GetSubjects()
	default:
		return nil
	}
	for _, s := range subjects {
		if len(s) != len(topic.Subject{}) {
			return fmt.Errorf("subject of %d bytes", len(s))
		}
	}
	return checkSlot(slot)
}

func checkSlot(s int32) error {
	if s < 0 || s >= topic.MaxPartitions {
		return fmt.Errorf("slot %d", s)
	}
	return nil
}
