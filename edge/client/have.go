package client

import (
	"context"
	"maps"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Receipts is what a device knows of the others in a thread: how far they have got with what its user wrote.
type Receipts struct {
	// Own is the ordinal of the user's last message that the device has; 0: none.
	Own int64
	// Marks are the watermarks that came with Receipt, the user's own among them.
	Marks map[id.UserID]thread.Watermark
}

// ReceiptStore is a Store that keeps receipts too. With one that does not a device is told all of them again when it
// starts; with one that does they come from the store, by Receipt events before the first connection.
type ReceiptStore interface {
	// SetReceipt replaces the watermark of a user in a thread.
	SetReceipt(id.ThreadID, id.UserID, thread.Watermark) error
	// SetOwn replaces Receipts.Own of a thread.
	SetOwn(id.ThreadID, int64) error
}

func (s *Saved) receiptsOf(t id.ThreadID) *Receipts {
	if s.Receipts == nil {
		s.Receipts = map[id.ThreadID]*Receipts{}
	}
	r := s.Receipts[t]
	if r == nil {
		r = &Receipts{Marks: map[id.UserID]thread.Watermark{}}
		s.Receipts[t] = r
	}
	return r
}

// copyReceipts copies what another goroutine goes on changing.
func copyReceipts(of map[id.ThreadID]*Receipts) map[id.ThreadID]*Receipts {
	if len(of) == 0 {
		return nil
	}
	out := make(map[id.ThreadID]*Receipts, len(of))
	for t, r := range of {
		out[t] = &Receipts{Own: r.Own, Marks: maps.Clone(r.Marks)}
	}
	return out
}

// remember keeps of an event that the application has taken what the device says that it has.
func (c *Client) remember(e Event) {
	var err error
	store, _ := c.cfg.Store.(ReceiptStore)
	switch e := e.(type) {
	case Receipt:
		c.mu.Lock()
		r := c.saved.receiptsOf(e.Thread)
		before := r.Marks[e.User]
		now := before.Merge(e.Watermark)
		r.Marks[e.User] = now
		c.mu.Unlock()
		if now != before && store != nil {
			err = store.SetReceipt(e.Thread, e.User, now)
		}
	case Message:
		c.mu.Lock()
		mine := e.Sender == c.id.User && e.Ordinal > c.saved.receiptsOf(e.Thread).Own
		if mine {
			c.saved.receiptsOf(e.Thread).Own = e.Ordinal
		}
		c.mu.Unlock()
		if mine && store != nil {
			err = store.SetOwn(e.Thread, e.Ordinal)
		}
	}
	if err != nil {
		c.cfg.Logger.Error("storing a receipt failed; the server will repeat it after a restart", "err", err)
	}
}

// known queues the receipts that the store had.
func (c *Client) known() {
	for t, r := range c.saved.Receipts {
		for u, w := range r.Marks {
			c.queue.put(Receipt{Thread: t, User: u, Watermark: w})
		}
	}
}

// digest is what the device has of a thread's receipts, in a number. mu is held.
func (c *Client) digest(t id.ThreadID) (sum wire.Digest, own int64) {
	me := c.id.User
	read := c.applied[t].ReadOrdinal
	if r := c.saved.Receipts[t]; r != nil {
		own = r.Own
		for u, w := range r.Marks {
			if u == me {
				read = max(read, w.ReadOrdinal)
			} else {
				sum += wire.Of(u, w.DeliveredOrdinal, w.ReadOrdinal, own)
			}
		}
	}
	return sum + wire.Of(me, 0, read, 0), own
}

// SyncMore has the next threads brought up to date that Config.SyncWindow has left, the latest first; all for none. It
// returns once what was missed of them is in the queue of Events, and how many are left then.
func (c *Client) SyncMore(ctx context.Context, threads int) (rest int, err error) {
	a, err := c.call(ctx, wirev1.ClientFrame_builder{
		SyncMore: wirev1.SyncMore_builder{Threads: uint32(max(0, threads))}.Build(),
	}.Build())
	return int(a.GetSyncComplete().GetRest()), err
}

// haveAtOnce is how many threads one Have names.
const haveAtOnce = 1000

// have tells the edge what the device has (wire 12.1). mu is held.
func (c *Client) have(cn *conn) {
	list := make([]*wirev1.ThreadCursor, 0, min(len(c.queued), haveAtOnce))
	say := func() {
		cn.write(wirev1.ClientFrame_builder{Have: wirev1.Have_builder{Threads: list}.Build()}.Build())
		list = list[:0]
	}
	for t, at := range c.queued {
		sum, own := c.digest(t)
		list = append(list, wirev1.ThreadCursor_builder{
			ThreadId: t[:], Position: int64(at), Receipts: uint64(sum), OwnOrdinal: own,
		}.Build())
		if len(list) == haveAtOnce {
			say()
		}
	}
	if len(list) > 0 {
		say()
	}
}
