package chat

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quic-go/quic-go"

	"heliograph/edge/client"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Words says what went wrong so that whoever chats knows what to do about it. now is for the time of day of the next
// try.
func Words(err error, now time.Time) string {
	if err == nil {
		return ""
	}
	var we *wire.Error
	if !errors.As(err, &we) {
		var fault *client.Fault
		switch {
		case errors.As(err, &fault):
			return faultWords(fault)
		case errors.Is(err, context.DeadlineExceeded):
			return "no answer in time; is the edge reachable?"
		case errors.Is(err, client.ErrOutboxFull):
			return "the outbox is full; wait until the connection is back"
		case errors.Is(err, client.ErrRegistered):
			return "this profile is registered already"
		case errors.Is(err, client.ErrNotRegistered):
			return "this profile is not registered yet; run 'helio chat' once, or 'helio chat register'"
		case errors.Is(err, client.ErrLocked):
			return "this profile is open in another terminal; choose another one with --as"
		}
		var app *quic.ApplicationError
		if errors.As(err, &app) && app.ErrorMessage != "" {
			return CleanLine(app.ErrorMessage)
		}
		return CleanLine(err.Error())
	}
	again := "try again in a moment"
	if we.RetryAfter > 0 {
		wait := we.RetryAfter.Round(time.Second)
		again = fmt.Sprintf("try again in %v, at %s", wait, now.Add(wait).Format("15:04:05"))
	}
	switch we.Code {
	case wirev1.Code_CODE_AUTHENTICATION_FAILED:
		return "that PIN is wrong, has expired or was used already; after five wrong ones ask for a new PIN"
	case wirev1.Code_CODE_RATE_LIMITED, wirev1.Code_CODE_TOO_MANY_REQUESTS:
		return "too many attempts; " + again
	case wirev1.Code_CODE_UNAVAILABLE:
		return "the server cannot do that just now; " + again
	case wirev1.Code_CODE_INTERNAL:
		return "something broke inside the server; " + again
	case wirev1.Code_CODE_INVALID_PHONE:
		return CleanLine(we.Message) + "; write the number with its country code, like +49 1512 3456789"
	case wirev1.Code_CODE_DEVICE_REVOKED:
		return "this device was signed out: the number was registered again on another device"
	case wirev1.Code_CODE_SUPERSEDED:
		return "this profile was opened elsewhere"
	case wirev1.Code_CODE_NOT_A_MEMBER:
		return "you are not a member of this group"
	case wirev1.Code_CODE_THREAD_PARKED:
		return "this conversation is stopped until the server's operators have mended it; it can be read"
	case wirev1.Code_CODE_NOT_ALLOWED:
		return "only admins of the group may do that"
	case wirev1.Code_CODE_NOT_ADDABLE:
		return "some of them cannot be added, but invited"
	case wirev1.Code_CODE_UNKNOWN_USER:
		return "there is no such user"
	case wirev1.Code_CODE_TOO_LARGE:
		return "too long: a message has at most 65,536 bytes, a title 256"
	case wirev1.Code_CODE_GROUP_FULL:
		return "the group is full"
	case wirev1.Code_CODE_VERSION:
		return "the server speaks another version of the protocol"
	default:
		return CleanLine(strings.ReplaceAll(wire.Lookup(we.Code).Name, "_", " ") + ": " + we.Message)
	}
}

// faultWords says what is wrong and who can mend it.
func faultWords(f *client.Fault) string {
	detail := " (" + CleanLine(f.Addr+": "+f.Detail) + ")"
	switch {
	case errors.Is(f, client.ErrClock):
		return "the server's certificate is not valid by this machine's clock: set the clock, or tell the operator " +
			"that the certificate has run out" + detail
	case errors.Is(f, client.ErrCertificate):
		return "the server's certificate is not to be trusted: check the address, and --ca if the server has an " +
			"authority of its own" + detail
	default:
		return "that is no server of Heliograph: check the address" + detail
	}
}
