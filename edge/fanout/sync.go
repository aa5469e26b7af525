package fanout

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"heliograph/edge/replica"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Known is what a device says that it has (wire 12.1): all of it, by thread.
type Known map[id.ThreadID]Has

// Has is what a device has of a thread.
type Has struct {
	Position topic.Position // the highest that is stored; -1: none
	Receipts wire.Digest    // of the watermarks
	Own      int64          // the ordinal of the user's last message that is stored; 0: none
}

// Sync sends the session what it lacks (wire 5.2, 5.4) and then makes it live. It may run again at any time. With what
// the device has, which may be nil, it is fed from there where that is less than what the server knows to be delivered,
// and gets no receipts that it has. A window above 0 is how many of the threads that it lacks something of come now,
// the latest; the others wait for More, or for something new in them. It returns nil without SyncComplete when the
// session lagged meanwhile: Session.Lagged was called, and the client will ask again.
func (f *Fanout) Sync(ctx context.Context, s Session, has Known, window int) error {
	d := f.device(s)
	if d == nil {
		return wire.Errorf(wirev1.Code_CODE_NOT_AUTHENTICATED, "the session is not attached")
	}
	began := time.Now()
	err := f.sync(ctx, d, has, window)
	if err == nil {
		f.metrics.syncSeconds.Observe(time.Since(began).Seconds())
	}
	return err
}

// sync is a session's Sync.
//
// The order within a thread is kept like this. From the first moment on, events of the stream are held back (state
// syncing). Then, for one thread after the other, its last position is taken as the target. What is after the target
// will be held back, since it had not been taken in, and so not been told; what is up to the target, and after the
// device's cursor, is read from the views once they have got there. So the two join without a gap, and what was held
// back up to the target is dropped as superfluous.
func (f *Fanout) sync(ctx context.Context, d *device, has Known, window int) (err error) {
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return replica.Unavailable(context.Cause(ctx))
	}
	defer func() { <-d.turn }()
	d.mu.Lock()
	if d.state == closed {
		d.mu.Unlock()
		return ended()
	}
	d.reset(syncing)
	d.says = has != nil
	epoch := d.epoch
	d.mu.Unlock()
	f.metrics.syncing.Inc()
	defer f.metrics.syncing.Dec()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if err != nil && d.epoch == epoch { // the client asks again
			d.reset(off)
		}
	}()
	send := func(frame []byte) error {
		if err := d.sess.PushWait(ctx, frame); err != nil {
			return err
		}
		f.metrics.pushes.Inc()
		return nil
	}
	list, err := f.threadsOf(ctx, d, has)
	if err != nil {
		return err
	}
	told := false
	for how := (feeding{wait: f.bounds.wait, receipts: true, rejected: true, has: has, window: window}); ; {
		if err := f.feed(ctx, d, list, how, send); err != nil {
			return err
		}
		how.receipts, how.rejected, how.window = false, false, 0
		for {
			d.mu.Lock()
			if d.epoch != epoch {
				d.mu.Unlock()
				return ended()
			}
			if d.over {
				f.lag(d, dropPending)
				d.mu.Unlock()
				return nil
			}
			f.wakePending(d)
			if list = d.take(); len(list) > 0 {
				d.mu.Unlock()
				break
			}
			rest := len(d.unasked)
			pending, kept := d.takePending(nil)
			if len(pending) == 0 && told {
				for t, at := range d.targets {
					d.reached(t, at)
				}
				d.reset(open)
				d.mu.Unlock()
				return nil
			}
			d.mu.Unlock()
			if len(pending) == 0 { // the first time that nothing is left
				if err := d.sess.PushWait(ctx, syncComplete(rest)); err != nil {
					return err
				}
				told = true
			}
			if err := d.sendAll(pending, kept, send); err != nil {
				return err
			}
		}
	}
}

