package engine

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Kind names one of the three engines.
type Kind string

// The engines, in the order in which they are reported.
const (
	Kafka      Kind = "kafka"
	Postgres   Kind = "postgres"
	ClickHouse Kind = "clickhouse"
)

// Kinds is every engine, in the order in which they are reported.
var Kinds = []Kind{Kafka, Postgres, ClickHouse}

// Fault is why an engine did not start or did not stay up. Each value is an error, so that callers branch with
// errors.Is(err, engine.PortInUse).
type Fault string

// The faults that have a mend of their own; anything else is Failed.
const (
	// PortInUse means that another socket listens on the address.
	PortInUse Fault = "port in use"
	// BadListen means that the listen address cannot be used at all: not host:port, or not an address of this host.
	BadListen Fault = "bad listen address"
	// Missing means that the engine's program or library is not where it was looked for.
	Missing Fault = "engine missing"
	// WrongVersion means that the data was written in a format that this engine does not read.
	WrongVersion Fault = "wrong data version"
	// Held means that another process uses the data directory.
	Held Fault = "data directory held"
	// Unwritable means that the data directory cannot be created or written.
	Unwritable Fault = "data directory unwritable"
	// NoSpace means that the disk or the quota is full.
	NoSpace Fault = "no space"
	// Unreachable means that the user as which the engine must run cannot reach a directory on the way.
	Unreachable Fault = "directory unreachable"
	// Failed is every other end of an engine.
	Failed Fault = "failed"
)

// Error returns the fault's own words.
func (f Fault) Error() string { return string(f) }

// Error is what stands between an operator and a running engine, in one line.
type Error struct {
	// Engine is the engine concerned.
	Engine Kind `json:"engine"`
	// Fault is the kind of trouble, for callers that branch.
	Fault Fault `json:"fault"`
	// Reason says what is wrong, with the path or the address.
	Reason string `json:"reason"`
	// Mend names the flag or the command that mends it. It may be empty for Failed.
	Mend string `json:"mend,omitempty"`
	// Err is the cause, if there is one in this process.
	Err error `json:"-"`
}

// Error returns one line: engine, reason, cause, mend.
func (e *Error) Error() string {
	s := string(e.Engine) + ": " + e.Reason
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Mend != "" {
		s += "; " + e.Mend
	}
	return oneLine(s)
}

// Unwrap returns the fault and the cause, for errors.Is and errors.As.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Fault}
	}
	return []error{e.Fault, e.Err}
}

// Detached returns a copy without a cause whose reason carries the cause's words, fit to leave the process.
func (e *Error) Detached() *Error {
	d := *e
	if d.Err != nil {
		d.Reason += ": " + d.Err.Error()
		d.Err = nil
	}
	d.Reason = oneLine(d.Reason)
	return &d
}

// Failure returns err as an *Error of the engine: err itself if it is one already, else one with the fault Failed.
func Failure(kind Kind, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return noSpace(kind, "its data directory", err)
	}
	return &Error{Engine: kind, Fault: Failed, Reason: "stopped", Err: err}
}

// DiskError returns the error of a failed write under dir.
func DiskError(kind Kind, dir string, err error) *Error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return noSpace(kind, dir, err)
	}
	return &Error{
		Engine: kind, Fault: Unwritable,
		Reason: "cannot write to " + dir, Err: cause(err),
		Mend: "make it writable or choose another place with --data DIR",
	}
}

func noSpace(kind Kind, dir string, err error) *Error {
	return &Error{
		Engine: kind, Fault: NoSpace,
		Reason: "no space left for " + dir, Err: cause(err),
		Mend: "free some or choose another disk with --data DIR",
	}
}

// cause strips the path that the reason already names.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
}

// Missingf returns the error of an engine whose program or library was not found.
func Missingf(kind Kind, format string, args ...any) *Error {
	return &Error{
		Engine: kind, Fault: Missing, Reason: fmt.Sprintf(format, args...),
		Mend: "run 'make engines' or say where they are with --engines DIR",
	}
}
