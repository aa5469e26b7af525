package fanout

import (
	"sync/atomic"

	"heliograph/edge/replica"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// person is a user with devices that are connected. He follows himself in the replica and hands on what he is told.
type person struct {
	// Fixed.
	of   *Fanout
	user id.UserID

	devices atomic.Pointer[[]*device] // replaced, never changed; by whoever holds Fanout.mu
	gone    bool                      // not in Fanout.people any more; guarded by Fanout.mu
}

var _ replica.Follower = (*person)(nil)

func (p *person) connected() []*device {
	if d := p.devices.Load(); d != nil {
		return *d
	}
	return nil
}

// User implements replica.Follower.
func (p *person) User() id.UserID { return p.user }

// Event implements replica.Follower. The event is encoded once for everybody's devices.
func (p *person) Event(e *replica.Event, now *replica.Glance) {
	var changed []byte
	for _, d := range p.connected() {
		if from, ms := d.shown().In(e.Slot); e.Position < from || e.LogTimeMS < ms {
			continue
		}
		if now != nil {
			if changed == nil { // wire 5.7
				changed = changedFrame(now, unreadNew(now), user.Floor{})
			}
			p.of.push(d, push{e.Thread, e.Position, changed, false})
		}
		p.of.push(d, push{e.Thread, e.Position, e.Frame(eventFrame), d.id == e.Device && p.user == e.Author})
	}
}

// Missed implements replica.Follower.
func (p *person) Missed(t id.ThreadID, after, upTo topic.Position) {
	for _, d := range p.connected() {
		p.of.catchUp(d, t, after, upTo)
	}
}

// Late implements replica.Follower.
func (p *person) Late(t id.ThreadID, why error) {
	for _, d := range p.connected() {
		p.of.late(d, t, why)
	}
}

// GoesOn implements replica.Follower.
func (p *person) GoesOn(t id.ThreadID) {
	for _, d := range p.connected() {
		p.of.goesOn(d, t)
	}
}

// Receipt implements replica.Follower.
func (p *person) Receipt(r *replica.Receipt) {
	for _, d := range p.connected() {
		switch {
		case d.id == r.Device && r.User == p.user: // it said so itself
			d.sess.Logged(r.Thread, r.At, r.Said)
		case len(r.Marks) > 0:
			p.of.receipts(d, r.Thread, r.Marks)
		}
	}
}

// Rejected implements replica.Follower (wire 7.9).
func (p *person) Rejected(r *replica.Rejected) {
	for _, d := range p.connected() {
		if d.id == r.Device {
			p.of.push(d, push{r.Thread, never, rejectedFrame(r), false})
		}
	}
}

// Invited implements replica.Follower. All of his devices are told, once they sync; who is not on line, or has lagged,
// asks what is open. The frame is encoded once for all.
func (p *person) Invited(i *replica.Invitation) {
	devices := p.connected()
	if len(devices) == 0 {
		return
	}
	frame := invitationFrame(i)
	for _, d := range devices {
		p.of.push(d, push{i.Thread, never, frame, false})
	}
}

// Revoked implements replica.Follower.
func (p *person) Revoked(id id.DeviceID) {
	for _, d := range p.connected() {
		if d.id == id {
			p.of.revoke(d)
		}
	}
}
