package load

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"heliograph/edge/client"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
)

// A body begins with the run, the flow and the number of the message in hexadecimal digits.
const (
	runDigits  = 16
	flowDigits = 8
	seqDigits  = 8
)

// flow is what one sender sends to one thread, and which recipients have it.
type flow struct {
	// Fixed after newFlow.
	run    uint64
	number int
	pad    string

	mu      sync.Mutex // guards all below
	to      client.To
	ids     []id.MessageID
	due     []time.Time // when each was to be sent
	unacked map[id.MessageID]int
	got     [][]uint64 // a bit set for each recipient
	missing int        // deliveries that are outstanding
	keep    bool       // latencies are kept
	acks    []sample
	arrived []sample
}

// sample is a latency with the time that the message was to be sent at.
type sample struct {
	due     time.Time
	latency time.Duration
}

func newFlow(run uint64, number, recipients, body int, to client.To) *flow {
	return &flow{
		run:     run,
		number:  number,
		to:      to,
		pad:     strings.Repeat("x", body-minBody),
		unacked: map[id.MessageID]int{},
		got:     make([][]uint64, recipients),
	}
}

// next makes the next message. Its latency counts from due.
func (f *flow) next(due time.Time) (client.Outgoing, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	seq := len(f.ids)
	text := fmt.Sprintf("%016x%08x%08x%s", f.run, f.number, seq, f.pad)
	data, err := proto.Marshal(eventv1.Content_builder{Text: text}.Build())
	if err != nil {
		return client.Outgoing{}, fmt.Errorf("encode body: %w", err)
	}
	m := id.NewMessage()
	f.ids, f.due = append(f.ids, m), append(f.due, due)
	f.unacked[m] = seq
	f.missing += len(f.got)
	return client.Outgoing{
		Thread:       f.to.Thread,
		ID:           m,
		Data:         data,
		DirectPeer:   f.to.Peer,
		ClientTimeMS: due.UnixMilli(),
	}, nil
}

// acked takes an acknowledgement: exactly one for each message.
func (f *flow) acked(m id.MessageID, at time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	seq, ok := f.unacked[m]
	if !ok {
		return fmt.Errorf("message %s of flow %d was acknowledged twice, or never sent", m, f.number)
	}
	delete(f.unacked, m)
	if f.keep {
		f.acks = append(f.acks, sample{due: f.due[seq], latency: at.Sub(f.due[seq])})
	}
	return nil
}

// delivered takes a message that the client of a recipient has parsed: exactly one of each.
func (f *flow) delivered(recipient, seq int, m id.MessageID, at time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if seq >= len(f.ids) || f.ids[seq] != m {
		return fmt.Errorf("message %s is not number %d of flow %d", m, seq, f.number)
	}
	set := &f.got[recipient]
	for len(*set) <= seq/64 {
		*set = append(*set, 0)
	}
	if (*set)[seq/64]&(1<<(seq%64)) != 0 {
		return fmt.Errorf("recipient %d has message %s twice", recipient, m)
	}
	(*set)[seq/64] |= 1 << (seq % 64)
	f.missing--
	if f.keep {
		f.arrived = append(f.arrived, sample{due: f.due[seq], latency: at.Sub(f.due[seq])})
	}
	return nil
}

// open returns how many messages lack their acknowledgement and how many copies have not arrived.
func (f *flow) open() (unacked, missing int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.unacked), f.missing
}

// parseBody reads what next wrote; false for other texts.
func parseBody(s string) (run uint64, number, seq int, ok bool) {
	if len(s) < minBody {
		return 0, 0, 0, false
	}
	run, err := strconv.ParseUint(s[:runDigits], 16, 64)
	if err != nil {
		return 0, 0, 0, false
	}
	n, err := strconv.ParseUint(s[runDigits:runDigits+flowDigits], 16, 31)
	if err != nil {
		return 0, 0, 0, false
	}
	q, err := strconv.ParseUint(s[runDigits+flowDigits:minBody], 16, 31)
	return run, int(n), int(q), err == nil
}

// aim says where the messages go from now on. A direct thread needs its peer only until it exists.
func (f *flow) aim(to client.To) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.to = to
}

func (f *flow) thread() id.ThreadID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.to.Thread
}

// record drops the latencies so far and keeps those that come.
func (f *flow) record() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keep, f.acks, f.arrived = true, f.acks[:0], f.arrived[:0]
}

// take appends the latencies of the messages that were due in [from, to).
func (f *flow) take(acks, arrived []time.Duration, from, to time.Time) ([]time.Duration, []time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	in := func(dst []time.Duration, all []sample) []time.Duration {
		for _, s := range all {
			if !s.due.Before(from) && s.due.Before(to) {
				dst = append(dst, s.latency)
			}
		}
		return dst
	}
	return in(acks, f.acks), in(arrived, f.arrived)
}
