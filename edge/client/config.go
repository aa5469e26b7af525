package client

import (
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
	// TLS verifies the edge; nil: the system's roots. Its NextProtos are set by the client.
	TLS *tls.Config
	// Store keeps identity, cursors and outbox; nil: in memory, gone with the Client.
	Store Store
	// Name tells the server what software this is; "helio-go".
	Name string
	// MinBackoff and MaxBackoff bound the waits between attempts, which double and are drawn at random below their
	// bound; 100 ms and 15 s.
	MinBackoff, MaxBackoff time.Duration
	// AckInterval is the least time between two sends of watermarks, which gather meanwhile; 1 s. The first after a
	// quiet while goes within 20 ms, so check marks of a conversation are immediate, while a burst costs one event in
	// the log and not one for each message.
	AckInterval time.Duration
	// Buffer is how many events may wait for the application before the client stops reading; 1,024.
	Buffer int
	// OutboxLimit is how many messages may wait for their acknowledgement; 10,000. Beyond, Send returns ErrOutboxFull.
	OutboxLimit int
	// Window is how many messages are sent without being answered; 128.
	Window int
	// CallTimeout bounds a request when its context has no deadline; 30 s.
	CallTimeout time.Duration
	// Silence is how long an edge that was written to may send nothing at all, not even QUIC's acknowledgements, until
	// another is tried; 5 s. While an answer is missing something is written at least as often.
	Silence time.Duration
	// Transport shares one UDP socket among many clients (load generators); nil: a socket of its own.
	Transport *quic.Transport
	// Logger takes what happens to connections; nil: nothing.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Store == nil {
		c.Store = NewMemoryStore()
	}
	if c.Name == "" {
		c.Name = "helio-go"
	}
	if c.MinBackoff == 0 {
		c.MinBackoff = 100 * time.Millisecond
	}
	if c.MaxBackoff == 0 {
		c.MaxBackoff = 15 * time.Second
	}
	if c.AckInterval == 0 {
		c.AckInterval = time.Second
	}
	if c.Buffer == 0 {
		c.Buffer = 1024
	}
	if c.OutboxLimit == 0 {
		c.OutboxLimit = 10_000
	}
	if c.Window == 0 {
		c.Window = 128
	}
	if c.Silence == 0 {
		c.Silence = 5 * time.Second
	}
	if c.CallTimeout == 0 {
		c.CallTimeout = 30 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
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
	for name, n := range map[string]int{"buffer": c.Buffer, "outbox limit": c.OutboxLimit, "window": c.Window} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("%s is negative", name))
		}
	}
	if c.Window > 200 {
		errs = append(errs, fmt.Errorf("window %d is above 200, which leaves no room for other requests", c.Window))
	}
	if c.Silence < 0 {
		errs = append(errs, fmt.Errorf("silence %v is negative", c.Silence))
	}
	if c.MaxBackoff != 0 && c.MinBackoff > c.MaxBackoff {
		errs = append(errs, fmt.Errorf("least backoff %v is above the greatest, %v", c.MinBackoff, c.MaxBackoff))
	}
	return errors.Join(errs...)
}
