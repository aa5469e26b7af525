package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"

	"heliograph/edge/auth"
	"heliograph/edge/client"
)

const sigCont = syscall.SIGCONT

// Client returns the configuration of a device that knows the edges with the given numbers; none: all.
func (c *Cluster) Client(edges ...int) client.Config {
	cfg := client.Config{TLS: c.tls.Clone(), MaxBackoff: 2 * time.Second}
	if len(edges) == 0 {
		for i := range c.roles[Edge] {
			edges = append(edges, i)
		}
	}
	for _, i := range edges {
		cfg.Addrs = append(cfg.Addrs, c.Edge(i).Addr)
	}
	return cfg
}

// User is a device that runs, registered by NewUser or brought in by Connect.
type User struct {
	*client.Client
	// Me is who the device is.
	Me client.Identity

	cancel context.CancelFunc
	ended  chan struct{}
	err    error // set before ended is closed
}

// Done is closed when the client's Run has returned.
func (u *User) Done() <-chan struct{} { return u.ended }

// Err waits until the client's Run has returned and says with what.
func (u *User) Err() error {
	<-u.ended
	return u.err
}

// Close ends the device's connection and waits; its store can be used again.
func (u *User) Close() error {
	u.cancel()
	<-u.ended
	return u.Client.Close()
}

// begin starts a client.
func begin(cl *client.Client) *User {
	ctx, cancel := context.WithCancel(context.Background())
	u := &User{Client: cl, cancel: cancel, ended: make(chan struct{})}
	u.Me, _ = cl.Identity()
	go func() {
		u.err = cl.Run(ctx)
		close(u.ended)
	}()
	return u
}

// Connect runs a device whose store holds an identity. It does not wait until it is connected: see
// client.Client.WaitSynced.
func Connect(cfg client.Config) (*User, error) {
	cl, err := client.New(cfg)
	if err != nil {
		return nil, err
	}
	return begin(cl), nil
}

// NewUser registers a user by phone number, with the PIN from the file of SMS, and returns the device, connected and
// synchronised. Its store is in memory.
func NewUser(ctx context.Context, c *Cluster, phone, name string) (*User, error) {
	cfg := c.Client()
	cfg.Store = client.NewMemoryStore()
	if _, err := c.Register(ctx, cfg, phone, name); err != nil {
		return nil, err
	}
	u, err := Connect(cfg)
	if err != nil {
		return nil, err
	}
	if err := u.WaitSynced(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("connect %s: %w", phone, err), u.Close())
	}
	return u, nil
}

// Register registers a phone number, so that the store of cfg holds the identity; it opens a connection for it, from a
// loopback address of its own, since registrations are limited by address.
func (c *Cluster) Register(ctx context.Context, cfg client.Config, phone, name string) (me client.Identity, err error) {
	closeTransport, err := c.Address(&cfg)
	if err != nil {
		return me, err
	}
	defer func() { err = errors.Join(err, closeTransport()) }()
	cl, err := client.New(cfg)
	if err != nil {
		return me, err
	}
	u := begin(cl)
	defer u.cancel() // the store stays open: it is the caller's
	since := time.Now()
	if _, _, err := cl.RequestPin(ctx, phone); err != nil {
		return me, errors.Join(fmt.Errorf("request PIN for %s: %w", phone, err), u.failure())
	}
	pin, err := c.WaitPin(ctx, phone, since)
	if err != nil {
		return me, err
	}
	me, err = cl.Register(ctx, client.Registration{Phone: phone, Pin: pin, Name: name, DeviceName: name})
	if err != nil {
		return me, fmt.Errorf("register %s: %w", phone, err)
	}
	u.cancel()
	<-u.ended
	return me, nil
}

// failure is why the client has ended, nil while it runs.
func (u *User) failure() error {
	select {
	case <-u.ended:
		return u.err
	default:
		return nil
	}
}

// Address gives a configuration a socket on a loopback address that no other has, among 127.1.0.1 to 127.255.255.254,
// for who is limited by address. The returned function closes the socket, when the client has ended.
func (c *Cluster) Address(cfg *client.Config) (func() error, error) {
	c.phones.Lock()
	c.from++
	n := c.from
	c.phones.Unlock()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, byte(1+n/(254*256)), byte(n/254), byte(1+n%254))})
	if err != nil {
		return nil, fmt.Errorf("open a socket: %w", err)
	}
	t := &quic.Transport{Conn: conn}
	cfg.Transport = t
	return sync.OnceValue(func() error { return errors.Join(t.Close(), conn.Close()) }), nil
}

// WaitPin waits for the PIN that was sent to a number after a moment.
func (c *Cluster) WaitPin(ctx context.Context, phone string, since time.Time) (string, error) {
	number, err := auth.ParsePhone(phone, "")
	if err != nil {
		return "", err
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		pin, err := c.lastPin(number.E164, since)
		if err != nil || pin != "" {
			return pin, err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("no PIN for %s: %w", phone, ctx.Err())
		case <-tick.C:
		}
	}
}

func (c *Cluster) lastPin(number string, since time.Time) (string, error) {
	f, err := os.Open(c.SMS())
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("file of SMS: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	pin := ""
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var s auth.SMS
		// else a line that is being written
		if json.Unmarshal(sc.Bytes(), &s) == nil && s.Phone == number && !s.Time.Before(since) {
			pin = s.Pin
		}
	}
	return pin, nil
}
