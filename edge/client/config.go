package client

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/quic-go/quic-go"
)

// Config of New. Zero fields take the defaults that are named with them.
type Config struct {
	// Addrs are edges as host:port; they are tried in turn, from a random one on. At least one.
	Addrs []string
	// TLS verifies the edge; nil: the system's roots. Its NextProtos are set by the client, and so is its ServerName
	// where that is empty: the host of the address.
	TLS *tls.Config
	// Store keeps identity, cursors and outbox; nil: in memory, gone with the Client.
	Store Store
	// Name tells the server what software this is; "helio-go".
	Name string
	// MinBackoff and MaxBackoff bound the waits between attempts, which double and are drawn at random below their
	// bound; 100 ms and 15 s. Where nothing answers at all, and Background was not called, the bound is 4 s at most.
	MinBackoff, MaxBackoff time.Duration
	// AckInterval is the least time between two sends of watermarks, which gather meanwhile; 1 s. The first after a
	// quiet while goes within 20 ms, so check marks of a conversation are immediate, while a burst costs one event in
	// the log and not one for each message.
	AckInterval time.Duration
	// Buffer is how many events may wait for the application before the client stops reading; 1,024.
	Buffer int
	// Window is how many messages are sent without being answered; 128.
	Window int
	// SyncWindow is how many of the threads of which the device lacks something are brought up to date when it
	// connects, the latest; the others come with SyncMore, or with a new event in them. Default 0: all.
	SyncWindow int
	// Region says where phone numbers without a country code are at home: two letters (ISO 3166-1), as the device's
	// settings tell. Empty: such numbers are refused.
	Region string
	// BackgroundSession makes this the device's second connection, beside that of its foreground, as for a part of an
	// application that runs when the rest does not. Both share one identity, and what either has acknowledged the other
	// is not sent again: they must share what they keep. An edge of before superseded the foreground.
	BackgroundSession bool
	// Transport shares one UDP socket among many clients (load generators); nil: a socket of its own.
	Transport *quic.Transport
	// KeepAlive is after how long without a word from the edge the device asks for one; 5 s. Some 4 s later an edge
	// that is gone has been left for another. See the package comment for what it costs, and Client.Background.
	KeepAlive time.Duration
	// Logger takes what happens to connections; nil: nothing.
	Logger *slog.Logger

	// silence is how long an edge that was written to may send nothing at all, not even QUIC's acknowledgements, until
	// another is tried; for tests; 4 s. While an answer is missing something is written at least as often.
	silence time.Duration
}

const (
	// outboxLimit is how many messages may wait for their acknowledgement. Beyond, Send returns ErrOutboxFull.
	outboxLimit = 10_000
	// callTimeout bounds a request when its context has no deadline.
	callTimeout = 30 * time.Second
)

// withDefaults does without infra/run, which would bring more into an application than it asked for.
func (c Config) withDefaults() Config {
	if c.Store == nil {
		c.Store = NewMemoryStore()
	}
	c.Name = cmp.Or(c.Name, "helio-go")
	c.MinBackoff = cmp.Or(c.MinBackoff, 100*time.Millisecond)
	c.MaxBackoff = cmp.Or(c.MaxBackoff, 15*time.Second)
	c.AckInterval = cmp.Or(c.AckInterval, time.Second)
	c.Buffer = cmp.Or(c.Buffer, 1024)
	c.Window = cmp.Or(c.Window, 128)
	c.KeepAlive = cmp.Or(c.KeepAlive, 5*time.Second)
	c.silence = cmp.Or(c.silence, 4*time.Second)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	if len(c.Addrs) == 0 {
		errs = append(errs, errors.New("no edge address"))
	}
	if len(c.Name) > 64 {
		errs = append(errs, fmt.Errorf("name of %d bytes, at most 64", len(c.Name)))
	}
	for name, n := range map[string]int{"buffer": c.Buffer, "window": c.Window, "sync window": c.SyncWindow} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("%s is negative", name))
		}
	}
	if c.Window > 200 {
		errs = append(errs, fmt.Errorf("window %d is above 200, which leaves no room for other requests", c.Window))
	}
	if c.KeepAlive < 0 || c.KeepAlive > quicKeepAlive {
		errs = append(errs, fmt.Errorf(
			"keep-alive %v is not between 0 and %v, after which a connection is forgotten on its way",
			c.KeepAlive, quicKeepAlive,
		))
	}
	if c.MaxBackoff != 0 && c.MinBackoff > c.MaxBackoff {
		errs = append(errs, fmt.Errorf("least backoff %v is above the greatest, %v", c.MinBackoff, c.MaxBackoff))
	}
	return errors.Join(errs...)
}
