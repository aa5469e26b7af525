package event

import (
	"fmt"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// Invalid is an event that breaks the rules of the schema: it will never be taken.
type Invalid struct {
	// Field is the one that breaks them, as the schema names it.
	Field string
	// Why, in words; never the field's content.
	Why string
	// TooLong: it is the length of a text or title that is at fault.
	TooLong bool
}

// Error names the field and says why.
func (e *Invalid) Error() string { return "invalid event: " + e.Field + " " + e.Why }

// Invalidf makes an *Invalid.
func Invalidf(field, format string, args ...any) error {
	return &Invalid{Field: field, Why: fmt.Sprintf(format, args...)}
}

// TooLong makes an *Invalid of a text of n bytes that may have limit.
func TooLong(field string, n, limit int) error {
	return &Invalid{Field: field, Why: fmt.Sprintf("has %d bytes, at most %d", n, limit), TooLong: true}
}

// CheckID judges a field that must hold an id.
func CheckID(field string, b []byte) error {
	if len(b) != id.Size {
		return Invalidf(field, "has %d bytes, needs %d", len(b), id.Size)
	}
	return nil
}

// CheckOptionalID judges a field that may hold an id.
func CheckOptionalID(field string, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	return CheckID(field, b)
}

// First returns the first error that is not nil.
func First(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Check judges what every event has beside its body: who did it, and the bounds of the envelope.
func Check(e *Event) error {
	d, ok := Declared(e.Type)
	if !ok || !Known(e.Type) {
		return Invalidf("body", "of type %d is not written by this version", e.Type)
	}
	if n := len(e.GetUserId()); n != id.Size && (n != 0 || !d.System) {
		return Invalidf("user_id", "has %d bytes, needs %d", n, id.Size)
	}
	if n := len(e.GetProducer()); n > MaxProducer {
		return Invalidf("producer", "has %d bytes, at most %d", n, MaxProducer)
	}
	if n := len(e.GetRequestId()); n > MaxRequestID {
		return Invalidf("request_id", "has %d bytes, at most %d", n, MaxRequestID)
	}
	if c := e.GetCause(); c != nil {
		if _, err := topic.FromNumber(c.GetTopic()); err != nil {
			return Invalidf("cause", "names topic %d", c.GetTopic())
		}
		if c.GetSlot() < 0 || c.GetSlot() >= topic.MaxPartitions || c.GetPosition() < 0 {
			return Invalidf("cause", "names slot %d position %d", c.GetSlot(), c.GetPosition())
		}
	}
	return CheckOptionalID("device_id", e.GetDeviceId())
}

// Bounds of the envelope, in bytes.
const (
	// MaxProducer bounds Event.producer.
	MaxProducer = 64
	// MaxRequestID bounds Event.request_id.
	MaxRequestID = 64
)
