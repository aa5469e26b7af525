package fanout

import (
	"slices"

	"heliograph/schemas/id"
)

// A thread that is not followed for now (wire 5.8) is shelved: the device is told, and no catch-up waits for it. The
// replica tells when it is followed again, before anything of it comes; then it is caught up with, and the device is
// told that it is live.

// late takes in that a thread is not followed for now, and why; or with nil that it is again.
func (f *Fanout) late(d *device, t id.ThreadID, why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != open && d.state != syncing {
		return // the next Sync finds it as it is then
	}
	if why != nil {
		if d.shelve(t) {
			f.tellNow(d, t, lateFrame(t, why))
		}
		return
	}
	switch at, listed := d.targets[t]; {
	case listed && at == uncaptured:
		if _, more := d.missed[t]; !more {
			d.miss(t, -1) // so that it is looked at again
		}
	case listed && at == postponed: // it is tried again anyway
	case d.shelved[t] > 0:
		f.wake(d, t)
	}
}

// goesOn tells a device that a thread which was parked takes messages again (wire 5.9). Of one that is shelved it is
// told with the rest.
func (f *Fanout) goesOn(d *device, t id.ThreadID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if (d.state == open || d.state == syncing) && d.shelved[t] == 0 {
		f.tellNow(d, t, lateFrame(t, nil))
	}
}

// tellNow hands a frame to a session that makes no catch-up superfluous. The caller holds d.mu.
func (f *Fanout) tellNow(d *device, t id.ThreadID, frame []byte) {
	if d.state == open {
		f.pushNow(d, frame, false)
		return
	}
	d.hold(push{t, never, frame, false}, f.bounds)
}

// shelve notes that a thread is not followed for now. It tells whether the device does not know. The caller holds d.mu.
func (d *device) shelve(t id.ThreadID) (news bool) {
	if d.shelved == nil {
		d.shelved = map[id.ThreadID]int{}
	}
	d.shelved[t]++
	return d.shelved[t] == 1
}

// giveUp takes a thread that is not followed out of a catch-up, and notes whether the device is to be told. False: it
// may be followed by now.
func (d *device) giveUp(t id.ThreadID) (news, done bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, more := d.missed[t]; more {
		delete(d.missed, t)
		return false, false
	}
	if _, listed := d.targets[t]; !listed {
		return false, true
	}
	delete(d.targets, t)
	d.setPending(slices.DeleteFunc(d.pending, func(p push) bool { return p.thread == t && p.at != never }))
	return d.shelve(t), true
}

// unshelved returns those of some threads that were shelved and that a catch-up has got to, each with how often it had
// been.
func (d *device) unshelved(list []id.ThreadID) (back map[id.ThreadID]int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range list {
		if at, listed := d.targets[t]; listed && at >= -1 && d.shelved[t] > 0 {
			if back == nil {
				back = map[id.ThreadID]int{}
			}
			back[t] = d.shelved[t]
		}
	}
	return back
}

// isBack tells whether a thread that was shelved so often has not been since, and notes that it is not any more.
func (d *device) isBack(t id.ThreadID, times int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shelved[t] != times {
		return false
	}
	delete(d.shelved, t)
	return true
}
