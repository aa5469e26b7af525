package client

import (
	"fmt"
	"slices"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// An acknowledgement says that the log has a message, not that it was accepted: a sender may have ceased to be a member
// before its position. So the client keeps what it sent until it comes back as an event or is rejected, and what was
// refused or rejected until the application has forgotten it: nobody has to write a text twice.

// Unsent is a message that was refused, or rejected after the log had it.
type Unsent struct {
	Outgoing
	Code   wirev1.Code // why
	Reason string      // of the server, for developers
}

// Acked is a message that the log has, and that neither came back nor was rejected.
type Acked struct {
	Outgoing
	At topic.Position // in helio.threads; -1: not known
}

// Text is the text of a message; false when it is sealed.
func (o Outgoing) Text() (string, bool) {
	return event.Text(eventv1.Sealed_builder{KeyId: o.KeyID, Nonce: o.Nonce, Data: o.Data}.Build())
}

// UnsentStore is a Store that keeps what Unsent returns, and what of it is not known yet, over restarts. Drop removes
// from it too.
type UnsentStore interface {
	// Acked notes that the log has a message of the outbox at a position, which then is Saved.Acked.
	Acked(id.MessageID, topic.Position) error
	// Refuse notes that a message of the outbox, or an acknowledged one, was not taken, which then is Saved.Unsent.
	Refuse(m id.MessageID, c wirev1.Code, reason string) error
}

// keepUnsent is how many messages are kept of those that were not taken, and of those that are acknowledged and neither
// came back nor were rejected. Of more the oldest are forgotten.
const keepUnsent = 1000

// Unsent returns what was refused or rejected and not forgotten, in the order in which it was.
func (c *Client) Unsent() []Unsent {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.unsent)
}

// Forget ends the keeping of a message that was not sent: it was sent again under another id, or nobody wants it. One
// that is not kept is no error.
func (c *Client) Forget(m id.MessageID) error {
	c.mu.Lock()
	n := len(c.unsent)
	c.unsent = slices.DeleteFunc(c.unsent, func(u Unsent) bool { return u.ID == m })
	kept := len(c.unsent) < n
	c.mu.Unlock()
	if !kept {
		return nil
	}
	if err := c.cfg.Store.Drop(m); err != nil {
		return fmt.Errorf("forget a message: %w", err)
	}
	return nil
}

// resume takes what the store had.
func (c *Client) resume(saved Saved) {
	for _, o := range saved.Acked {
		c.seq++
		c.acked[o.ID] = &outgoing{Outgoing: o.Outgoing, seq: c.seq, at: o.At}
	}
	for _, o := range saved.Outbox {
		c.seq++
		c.waiting = append(c.waiting, &outgoing{Outgoing: o, seq: c.seq})
	}
	c.unsent = saved.Unsent
}

// leave takes a message out of the outbox, or of what is acknowledged; false when it is in neither. mu is held.
func (c *Client) leave(m id.MessageID) (*outgoing, bool) {
	o, ok := c.inflight[m]
	if ok {
		delete(c.inflight, m)
	} else if o, ok = c.acked[m]; ok {
		delete(c.acked, m)
	} else if i := slices.IndexFunc(c.waiting, func(o *outgoing) bool { return o.ID == m }); i >= 0 {
		o, ok = c.waiting[i], true
		c.waiting = slices.Delete(c.waiting, i, i+1)
	}
	return o, ok
}

// acknowledge takes a message out of the outbox that the log has, and keeps it until it comes back, if it has not.
func (c *Client) acknowledge(m id.MessageID, at topic.Position) (*outgoing, bool) {
	store, keeps := c.cfg.Store.(UnsentStore)
	c.mu.Lock()
	o, ok := c.inflight[m]
	if ok {
		delete(c.inflight, m)
		c.setbacks = 0
		delete(c.tries, o.Thread)
	}
	last, known := c.queued[o.thread()]
	back := !ok || o.back || known && at <= last
	var oldest *outgoing
	if !back {
		o.at, c.acked[m] = at, o
		if len(c.acked) > keepUnsent {
			for _, a := range c.acked {
				if oldest == nil || a.seq < oldest.seq {
					oldest = a
				}
			}
			delete(c.acked, oldest.ID)
		}
	}
	c.pump()
	c.mu.Unlock()
	switch {
	case !ok:
	case back || !keeps:
		c.drop(m)
	default:
		if err := store.Acked(m, at); err != nil {
			c.cfg.Logger.Error("storing an acknowledgement failed; the message will be sent again after a restart",
				"err", err)
		}
	}
	if oldest != nil {
		c.drop(oldest.ID)
	}
	return o, ok
}

// pass forgets acknowledged messages that cannot come back any more: a synchronisation has told of every rejection, and
// their thread has later events. Such a one came back before, and this device was stopped before the store had that;
// what was acknowledged then was a copy, of which nobody is told. One of which the store has no position stays: the
// edge may be behind it, however much else comes.
func (c *Client) pass() {
	c.mu.Lock()
	var over []id.MessageID
	for m, o := range c.acked {
		if last, known := c.queued[o.Thread]; known && o.at >= 0 && last > o.at {
			delete(c.acked, m)
			over = append(over, m)
		}
	}
	c.mu.Unlock()
	for _, m := range over {
		c.drop(m)
	}
}

// thread of a message; of none the zero one.
func (o *outgoing) thread() (t id.ThreadID) {
	if o != nil {
		t = o.Thread
	}
	return t
}

// returned takes an acknowledged message that came back.
func (c *Client) returned(m id.MessageID) {
	c.mu.Lock()
	_, ok := c.acked[m]
	delete(c.acked, m)
	if o := c.inflight[m]; o != nil {
		o.back = true
	}
	c.mu.Unlock()
	if ok {
		c.drop(m)
	}
}

// cameBack tells whether a message has come back that is unanswered yet.
func (c *Client) cameBack(m id.MessageID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.inflight[m]
	return o != nil && o.back
}

// untaken keeps a message that was refused or rejected, and returns it; false when it was kept already, or is not
// known.
func (c *Client) untaken(m id.MessageID, why *wire.Error) (Outgoing, bool) {
	store, keeps := c.cfg.Store.(UnsentStore)
	c.mu.Lock()
	o, ok := c.leave(m)
	var oldest id.MessageID
	if ok {
		c.unsent = append(c.unsent, Unsent{Outgoing: o.Outgoing, Code: why.Code, Reason: why.Message})
		if len(c.unsent) > keepUnsent {
			oldest = c.unsent[0].ID
			c.unsent = slices.Delete(c.unsent, 0, 1)
		}
		c.pump()
	} else if i := slices.IndexFunc(c.unsent, func(u Unsent) bool { return u.ID == m }); i >= 0 {
		told := c.unsent[i].Outgoing
		c.mu.Unlock()
		return told, false
	}
	c.mu.Unlock()
	if !ok {
		return Outgoing{}, false
	}
	if !keeps {
		c.drop(m)
	} else if err := store.Refuse(m, why.Code, why.Message); err != nil {
		c.cfg.Logger.Error("storing a refusal failed; the message will be sent again after a restart", "err", err)
	}
	if !oldest.IsZero() {
		c.drop(oldest)
	}
	return o.Outgoing, true
}

// drop takes a message out of the store.
func (c *Client) drop(m id.MessageID) {
	if err := c.cfg.Store.Drop(m); err != nil {
		c.cfg.Logger.Error("dropping a sent message from the store failed; it will be sent again after a restart",
			"err", err)
	}
}