// More lets an open session catch up with the next threads that a Sync with a window has left, the latest first; all
// for none. It returns how many are left then. What it fails with is to be asked again, though the threads come by
// themselves too.
func (f *Fanout) More(ctx context.Context, s Session, threads int) (rest int, err error) {
	d := f.device(s)
	if d == nil {
		return 0, ended()
	}
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, replica.Unavailable(context.Cause(ctx))
	}
	defer func() { <-d.turn }()
	d.mu.Lock()
	if d.state != open {
		d.mu.Unlock()
		return 0, replica.Unavailable(errLapsed)
	}
	epoch := d.epoch
	var list []id.ThreadID
	for len(d.left) > 0 && (threads == 0 || len(list) < threads) {
		t := d.left[0]
		d.left = d.left[1:]
		if _, left := d.unasked[t]; !left {
			continue
		}
		d.begin(t)
		list = append(list, t)
	}
	rest = len(d.unasked)
	d.mu.Unlock()
	if len(list) == 0 {
		return rest, nil
	}
	send := func(frame []byte) error {
		if err := d.sess.PushWait(ctx, frame); err != nil {
			return err
		}
		f.metrics.pushes.Inc()
		return nil
	}
	if err := f.feed(ctx, d, list, feeding{wait: f.bounds.wait, receipts: true}, send); err != nil {
		if f.again(d, epoch, list); ctx.Err() == nil {
			f.catchups.pushLater(d)
		}
		return 0, err
	}
	f.caughtUp(d, epoch, list, send)
	return rest, nil
}

// unlisted is the most threads beside the user's of which it is noted what a device says that it has: anything may be
// said.
const unlisted = 256

// errLapsed ends a catch-up that a Sync will make up for.
var errLapsed = errors.New("the session syncs anew")

// catchUpNow lets a live session catch up with the threads that it was found to have missed something of, in the way of
// sync; the events of its other threads are pushed meanwhile. The threads of each slot are caught up with by
// themselves, so that one whose views stand still, or that has no owner, holds up no other. What the outbox cannot take
// at once is left to a Sync. It returns false when something is left: it must be tried again.
func (f *Fanout) catchUpNow(ctx context.Context, d *device) bool {
	turn := time.NewTimer(retryAfter)
	defer turn.Stop()
	select {
	case d.turn <- struct{}{}:
	case <-turn.C:
		return false
	case <-ctx.Done():
		return true
	}
	defer func() { <-d.turn }()
	d.mu.Lock()
	d.queued = false
	epoch := d.epoch
	if d.state == open {
		for t, at := range d.targets {
			if at == postponed {
				d.targets[t] = uncaptured
				d.joins = append(d.joins, t)
			}
		}
	}
	d.mu.Unlock()
	f.metrics.syncing.Inc()
	defer f.metrics.syncing.Dec()
	send := func(frame []byte) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.epoch == epoch {
			f.pushNow(d, frame, false)
		}
		if d.epoch != epoch {
			return errLapsed
		}
		return nil
	}
	for {
		d.mu.Lock()
		if d.epoch != epoch || d.state != open {
			d.mu.Unlock()
			return true // the Sync under way, or the next, does it
		}
		slots := map[topic.Slot][]id.ThreadID{}
		for _, t := range d.take() {
			s := f.replica.SlotOf(t)
			slots[s] = append(slots[s], t)
		}
		if len(slots) == 0 {
			left := len(d.targets) > 0
			d.mu.Unlock()
			return !left
		}
		d.mu.Unlock()
		var wg sync.WaitGroup
		for _, list := range slots {
			wg.Go(func() {
				err := f.feed(ctx, d, list, feeding{wait: min(f.bounds.wait, patience), room: f.rooms}, send)
				switch {
				case errors.Is(err, errLapsed):
				case err != nil:
					f.again(d, epoch, list)
				default:
					f.caughtUp(d, epoch, list, send)
				}
			})
		}
		wg.Wait()
	}
}

