package delivery

import (
	"sort"
	"time"

	"heliograph/infra/kafka"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

// topics is how many topics a slot reads: those of topic.Folded, in that order.
const topics = len(topic.Cursor{})

// index is a topic's place in cursors, rings and counters.
func index(t topic.Topic) int {
	i, ok := t.Place()
	if !ok {
		panic("delivery: topic " + string(t) + " is not delivered")
	}
	return i
}

// entryWeight is what an entry takes besides its key and value.
const entryWeight = 160

type entry struct {
	pos     topic.Position
	logMS   int64
	arrived time.Time
	subject topic.Subject
	about   bool // it is an event of a subject; a tombstone, or a key that names none, is for nobody
	key     []byte
	value   []byte
	rec     *linkv1.Record // made when first needed, shared by all links
}

func (e *entry) record() *linkv1.Record {
	if e.rec == nil {
		e.rec = linkv1.Record_builder{Position: int64(e.pos), LogTimeMs: e.logMS, Key: e.key, Value: e.value}.Build()
	}
	return e.rec
}

func (e *entry) weight() int { return entryWeight + len(e.key) + len(e.value) }

// ring is what a slot has read lately. It is guarded by its slot's lock.
type ring struct {
	window time.Duration
	max    int // bytes

	logs  [topics]ringLog
	bytes int
	count map[topic.Subject]int // entries per subject: most subscriptions find that there is nothing to look for
}

// ringLog holds one topic: all records from start on, up to next.
type ringLog struct {
	entries     []entry
	head        int
	start, next topic.Position
}

func newRing(window time.Duration, max int, at topic.Cursor) ring {
	r := ring{window: window, max: max, count: make(map[topic.Subject]int)}
	for t := range r.logs {
		r.logs[t].start, r.logs[t].next = at[t], at[t]
	}
	return r
}

func (r *ring) start() (c topic.Cursor) {
	for t := range r.logs {
		c[t] = r.logs[t].start
	}
	return c
}

func (r *ring) next() (c topic.Cursor) {
	for t := range r.logs {
		c[t] = r.logs[t].next
	}
	return c
}

// add takes a record in and returns its entry, which is valid until the next add.
func (r *ring) add(rec *kafka.Record, now time.Time) *entry {
	l := &r.logs[index(rec.Topic)]
	e := entry{pos: rec.Position, logMS: rec.LogTime.UnixMilli(), arrived: now, key: rec.Key, value: rec.Value}
	if rec.Value != nil && len(rec.Key) >= len(e.subject) {
		e.subject, e.about = topic.Subject(rec.Key), true
		r.count[e.subject]++
	}
	r.bytes += e.weight()
	l.entries = append(l.entries, e)
	l.next = rec.Position + 1
	return &l.entries[len(l.entries)-1]
}

// evict drops what is too old or too much, oldest first.
func (r *ring) evict(now time.Time) {
	for {
		var oldest *ringLog
		for t := range r.logs {
			l := &r.logs[t]
			if l.head < len(l.entries) &&
				(oldest == nil || l.entries[l.head].arrived.Before(oldest.entries[oldest.head].arrived)) {
				oldest = l
			}
		}
		if oldest == nil {
			return
		}
		e := &oldest.entries[oldest.head]
		if r.bytes <= r.max && now.Sub(e.arrived) <= r.window {
			return
		}
		r.bytes -= e.weight()
		if e.about {
			if r.count[e.subject]--; r.count[e.subject] == 0 {
				delete(r.count, e.subject)
			}
		}
		oldest.start = e.pos + 1
		*e = entry{}
		oldest.head++
		switch {
		case oldest.head == len(oldest.entries):
			oldest.entries, oldest.head, oldest.start = nil, 0, oldest.next
		case oldest.head > 64 && oldest.head > len(oldest.entries)/2:
			n := copy(oldest.entries, oldest.entries[oldest.head:])
			clear(oldest.entries[n:])
			oldest.entries, oldest.head = oldest.entries[:n], 0
		}
	}
}

// age is how long ago the oldest record was read.
func (r *ring) age(now time.Time) time.Duration {
	var age time.Duration
	for t := range r.logs {
		if l := &r.logs[t]; l.head < len(l.entries) {
			age = max(age, now.Sub(l.entries[l.head].arrived))
		}
	}
	return age
}

// The bounds of one collect: its frames, and how long the slot's lock is held for it.
const (
	collectRecords = 1024
	collectBytes   = 512 << 10
	collectScan    = 8192
)

// collect returns the records of the subjects from cur on and before to, in order, as far as its bounds allow, and
// where it got to.
func (r *ring) collect(
	cur, to topic.Cursor, want map[topic.Subject]struct{},
) (recs [topics][]*linkv1.Record, reached topic.Cursor) {
	if !r.mayHave(want) {
		for t := range cur {
			cur[t] = max(cur[t], to[t])
		}
		return recs, cur
	}
	n, bytes, scanned := 0, 0, 0
	for t := range r.logs {
		l := &r.logs[t]
		live := l.entries[l.head:]
		i := sort.Search(len(live), func(i int) bool { return live[i].pos >= cur[t] })
		for ; i < len(live) && live[i].pos < to[t]; i++ {
			if n >= collectRecords || bytes >= collectBytes || scanned >= collectScan {
				return recs, cur
			}
			scanned++
			e := &live[i]
			cur[t] = e.pos + 1
			if !e.about {
				continue
			}
			if _, ok := want[e.subject]; ok {
				recs[t] = append(recs[t], e.record())
				n++
				bytes += len(e.key) + len(e.value)
			}
		}
		cur[t] = max(cur[t], to[t])
	}
	return recs, cur
}

// mayHave tells whether the ring has anything about the subjects, or too little to be worth the question.
func (r *ring) mayHave(want map[topic.Subject]struct{}) bool {
	if len(want) > len(r.count) {
		for s := range r.count {
			if _, ok := want[s]; ok {
				return true
			}
		}
		return false
	}
	for s := range want {
		if r.count[s] > 0 {
			return true
		}
	}
	return false
}
