// Package wire holds what both sides of the device protocol share beside its frames (schemas/wire/v1, where the
// protocol is specified): the one table of codes and the bytes that a device signs.
package wire

import (
	"encoding/binary"
	"fmt"
	"time"

	"heliograph/schemas/id"
	wirev1 "heliograph/schemas/wire/v1"
)

// Protocol is the ALPN of the device protocol (wire 1.1).
const Protocol = "helio/1"

// PacketSize is the UDP payload of the packets of both sides in bytes (wire 1.2): what every path carries on which
// there can be QUIC (RFC 9000 section 14), so also one with an MTU of 1,280 that is IPv6's least and that of many a
// tunnel and VPN, and one where a further tunnel takes its part of that. Neither side looks for more: the probes cost
// every connection some packets and buffers, and a connection that carries bulk would win a fifth.
const PacketSize = 1200

// ExporterLabel is the label of the TLS exporter that a proof binds to (wire 4.1).
const ExporterLabel = "EXPORTER-heliograph"

// Limits that every edge enforces and announces in Welcome.
const (
	// MaxHave is the most threads that a device names before one Sync.
	MaxHave = 1 << 16
	// MaxFrame is the longest frame from a device in bytes.
	MaxFrame = 128 << 10
	// MaxServerFrame is the longest frame from an edge in bytes; history pages are the longest.
	MaxServerFrame = 4 << 20
	// NonceSize is the length of the nonce in Welcome.
	NonceSize = 32
	// MaxClient is the longest Hello.client in bytes.
	MaxClient = 64
	// MaxInflight is the most requests of a connection that may wait for an answer.
	MaxInflight = 256
)

// Info is what follows from a code (wire 13.1 to 13.3).
type Info struct {
	Code wirev1.Code
	Name string
	// Retriable: the same request may succeed later.
	Retriable bool
	// Closes: the server closes the connection with this code as application error code.
	Closes bool
	// Reconnect: a client may connect again after a close with this code.
	Reconnect bool
}

var table = []Info{
	{Code: wirev1.Code_CODE_UNSPECIFIED, Name: "ok", Reconnect: true},
	{Code: wirev1.Code_CODE_INTERNAL, Name: "internal", Retriable: true, Reconnect: true},
	{Code: wirev1.Code_CODE_PROTOCOL, Name: "protocol", Closes: true},
	{Code: wirev1.Code_CODE_FRAME_TOO_LARGE, Name: "frame_too_large", Closes: true},
	{Code: wirev1.Code_CODE_INVALID, Name: "invalid"},
	{Code: wirev1.Code_CODE_NOT_AUTHENTICATED, Name: "not_authenticated"},
	{Code: wirev1.Code_CODE_AUTHENTICATION_FAILED, Name: "authentication_failed"},
	{Code: wirev1.Code_CODE_DEVICE_REVOKED, Name: "device_revoked", Closes: true},
	{Code: wirev1.Code_CODE_RATE_LIMITED, Name: "rate_limited", Retriable: true, Reconnect: true},
	{Code: wirev1.Code_CODE_UNAVAILABLE, Name: "unavailable", Retriable: true, Reconnect: true},
	{Code: wirev1.Code_CODE_NOT_A_MEMBER, Name: "not_a_member"},
	{Code: wirev1.Code_CODE_NOT_ALLOWED, Name: "not_allowed"},
	{Code: wirev1.Code_CODE_UNKNOWN_USER, Name: "unknown_user"},
	{Code: wirev1.Code_CODE_TOO_LARGE, Name: "too_large"},
	{Code: wirev1.Code_CODE_GROUP_FULL, Name: "group_full"},
	{Code: wirev1.Code_CODE_INVALID_PHONE, Name: "invalid_phone"},
	{Code: wirev1.Code_CODE_DRAINING, Name: "draining", Retriable: true, Closes: true, Reconnect: true},
	{Code: wirev1.Code_CODE_SUPERSEDED, Name: "superseded", Closes: true},
	{Code: wirev1.Code_CODE_SLOW_CONSUMER, Name: "slow_consumer", Retriable: true, Closes: true, Reconnect: true},
	{Code: wirev1.Code_CODE_TIMEOUT, Name: "timeout", Retriable: true, Closes: true, Reconnect: true},
	{Code: wirev1.Code_CODE_VERSION, Name: "version", Closes: true},
	{Code: wirev1.Code_CODE_UNKNOWN_REQUEST, Name: "unknown_request"},
	{Code: wirev1.Code_CODE_CONFLICT, Name: "conflict"},
	{Code: wirev1.Code_CODE_TOO_MANY_REQUESTS, Name: "too_many_requests", Retriable: true, Reconnect: true},
	{Code: wirev1.Code_CODE_THREAD_PARKED, Name: "thread_parked", Retriable: true, Reconnect: true},
	{Code: wirev1.Code_CODE_OUT_OF_TURN, Name: "out_of_turn", Retriable: true, Reconnect: true},
	{Code: wirev1.Code_CODE_NOT_ADDABLE, Name: "not_addable"},
}

// Lookup returns the row of a code. A code of a newer version counts as internal: retriable, not closing (wire
// 13.4).
func Lookup(c wirev1.Code) Info {
	if c >= 0 && int(c) < len(table) {
		return table[c]
	}
	return Info{Code: c, Name: fmt.Sprintf("code_%d", c), Retriable: true, Reconnect: true}
}

// Error is a refusal as both sides carry it. Two compare equal under errors.Is when their codes are equal.
type Error struct {
	Code       wirev1.Code
	Message    string // for developers; never a secret, a body or a PIN
	RetryAfter time.Duration
	// First is the message that must come first; CODE_OUT_OF_TURN alone has one.
	First id.MessageID
	// Users are those who cannot be put into a group; CODE_NOT_ADDABLE alone has some.
	Users []id.UserID
}

// Errorf makes an Error.
func Errorf(c wirev1.Code, format string, args ...any) *Error {
	return &Error{Code: c, Message: fmt.Sprintf(format, args...)}
}

// Error names the code and says the message.
func (e *Error) Error() string {
	if e.Message == "" {
		return Lookup(e.Code).Name
	}
	return Lookup(e.Code).Name + ": " + e.Message
}

// Is makes errors.Is compare by code.
func (e *Error) Is(target error) bool {
	o, ok := target.(*Error)
	return ok && o.Code == e.Code
}

// Retriable tells whether the same request may succeed later.
func (e *Error) Retriable() bool { return Lookup(e.Code).Retriable }

// RequestTag is how many bytes of a connection's nonce name its requests in the log.
const RequestTag = 4

// RequestID names a request in the log (wire 2.7), given the nonce of its connection or as much of it as is needed;
// nil for a frame that wants no answer.
func RequestID(nonce []byte, request uint64) []byte {
	if request == 0 || len(nonce) < RequestTag {
		return nil
	}
	return binary.AppendUvarint(append(make([]byte, 0, RequestTag+2), nonce[:RequestTag]...), request)
}

// Proof returns the bytes that a device signs (wire 4.1); u is zero when registering (wire 4.2).
func Proof(nonce, exporter []byte, u id.UserID, d id.DeviceID) []byte {
	out := append([]byte("helio/1 auth\x00"), nonce...)
	out = append(out, exporter...)
	out = append(out, u[:]...)
	return append(out, d[:]...)
}