// caughtUp pushes what was held back of threads that were caught up with, until nothing is.
func (f *Fanout) caughtUp(d *device, epoch uint64, list []id.ThreadID, send func([]byte) error) {
	for {
		d.mu.Lock()
		if d.epoch != epoch {
			d.mu.Unlock()
			return
		}
		if d.over {
			f.lag(d, dropPending)
			d.mu.Unlock()
			return
		}
		// Of those, one may have been found to lack more meanwhile, or was shelved.
		list = slices.DeleteFunc(list, func(t id.ThreadID) bool {
			at, listed := d.targets[t]
			return !listed || at == uncaptured
		})
		pending, kept := d.takePending(list)
		if len(pending) == 0 {
			for _, t := range list {
				d.reached(t, d.targets[t])
				delete(d.targets, t)
			}
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
		if d.sendAll(pending, kept, send) != nil {
			return
		}
	}
}

// again leaves a catch-up with threads for later: until then their events are dropped, which it will make up for. Of
// one that has taken too long already it says so.
func (f *Fanout) again(d *device, epoch uint64, list []id.ThreadID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.epoch != epoch {
		return
	}
	f.metrics.drops.WithLabelValues(dropCatchUp).Inc()
	for _, t := range list {
		d.targets[t] = postponed
		delete(d.missed, t)
	}
	d.setPending(slices.DeleteFunc(d.pending, func(p push) bool {
		return p.at != never && d.targets[p.thread] == postponed
	}))
	age := time.Since(d.behind)
	if age < d.tell {
		return
	}
	if d.tell == lateAfter {
		f.metrics.late.Inc()
	}
	d.tell = 2 * age
	f.log.Warn("a device that is on line waits for events of threads, they are asked for again",
		"user", d.person.user, "device", d.id, "threads", len(d.targets), "since", age.Round(time.Millisecond))
}

// take returns the threads that must be begun with. The caller holds d.mu.
func (d *device) take() []id.ThreadID {
	list := d.joins
	d.joins = nil
	return list
}

// takePending returns what is held back and not superfluous, of some threads or, without any, of all; kept is how many
// bytes of it the session counts until sendAll is done. The caller holds d.mu, and every target concerned is captured.
func (d *device) takePending(of []id.ThreadID) (list []push, kept int) {
	var rest []push
	for _, p := range d.pending {
		if of != nil && !slices.Contains(of, p.thread) {
			rest = append(rest, p)
			continue
		}
		if upTo, ok := d.targets[p.thread]; !ok || p.at > upTo {
			list = append(list, p)
			kept += len(p.frame)
		}
	}
	d.kept -= kept // sendAll's now
	d.setPending(rest)
	return list, kept
}

// threadsOf lists the user's threads, and notes them as those that the catch-up is about. Where this edge is behind the
// list may lack some that the device has: it notes how far it is in those, if they are few. Of others it takes the
// device to have nothing, when it comes to know them.
func (f *Fanout) threadsOf(ctx context.Context, d *device, has Known) ([]id.ThreadID, error) {
	list, err := f.replica.Threads(ctx, d.person)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == syncing {
		if d.targets == nil {
			d.targets = make(map[id.ThreadID]topic.Position, len(list))
		}
		for _, t := range list {
			d.targets[t] = uncaptured
		}
		for t, h := range has {
			if _, listed := d.targets[t]; !listed && len(d.from) < unlisted {
				d.isAt(t, h.Position)
			}
		}
	}
	return list, nil
}

// capture waits until each thread is live, and takes down its state. Of one that is not followed for now it tells the
// device, and goes on.
func (f *Fanout) capture(
	ctx context.Context, d *device, list []id.ThreadID, how feeding, send func([]byte) error,
) ([]lack, error) {
	ctx, cancel := context.WithTimeout(ctx, how.wait)
	defer cancel()
	lacks := make([]lack, 0, len(list))
	for _, t := range list {
		target, now, news, err := f.captureThread(ctx, d, t)
		if news {
			err = send(lateFrame(t, replica.ErrNoRoom))
		}
		if err != nil {
			return nil, err
		}
		if now == nil {
			if how.has != nil { // who catches up with it later asks no more
				d.mu.Lock()
				d.isAt(t, how.has.position(t))
				d.mu.Unlock()
			}
			continue
		}
		if m := &now.Member; !m.Active() {
			target = m.Spans[len(m.Spans)-1].To
		}
		lacks = append(lacks, lack{now: now, target: target})
	}
	return lacks, nil
}

// captureThread sets the target of a thread for a device's catch-up. What comes after it is held back by then, since
// all of the thread is. now is the thread up to the target; nil when the user never was a member, and when the thread
// is not followed for now: then news says whether the device is to be told.
func (f *Fanout) captureThread(
	ctx context.Context, d *device, t id.ThreadID,
) (target topic.Position, now *replica.Glance, news bool, err error) {
	for {
		target, now, err = f.replica.Enter(ctx, d.person, t)
		done := false
		switch {
		case errors.Is(err, replica.ErrNoRoom):
			news, done = d.giveUp(t)
			err = nil
		case err == nil:
			done = d.aim(t, target)
		}
		if done || err != nil {
			return target, now, news, err
		}
	}
}

// aim notes the target of a thread. False: since the thread was looked at, more was found to be missing.
func (d *device) aim(t id.ThreadID, target topic.Position) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	upTo, more := d.missed[t]
	delete(d.missed, t)
	if more && upTo > target {
		return false
	}
	if _, listed := d.targets[t]; listed {
		d.targets[t] = target
	}
	return true
}

