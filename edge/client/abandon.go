package client

import (
	"context"
	"errors"
	"slices"

	"heliograph/schemas/id"
	wirev1 "heliograph/schemas/wire/v1"
)

// ErrAbandoned is why a message Failed that was given up.
var ErrAbandoned = errors.New("the message was given up")

// Abandon gives up a message that waits in the outbox, so that those behind it go on without it (wire 7.5); Failed with
// ErrAbandoned tells of it. One that is on its way cannot be called back: it is given up if it is refused or the
// connection ends first, else Sent tells of it. A message whose answer was lost may be in the log all the same, and
// then comes as a Message. False: it is not in the outbox.
func (c *Client) Abandon(m id.MessageID) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o, ok := c.inflight[m]; ok {
		o.abandoned = true
		return true, c.cfg.Store.Drop(m)
	}
	i := slices.IndexFunc(c.waiting, func(o *outgoing) bool { return o.ID == m })
	if i < 0 {
		return false, nil
	}
	o := c.waiting[i]
	c.waiting = slices.Delete(c.waiting, i, i+1)
	c.abandon(o)
	c.pump()
	return true, c.cfg.Store.Drop(m)
}

// abandon ends a message that has left the outbox. An edge that has refused it takes nothing else of its thread until
// it is told. mu is held.
func (c *Client) abandon(o *outgoing) {
	if cn := c.conn; cn != nil && c.live && cn.abandon {
		cn.write(wirev1.ClientFrame_builder{
			AbandonMessage: wirev1.AbandonMessage_builder{ThreadId: o.Thread[:], MessageId: o.ID[:]}.Build(),
		}.Build())
	}
	c.queue.put(Failed{Thread: o.Thread, ID: o.ID, Err: ErrAbandoned, Message: o.Outgoing})
}

// Ping waits until the edge has taken up all that this device has sent it before, watermarks among it.
func (c *Client) Ping(ctx context.Context) error {
	c.mu.Lock()
	known := c.conn != nil && c.conn.ping
	c.mu.Unlock()
	if !known { // any request does: an edge reads the frames of a connection in their order
		_, err := c.Users(ctx)
		return err
	}
	_, err := c.call(ctx, wirev1.ClientFrame_builder{Ping: &wirev1.Ping{}}.Build())
	return err
}
