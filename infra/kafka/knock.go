package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"

	"heliograph/infra/run"
)

// knocks is how many connections must be cut within the SASL exchange until that counts as a refusal: a broker that is
// ending cuts one.
const knocks = 3

// errCut is wrapped when brokers end the connection within the SASL exchange.
var errCut = errors.New(
	"the broker cut the connection during SASL authentication, as some do for a wrong user or password",
)

// Knock opens a connection to the log, authenticates, and tells why it was not let in. It is for the start of a
// process, before the clients that work: those take a connection that is cut for a network's fault, and try again in
// silence for as long as they are asked to. Refused judges its error.
func Knock(ctx context.Context, c Config) error {
	back := run.Backoff{Min: 50 * time.Millisecond, Max: 200 * time.Millisecond}
	for n := 1; ; n++ {
		cut, err := knock(ctx, c)
		switch {
		case err == nil:
			return nil
		case !cut:
			return fmt.Errorf("kafka: reach %s%s: %w", strings.Join(c.Brokers, ","), c.SASL.who(), err)
		case n == knocks:
			return fmt.Errorf("kafka: reach %s%s: %w: %w", strings.Join(c.Brokers, ","), c.SASL.who(), errCut, err)
		}
		if err := back.Wait(ctx); err != nil {
			return err
		}
	}
}

// knock tries once, on each broker, and tells whether one of them cut the SASL exchange.
func knock(ctx context.Context, c Config) (cut bool, err error) {
	if err := c.Validate(); err != nil {
		return false, err
	}
	var opts []kgo.Opt
	w := &witness{Mechanism: c.SASL.mechanism()}
	if w.Mechanism != nil {
		opts = append(opts, kgo.SASL(w))
	}
	c.Registerer, c.SASL = nil, SASL{} // kgo tries the first mechanism that it was given
	cl, err := Dial(c, opts...)
	if err != nil {
		return false, err
	}
	defer cl.Close()
	err = cl.Ping(ctx)
	return err != nil && ctx.Err() == nil && w.open.Load() > 0 && kgo.IsRetryableBrokerErr(err), err
}

// Refused tells whether the log does not let us in for a reason that trying again does not mend: an untrusted
// certificate, a wrong user or password, a mechanism that it does not have.
func Refused(err error) bool {
	return run.Untrusted(err) || errors.Is(err, errCut) || errors.Is(err, kerr.SaslAuthenticationFailed) ||
		errors.Is(err, kerr.UnsupportedSaslMechanism) || errors.Is(err, kerr.IllegalSaslState)
}

// who names the user for messages.
func (s SASL) who() string {
	if s.Mechanism == MechanismNone {
		return ""
	}
	return fmt.Sprintf(" as user %q by %s", s.User, s.Mechanism)
}

// witness counts the exchanges that began and had no end yet.
type witness struct {
	sasl.Mechanism
	open atomic.Int32
}

// Authenticate implements sasl.Mechanism.
func (w *witness) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	s, first, err := w.Mechanism.Authenticate(ctx, host)
	if err != nil {
		return nil, nil, err
	}
	w.open.Add(1)
	return &witnessed{Session: s, w: w}, first, nil
}

type witnessed struct {
	sasl.Session
	w *witness
}

// Challenge implements sasl.Session.
func (s *witnessed) Challenge(b []byte) (bool, []byte, error) {
	done, more, err := s.Session.Challenge(b)
	if done || err != nil {
		s.w.open.Add(-1)
	}
	return done, more, err
}
