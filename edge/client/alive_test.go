package client

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// idlers are devices that nobody writes to.
func idlers(t *testing.T, n int, cfg Config) []*Client {
	t.Helper()
	out := make([]*Client, n)
	for i := range out {
		cfg.Store = registered(t)
		out[i], _ = start(t, cfg)
	}
	for _, c := range out {
		must(t, c.WaitSynced(within(t)))
	}
	return out
}

func connOf(c *Client) *conn {
	cn, _ := c.current()
	return cn
}

// An edge dies without a word and does not come back: idle devices are on another one after a period and a silence,
// which are short here. QUIC alone would tell them after a minute.
func TestDeadEdgeIsLeft(t *testing.T) {
	cfg := fakeEdge(t, func(*peer, *wirev1.ClientFrame) bool { return false })
	r := newRelay(t, cfg.Addrs[0])
	cfg.Addrs = []string{r.conn.LocalAddr().String()}
	cfg.KeepAlive, cfg.silence = 100*time.Millisecond, 200*time.Millisecond
	devices := idlers(t, 10, cfg) // of a crowd's handshakes some would take longer than that
	before := make([]*conn, len(devices))
	for i, c := range devices {
		before[i] = connOf(c)
	}
	r.swallow() // and the next connection, from another port, finds an edge
	for i, c := range devices {
		eventually(t, func() bool { cn, live := c.current(); return live && cn != before[i] })
	}
}

// A device at rest writes a keep-alive that a stateless reset can answer, one in a period, and none while it hears
// something. In the background it does so less often.
func TestKeepAlive(t *testing.T) {
	beats := make(chan int, 1000)
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		switch f.WhichBody() {
		case wirev1.ClientFrame_Watermarks_case:
			beats <- len(f.GetPadding())
		case wirev1.ClientFrame_GetUsers_case:
			p.write(wirev1.ServerFrame_builder{RequestId: f.GetRequestId(), Users: &wirev1.Users{}}.Build())
		default:
			return false
		}
		return true
	})
	cfg.KeepAlive, cfg.Store = 20*time.Millisecond, registered(t)
	c, _ := start(t, cfg)
	ctx := within(t)
	must(t, c.WaitSynced(ctx))
	sent := connOf(c).quic.ConnectionStats()
	for range 3 {
		// 16 bytes of token behind 26 of the longest header that quic-go gives its reset
		if n := <-beats; n < 43 {
			t.Errorf("a keep-alive of %d bytes of padding", n)
		}
	}
	now := connOf(c).quic.ConnectionStats()
	if n, b := now.PacketsSent-sent.PacketsSent, now.BytesSent-sent.BytesSent; b < 3*64 {
		t.Errorf("three keep-alives are %d bytes in %d packets", b, n)
	}
	c.Background()
	if got := c.keepAlive(); got != backgroundKeepAlive {
		t.Errorf("a keep-alive each %v in the background, want %v", got, backgroundKeepAlive)
	}
	must(t, c.Foreground(ctx))
	for range cap(beats) / 100 {
		<-beats
	}
}

// Probe returns at once when the edge answers. When it does not, the device has found another connection by then.
func TestProbe(t *testing.T) {
	var asked sync.Map // by connection
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		if f.WhichBody() != wirev1.ClientFrame_GetUsers_case {
			return false
		}
		if len(f.GetPadding()) < 43 {
			t.Errorf("a probe of %d bytes of padding", len(f.GetPadding()))
		}
		asked.Store(p.n, true)
		p.write(wirev1.ServerFrame_builder{RequestId: f.GetRequestId(), Users: &wirev1.Users{}}.Build())
		return true
	})
	r := newRelay(t, cfg.Addrs[0])
	cfg.Addrs, cfg.silence = []string{r.conn.LocalAddr().String()}, 100*time.Millisecond
	cfg.Store = registered(t)
	c, _ := start(t, cfg)
	ctx := within(t)
	must(t, c.Probe(ctx)) // not connected yet: it waits
	first := connOf(c)
	must(t, c.Probe(ctx))
	if _, ok := asked.Load(0); !ok || connOf(c) != first {
		t.Error("a probe on a connection that lives was not answered by it")
	}
	r.swallow()
	must(t, c.Probe(ctx))
	if cn, live := c.current(); cn == first || !live {
		t.Error("Probe returned on a connection whose edge says nothing")
	}
}

// A wait between two attempts is cut short by Probe.
func TestProbeDoesNotWait(t *testing.T) {
	turn := make(chan struct{})
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		select {
		case <-turn:
			return false
		default:
			_ = p.quic.CloseWithError(quic.ApplicationErrorCode(wirev1.Code_CODE_SLOW_CONSUMER), "")
			return true
		}
	})
	cfg.MinBackoff, cfg.MaxBackoff, cfg.Store = time.Hour, time.Hour, registered(t)
	c, _ := start(t, cfg)
	ctx := within(t)
	for e := range c.Events(ctx) {
		if _, ok := e.(Disconnected); ok {
			break
		}
	}
	close(turn)
	must(t, c.Probe(ctx))
}

