package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"heliograph/edge/fanout"
	"heliograph/ingest"
	"heliograph/schemas/event"
	"heliograph/schemas/frame"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// errGone is the end of a session from outside: the device went, or Close was called.
var errGone = errors.New("the connection is gone")

// ErrNoStreams is what Conn.OpenPage fails with when the client lets the server open no streams.
var ErrNoStreams = errors.New("the client lets the server open no streams")

// refusal maps an error to what the device is told (wire 13.1, 13.6). known is false for an error that nobody foresaw:
// it must be logged, since the device is told nothing of it.
func refusal(err error) (out *wire.Error, known bool) {
	var we *wire.Error
	var bad *event.Invalid
	var no rejection
	switch {
	case errors.As(err, &we):
		return we, true
	case errors.As(err, &bad):
		if bad.TooLong {
			return wire.Errorf(wirev1.Code_CODE_TOO_LARGE, "%s %s", bad.Field, bad.Why), true
		}
		return wire.Errorf(wirev1.Code_CODE_INVALID, "%s %s", bad.Field, bad.Why), true
	case errors.As(err, &no):
		return wire.Errorf(fanout.CodeOf(no.reason), "the thread did not accept it: %s", no.reason), true
	case errors.Is(err, ErrNoStreams):
		return wire.Errorf(wirev1.Code_CODE_NOT_ALLOWED, "the client lets the server open no streams"), true
	case errors.Is(err, ingest.ErrUnavailable):
		return wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "the log does not take events now"), true
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		// the latter: it does not read its page
		return wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "timed out"), true
	case errors.Is(err, context.Canceled), errors.Is(err, errClosed), errors.Is(err, errLagging):
		return wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "interrupted"), true
	}
	return wire.Errorf(wirev1.Code_CODE_INTERNAL, ""), false
}

// readError says with which code a connection ends whose stream could not be read on.
func readError(err error) error {
	switch {
	case errors.Is(err, frame.ErrTooLarge):
		return wire.Errorf(wirev1.Code_CODE_FRAME_TOO_LARGE, "%v", err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return wire.Errorf(wirev1.Code_CODE_PROTOCOL, "the control stream ended within a frame")
	}
	return fmt.Errorf("%w: %w", errGone, err)
}

func invalid(format string, args ...any) *wire.Error {
	return wire.Errorf(wirev1.Code_CODE_INVALID, format, args...)
}

func notMember() *wire.Error {
	return wire.Errorf(wirev1.Code_CODE_NOT_A_MEMBER, "not a member of the thread, or it does not exist")
}