// compare reads the device's cursors, keeps the threads that have something after them, and waits until the views have
// all of that.
// Those beyond the window it leaves.
func (f *Fanout) compare(ctx context.Context, d *device, lacks []lack, how feeding) ([]lack, error) {
	ctx, cancel := context.WithTimeout(ctx, how.wait)
	defer cancel()
	keys := make([]replica.DeviceThread, len(lacks))
	for i, l := range lacks {
		keys[i] = replica.DeviceThread{User: d.person.user, Device: d.id, Thread: l.now.Thread}
	}
	cursors, err := f.replica.Delivered(ctx, keys)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	for i, l := range lacks {
		t := l.now.Thread
		if own := how.has.position(t); how.has != nil && own < cursors[i] {
			d.isAt(t, own)
		}
		if from, ok := d.from[t]; ok {
			cursors[i] = min(cursors[i], from)
		}
	}
	d.mu.Unlock()
	kept := lacks[:0]
	for i, l := range lacks {
		if l.cursor = max(cursors[i], l.now.Member.Spans[0].From-1); l.cursor < l.target {
			from, ms := d.shown().In(l.now.Slot)
			l.cursor, l.floorMS = max(l.cursor, from-1), ms // the thread itself is listed all the same
			kept = append(kept, l)
		}
	}
	if how.window > 0 && len(kept) > how.window {
		slices.SortFunc(kept, func(a, b lack) int { return cmp.Compare(b.now.LastTimeMS, a.now.LastTimeMS) })
		d.mu.Lock()
		d.leave(kept[how.window:], how.has)
		d.mu.Unlock()
		kept = kept[:how.window]
	}
	need := map[topic.Slot]topic.Position{}
	for _, l := range kept {
		need[l.now.Slot] = max(need[l.now.Slot], l.target)
	}
	if err := f.replica.Reach(ctx, need); err != nil {
		return nil, err
	}
	return kept, nil
}

// position is how far the device is in a thread; -1: nowhere.
func (k Known) position(t id.ThreadID) topic.Position {
	if has, ok := k[t]; ok {
		return has.Position
	}
	return -1
}

// runCatchups runs the catch-ups that nobody asked for, one of each device at a time.
func (f *Fanout) runCatchups(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	retry := time.NewTicker(retryAfter)
	defer retry.Stop()
	for {
		for _, d := range f.catchups.take() {
			wg.Go(func() {
				if !f.catchUpNow(ctx, d) {
					f.catchups.pushLater(d)
				}
			})
		}
		select {
		case <-f.catchups.wake:
		case <-retry.C:
			f.catchups.due()
		case <-ctx.Done():
			return nil
		}
	}
}
