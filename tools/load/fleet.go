package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"

	"heliograph/edge/client"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// user is a registered user with what its device remembers between the parts.
type user struct {
	saved
	store *client.MemoryStore
}

// sockets are the generator's UDP sockets, each shared by perSocket clients.
type sockets struct {
	conns []*net.UDPConn
	all   []*quic.Transport
}

func openSockets(clients int) (*sockets, error) {
	s := &sockets{}
	for range (clients + perSocket - 1) / perSocket {
		c, err := net.ListenUDP("udp", nil)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open socket: %w", err), s.close())
		}
		s.conns = append(s.conns, c)
		s.all = append(s.all, &quic.Transport{Conn: c})
	}
	return s, nil
}

func (s *sockets) of(i int) *quic.Transport { return s.all[i/perSocket%len(s.all)] }

func (s *sockets) close() error {
	var errs []error
	for i, t := range s.all {
		errs = append(errs, t.Close(), s.conns[i].Close())
	}
	return errors.Join(errs...)
}

// fleet are connected devices. Each has a goroutine that keeps it connected and one that hands its events on.
type fleet struct {
	devices []*client.Client
	took    time.Duration // until all were connected and synchronised
	lost    atomic.Int64  // connections that ended before stop

	sockets *sockets
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// connect connects the users' devices and waits until all are synchronised. handle is called for each event of device i
// on that device's goroutine; an error from it ends the part through fail.
func (b *bench) connect(
	ctx context.Context, users []*user, window int, handle func(i int, e client.Event) error,
	fail context.CancelCauseFunc,
) (*fleet, error) {
	s, err := openSockets(len(users))
	if err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(ctx)
	f := &fleet{devices: make([]*client.Client, len(users)), sockets: s, cancel: cancel}
	for i, u := range users {
		c, err := client.New(client.Config{
			Addrs: []string{b.target.Edge}, TLS: b.target.TLS, Store: u.store,
			Name: "helio-bench", Window: window, Transport: s.of(i),
		})
		if err != nil {
			return nil, errors.Join(err, f.stop())
		}
		f.devices[i] = c
	}
	began := time.Now()
	g, wait := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, c := range f.devices {
		g.Go(func() error {
			ended := make(chan error, 1)
			f.wg.Go(func() {
				err := c.Run(run)
				if err != nil {
					fail(fmt.Errorf("device of %s: %w", users[i].Phone, err))
				}
				ended <- err
			})
			f.wg.Go(func() {
				for e := range c.Events(run) {
					if d, ok := e.(client.Disconnected); ok {
						if n := f.lost.Add(1); n <= 5 {
							b.say("device %s lost its connection: %v", users[i].Phone, d.Err)
						}
					}
					if err := handle(i, e); err != nil {
						fail(err)
					}
				}
			})
			wait, cancel := context.WithTimeout(wait, b.cfg.patience)
			defer cancel()
			if err := c.WaitSynced(wait); err != nil {
				if errors.Is(err, client.ErrClosed) {
					err = <-ended
					if errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_AUTHENTICATION_FAILED}) && b.cfg.State != "" {
						err = fmt.Errorf("%w (if the deployment was made anew, remove %s)", err, b.cfg.State)
					}
				}
				return fmt.Errorf("connect %s: %w", users[i].Phone, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, errors.Join(err, f.stop())
	}
	f.took = time.Since(began)
	return f, nil
}

// stop disconnects everybody and waits for all goroutines.
func (f *fleet) stop() error {
	f.cancel()
	f.wg.Wait()
	return f.sockets.close()
}

// register makes sure that there are n users.
func (b *bench) register(ctx context.Context, n int) error {
	st, err := loadState(b.cfg.State)
	if err != nil {
		return err
	}
	have := min(len(st.Users), n)
	if have < n {
		began := time.Now()
		b.say("registering %d users", n-have)
		fresh, err := b.signUp(ctx, st, n-have)
		if err != nil {
			return err
		}
		took := time.Since(began)
		b.say("registered %d users in %.1f s, %.0f a second",
			len(fresh), took.Seconds(), float64(len(fresh))/took.Seconds())
		st.Users = append(st.Users, fresh...)
		if err := st.save(b.cfg.State); err != nil {
			return err
		}
	}
	for _, s := range st.Users[:n] {
		u := &user{saved: s, store: client.NewMemoryStore()}
		if err := u.store.SetIdentity(s.Identity); err != nil {
			return err
		}
		b.users = append(b.users, u)
	}
	return nil
}

func (b *bench) signUp(ctx context.Context, st *state, n int) (_ []saved, err error) {
	s, err := openSockets(n)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	out := make([]saved, n)
	var done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce / 2)
	for i := range n {
		g.Go(func() error {
			phone := st.phone(len(st.Users) + i)
			me, err := b.signUpOne(ctx, s.of(i), phone)
			if err != nil {
				return fmt.Errorf("register %s: %w", phone, err)
			}
			out[i] = saved{Phone: phone, Identity: me}
			if d := done.Add(1); d%500 == 0 && d < int64(n) {
				b.say("registered %d of %d", d, n)
			}
			return nil
		})
	}
	return out, g.Wait()
}

// signUpOne registers one phone number. A refusal that says when to come back is obeyed as long as patience lasts.
func (b *bench) signUpOne(ctx context.Context, t *quic.Transport, phone string) (client.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.patience)
	defer cancel()
	c, err := client.New(client.Config{
		Addrs: []string{b.target.Edge}, TLS: b.target.TLS, Name: "helio-bench", Transport: t,
	})
	if err != nil {
		return client.Identity{}, err
	}
	run, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var fatal atomic.Pointer[error]
	wg.Go(func() {
		if err := c.Run(run); err != nil {
			fatal.Store(&err)
		}
	})
	wg.Go(func() {
		for range c.Events(run) { //nolint:revive // what comes is of no interest, but it must be taken
		}
	})
	for {
		me, err := b.tryRegister(ctx, c, phone)
		if err == nil {
			return me, c.WaitSynced(ctx)
		}
		if p := fatal.Load(); p != nil {
			return client.Identity{}, *p
		}
		var we *wire.Error
		if !errors.As(err, &we) || !we.Retriable() {
			return client.Identity{}, err
		}
		if serr := sleep(ctx, max(we.RetryAfter, 200*time.Millisecond)); serr != nil {
			return client.Identity{}, err
		}
	}
}

func (b *bench) tryRegister(ctx context.Context, c *client.Client, phone string) (client.Identity, error) {
	if _, _, err := c.RequestPin(ctx, phone); err != nil {
		return client.Identity{}, err
	}
	pin, err := b.target.Pins.Pin(ctx, phone)
	if err != nil {
		return client.Identity{}, err
	}
	return c.Register(ctx, client.Registration{Phone: phone, Pin: pin, DeviceName: "bench"})
}
