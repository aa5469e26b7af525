package ingest

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
	"heliograph/schemas/topic"
)

// lane is one partition as its producer sees it: what a broker says of one partition, or of one record, is held against
// nothing else.
//
// A partition whose events fail (no leader, too few replicas, a disk) is suspect: its events are refused at once, and
// one at a time is let through to try it, with growing pauses, until the log has acknowledged one.
//
// A record that a broker refuses for what it is (too large, invalid) takes everything with it that the producer holds
// for its partition, and nobody says which one it was. So the lane gets narrow: for a while its events go one at a
// time, and one that is refused then is refused for good.
type lane struct {
	last  atomic.Pointer[told]           // of the last of its events that was acknowledged
	fault atomic.Pointer[kafka.LogError] // the partition is another log's; see trust

	mu     sync.Mutex // guards what follows
	flying int        // handed to the producer and not settled
	handed uint64     // how many ever were: tells whether one flew alone

	failed int       // events in a row that failed; 0: not suspect
	again  time.Time // when the next is let through
	trial  bool      // it is under way

	narrow time.Time // until then one event at a time
	held   []held    // those that wait for their turn, oldest first
	queued bool      // it is in Ingest.turns
}

// told is the place behind an event as it was acknowledged, which may be given up later, and the event's identity.
type told struct {
	next   topic.Position
	digest uint64
}

// held is an event that waits for its turn in a narrow lane.
type held struct {
	rec   *kgo.Record
	begun time.Time
	done  func(Receipt, error)
}

// weight is what an event takes until it is settled, in bytes.
func (h *held) weight() int { return recordWeight + len(h.rec.Value) }

// maxHeld is how many events may wait in one narrow lane.
const maxHeld = 256

// flight is an event's time with the producer.
type flight struct {
	alone bool // nothing else was in flight when it was handed over
	trial bool
	nth   uint64
}

// outcome is what a flight's end says.
type outcome int

const (
	acked   outcome = iota
	refused         // for what the record, or one beside it, is
	failed          // the partition, or the log, did not take it
	nothing         // it says nothing of the partition: the buffer was full, or the client is closed
)

// enter decides on a new event: it takes off, or waits until it is alone, or is refused with a reason.
func (l *lane) enter(now time.Time) (f flight, wait bool, reason string) {
	if l.fault.Load() != nil {
		return flight{}, false, reasonLog
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed > 0 && (l.trial || now.Before(l.again)) {
		return flight{}, false, reasonPartition
	}
	if len(l.held) > 0 || l.flying > 0 && now.Before(l.narrow) {
		if len(l.held) >= maxHeld {
			return flight{}, false, reasonFull
		}
		return flight{}, true, ""
	}
	return l.takeOff(), false, ""
}

// tryOff is enter for what nobody waits for.
func (l *lane) tryOff(now time.Time) (flight, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fault.Load() != nil || l.failed > 0 && (l.trial || now.Before(l.again)) {
		return flight{}, false
	}
	return l.takeOff(), true
}

// takeOff counts an event as handed over. The caller holds mu.
func (l *lane) takeOff() flight {
	l.handed++
	f := flight{alone: l.flying == 0, trial: l.failed > 0, nth: l.handed}
	l.flying++
	l.trial = l.trial || f.trial
	return f
}

// land ends a flight. alone: nothing else was in flight at any time of it, so what the broker said, it said of this
// record. next: an event that waits may take off. The lane became suspect, or is no longer, when turned says so.
func (l *lane) land(f flight, end outcome, now time.Time, pause, narrowFor time.Duration) (alone, next, turned bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	alone = f.alone && l.handed == f.nth
	was := l.failed > 0
	l.flying--
	if f.trial {
		l.trial = false
	}
	switch end {
	case acked:
		l.failed = 0
	case refused:
		l.failed = 0 // the partition answered
		l.narrow = now.Add(narrowFor)
	case failed:
		if f.trial || !was { // else it was in flight before the first that failed
			l.again = now.Add(min(pause<<min(l.failed, 10), 10*pause))
			l.failed++
		}
	case nothing:
	}
	next = l.flying == 0 && len(l.held) > 0 && !l.queued
	l.queued = l.queued || next
	return alone, next, was != (l.failed > 0)
}

// forgive ends a suspicion; true when there was one.
func (l *lane) forgive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.failed > 0
	l.failed, l.trial = 0, false
	return was
}

// isNarrow tells whether events must go one at a time.
func (l *lane) isNarrow(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return now.Before(l.narrow)
}

// recordRefused tells whether a broker refused a batch for what a record in it is, so that the same would be refused
// for ever. Everything else that fails may pass: it concerns the partition or the log.
func recordRefused(err error) bool {
	for _, e := range []error{
		kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.InvalidTimestamp,
		kerr.UnsupportedForMessageFormat, kerr.PolicyViolation,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
