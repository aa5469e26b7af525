package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// How a device finds out that its edge is gone (wire 1.7, 9.2). A process that is killed says nothing. One that has
// taken its place answers a packet of a connection that it does not know by a stateless reset (RFC 9000, section 10.3),
// but only a packet that is larger than the reset itself, which QUIC's own keep-alives are not. And where nothing has
// taken its place there is no answer at all. So the device writes frames that say nothing but are long enough, and
// gives up an edge that sends nothing after one.

const (
	// padding makes a packet of a frame that says nothing longer than any stateless reset: quic-go's has 42 bytes, and
	// the longest that others send (21 bytes of token and header behind the longest packet header) stays below 64.
	padding = 48
	// backgroundKeepAlive is Config.KeepAlive in the background: below the 30 s after which many a router forgets the
	// way of a UDP connection.
	backgroundKeepAlive = 20 * time.Second
	// quicKeepAlive is QUIC's own keep-alive: for a connection that is not authenticated, where each frame counts.
	quicKeepAlive = 25 * time.Second
	// probePatience is how long an edge may send nothing after Probe has asked it.
	probePatience = 2 * time.Second
)

// nothing is a frame that says nothing and has no answer.
func nothing() *wirev1.ClientFrame {
	return wirev1.ClientFrame_builder{Watermarks: &wirev1.Watermarks{}, Padding: make([]byte, padding)}.Build()
}

// expect has the connection given up when the edge sends nothing at all for a while after it was written to: a live one
// acknowledges every packet at once, whatever it makes of it, while QUIC's own timeout is made for connections at rest
// and much longer. wmu is held.
func (cn *conn) expect() {
	heard := cn.quic.ConnectionStats().PacketsReceived
	if cn.watch != nil && heard <= cn.heard {
		return // an earlier write waits already
	}
	cn.since, cn.heard = time.Now(), heard
	if cn.watch == nil {
		cn.watch = time.AfterFunc(cn.silence, cn.look)
	}
}

// look runs on the timer of expect. While an answer is missing it writes a frame that says nothing, once in every while
// of silence's length: an edge may have acknowledged the packet of a request and died, and a client whose window is
// full would write nothing more to notice it by. A connection at rest writes nothing, and neither does one that
// registers, where each frame counts.
func (cn *conn) look() {
	cn.wmu.Lock()
	defer cn.wmu.Unlock()
	left := cn.silence - time.Since(cn.since)
	switch {
	case cn.quic.Context().Err() != nil:
		cn.watch = nil
	case cn.quic.ConnectionStats().PacketsReceived > cn.heard:
		cn.watch = nil
		switch {
		case !cn.greeted: // the edge has the Hello; nothing else is to be written before its Welcome
			cn.expect()
		case cn.asked && (cn.syncing || cn.waiting()):
			cn.put(nothing())
		}
	case left > 0:
		cn.watch.Reset(left)
	default:
		cn.watch = nil
		cn.giveUp()
	}
}

// giveUp ends a connection whose edge says nothing. It does not wait for the connection's end, with which the reader
// returns. wmu is held.
func (cn *conn) giveUp() {
	why := errSilent
	if cn.beat == nil { // which begins with the synchronisation
		why = errSlow
	}
	cn.silent = why
	go func() { _ = cn.quic.CloseWithError(0, why.Error()) }()
}

// gaveUp tells why the connection was given up; nil when it was not.
func (cn *conn) gaveUp() error {
	cn.wmu.Lock()
	defer cn.wmu.Unlock()
	return cn.silent
}

// pulse keeps a connection that is authenticated alive until it ends: it looks twice in each period whether anything
// has come, and writes when nothing has. So a device that nobody writes to writes once in a period, and one that is
// written to never.
func (c *Client) pulse(cn *conn) {
	cn.wmu.Lock()
	defer cn.wmu.Unlock()
	if cn.beat == nil {
		every := c.keepAlive()
		cn.beat = time.AfterFunc(every/4+rand.N(every/4+1), func() { c.beat(cn) }) // not all at once after a restart
	}
}

func (c *Client) beat(cn *conn) {
	cn.wmu.Lock()
	defer cn.wmu.Unlock()
	if cn.quic.Context().Err() != nil {
		return
	}
	n := cn.quic.ConnectionStats().PacketsReceived
	if n == cn.beaten {
		cn.put(nothing())
	}
	cn.beaten = n
	cn.beat.Reset(c.keepAlive() / 2)
}

// rest ends the pulse of a connection that has ended.
func (cn *conn) rest() {
	cn.wmu.Lock()
	defer cn.wmu.Unlock()
	if cn.beat != nil {
		cn.beat.Stop()
	}
}

// keepAlive is how long the device waits for a word from its edge until it asks for one.
func (c *Client) keepAlive() time.Duration {
	if c.background.Load() {
		return max(c.cfg.KeepAlive, backgroundKeepAlive)
	}
	return c.cfg.KeepAlive
}

// Background tells that nobody looks at the application: its edge is then asked for a sign of life less often, and that
// it is gone is noticed later. See the package comment for what that costs.
func (c *Client) Background() { c.background.Store(true) }

// Foreground ends Background and is Probe.
func (c *Client) Foreground(ctx context.Context) error {
	if c.background.Swap(false) {
		if cn, _ := c.current(); cn != nil {
			cn.wmu.Lock()
			if cn.beat != nil && cn.beat.Stop() {
				cn.beat.Reset(c.keepAlive() / 2)
			}
			cn.wmu.Unlock()
		}
	}
	return c.Probe(ctx)
}

// Probe asks the edge for an answer at once. An application calls it when the network has changed or the machine has
// slept. When the edge says nothing for two seconds the connection is given up for another, and a wait between two
// attempts is cut short; so it returns nil once the device is synchronised on a connection that lives. It ends earlier
// with ctx, with ErrClosed and with a Fault.
func (c *Client) Probe(ctx context.Context) error {
	for {
		c.hurry()
		cn, live := c.current()
		if cn == nil || !live {
			return c.WaitSynced(ctx)
		}
		c.mu.Lock()
		question := cn.question()
		c.mu.Unlock()
		heard := cn.quic.ConnectionStats().PacketsReceived
		short, cancel := context.WithTimeout(ctx, min(probePatience, c.cfg.silence))
		_, err := c.on(short, cn, question)
		cancel()
		var we *wire.Error
		switch {
		case err == nil || errors.As(err, &we): // a refusal is a sign of life too
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case cn.quic.ConnectionStats().PacketsReceived > heard:
			continue // it is there, and slow
		}
		cn.wmu.Lock()
		cn.giveUp()
		cn.wmu.Unlock()
		if err := c.await(ctx, func() bool { return c.conn != cn }); err != nil {
			return err
		}
	}
}

// question is a request that asks for nothing but its answer, and is long enough for a stateless reset. mu is held.
func (cn *conn) question() *wirev1.ClientFrame {
	q := wirev1.ClientFrame_builder{Padding: make([]byte, padding)}
	if cn.ping {
		q.Ping = &wirev1.Ping{}
	} else {
		q.GetUsers = &wirev1.GetUsers{}
	}
	return q.Build()
}

// current is the connection of this moment, nil between two, and whether it is synchronised.
func (c *Client) current() (cn *conn, live bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn, c.live
}

// hurry cuts short the wait for the next attempt to connect, if one runs.
func (c *Client) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		select {
		case c.hurried <- struct{}{}:
		default: // it is told already
		}
	}
}