// The waits after refused sends double, by thread and for all, until a message is taken.
func TestRefusedSendsBackOff(t *testing.T) {
	r, c, send := refusingEdge(t, func(c *Config) { c.MaxBackoff = time.Hour })
	th := id.NewGroup()
	send(th, "0")
	const refusals = 9 // of 1 ms doubled each time
	s := r.next("0")
	for n := range refusals {
		began := time.Now()
		s.p.write(wirev1.ServerFrame_builder{
			RequestId: s.req, Error: wirev1.Error_builder{Code: wirev1.Code_CODE_UNAVAILABLE}.Build(),
		}.Build())
		s = r.next("0")
		if got, least := time.Since(began), time.Millisecond<<n/2; got < least {
			t.Errorf("refusal %d makes the message wait for %v, want at least %v", n, got, least)
		}
	}
	s.ack()
	eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.waiting)+len(c.inflight) == 0 && c.setbacks == 0 && len(c.tries) == 0
	})
}

// What the server tells everybody is not when everybody comes.
func TestBackoff(t *testing.T) {
	c, err := New(Config{Addrs: []string{"edge:1"}})
	must(t, err)
	for _, tc := range []struct {
		attempt     int
		after       time.Duration
		least, most time.Duration
	}{
		{0, 0, 50 * time.Millisecond, 100 * time.Millisecond},
		{3, 0, 400 * time.Millisecond, 800 * time.Millisecond},
		{60, 0, 7500 * time.Millisecond, 15 * time.Second},
		{0, time.Minute, time.Minute, 75 * time.Second},
		{60, time.Millisecond, 7500 * time.Millisecond, 15 * time.Second}, // sooner than its own wait
	} {
		t.Run(fmt.Sprint(tc.attempt, tc.after), func(t *testing.T) {
			seen := map[time.Duration]bool{}
			for range 20 {
				got := c.backoff(tc.attempt, &wire.Error{RetryAfter: tc.after})
				if got < tc.least || got > tc.most {
					t.Errorf("got %v, want %v to %v", got, tc.least, tc.most)
				}
				seen[got] = true
			}
			if len(seen) < 2 {
				t.Error("everybody comes at the same moment")
			}
		})
	}
}

// Faults that do not mend themselves are named by the first attempt.
func TestFaultsAreNamed(t *testing.T) {
	for _, tc := range []struct {
		name string
		mend func(*Config)
		want error
		says string
	}{
		{
			"unknown authority", func(c *Config) { c.TLS.RootCAs = x509.NewCertPool() },
			ErrCertificate, "unknown authority",
		},
		{"another name", func(c *Config) { c.TLS.ServerName = "other" }, ErrCertificate, "other"},
		{"not the host's", func(c *Config) { c.TLS.ServerName = "" }, ErrCertificate, "127.0.0.1"},
		{
			"clock behind",
			func(c *Config) { c.TLS.Time = func() time.Time { return time.Now().Add(-24 * time.Hour) } },
			ErrClock, "this device's clock says",
		},
		{
			"clock ahead, or a certificate that has run out",
			func(c *Config) { c.TLS.Time = func() time.Time { return time.Now().Add(48 * time.Hour) } },
			ErrClock, "this device's clock says",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := fakeEdge(t, func(*peer, *wirev1.ClientFrame) bool { return false })
			tc.mend(&cfg)
			cfg.MinBackoff, cfg.MaxBackoff = time.Hour, time.Hour
			c, _ := start(t, cfg)
			ctx := within(t)
			_, err := c.CheckPhone(ctx, "+491")
			var f *Fault
			if !errors.As(err, &f) || !errors.Is(err, tc.want) {
				t.Fatalf("a call waits for %v, want %v", err, tc.want)
			}
			if err := c.WaitSynced(ctx); !errors.Is(err, tc.want) {
				t.Errorf("a second call fails by %v, want %v", err, tc.want)
			}
			for e := range c.Events(ctx) {
				d, ok := e.(Disconnected)
				if !ok || !errors.As(d.Err, &f) || !d.Lasting || f.Addr != cfg.Addrs[0] ||
					!strings.Contains(d.Err.Error(), tc.says) {
					t.Errorf("got %+v", e)
				}
				break
			}
		})
	}
}

// A fault at one address is told, and calls wait for the other.
func TestFaultOfOneAddress(t *testing.T) {
	good := fakeEdge(t, func(*peer, *wirev1.ClientFrame) bool { return false })
	bad := fakeEdge(t, func(*peer, *wirev1.ClientFrame) bool { return false })
	good.Addrs = append(good.Addrs, bad.Addrs...)
	for range 4 { // either may be first
		cfg := good
		cfg.Store = registered(t)
		c, _ := start(t, cfg)
		must(t, c.WaitSynced(within(t)))
	}
}

// A fault that was mended is forgotten by the next call.
func TestFaultIsMended(t *testing.T) {
	cfg := fakeEdge(t, func(*peer, *wirev1.ClientFrame) bool { return false })
	var mu sync.Mutex
	clock := time.Now().Add(48 * time.Hour)
	cfg.TLS.Time = func() time.Time { mu.Lock(); defer mu.Unlock(); return clock }
	cfg.MinBackoff, cfg.MaxBackoff, cfg.Store = time.Hour, time.Hour, registered(t)
	c, _ := start(t, cfg)
	if err := c.WaitSynced(within(t)); !errors.Is(err, ErrClock) {
		t.Fatalf("got %v, want %v", err, ErrClock)
	}
	mu.Lock()
	clock = time.Now()
	mu.Unlock()
	if err := c.WaitSynced(within(t)); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the clock is right again, and the device says: %v", err)
	}
	if !c.Online() {
		t.Error("the device did not connect although it was asked for")
	}
}
