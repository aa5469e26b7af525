package lag

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
	"heliograph/infra/run"
	"heliograph/schemas/topic"
)

// AskTime bounds one question to the log or to a store.
const AskTime = 10 * time.Second

// Config is what a Meter asks. Zero means default.
type Config struct {
	Kafka   kafka.Config
	Client  *kgo.Client  // to the log; it stays the caller's
	Bases   *kafka.Bases // are loaded anew where a view and the log do not fit together
	Sources []Source
	Reads   int // most records that are read in one asking, to learn their age; default 64

	askTime time.Duration    // for tests; default AskTime
	now     func() time.Time // for tests
}

// View is how far a view is behind.
type View struct {
	View       string `json:"view"`
	Generation string `json:"generation,omitempty"`
	Error      string `json:"error,omitempty"` // its positions are not known, and nothing is but its owners
	Records    int64  `json:"records"`
	// Seconds is the age of the oldest record that it has not taken in; AtLeast: it may be older.
	Seconds float64 `json:"seconds"`
	AtLeast bool    `json:"at_least,omitempty"`
	Flow
	Slots   int `json:"slots"`
	Lagging int `json:"lagging"` // slots with a lag
	Unowned int `json:"unowned"` // slots that no process owns
	// Owners are the members of its group; empty with GroupError where the group could not be asked.
	Owners     []string `json:"owners"`
	GroupError string   `json:"group_error,omitempty"`
	Lost       int64    `json:"lost"`     // records that the log has no more, and the view never took in
	Ahead      int64    `json:"ahead"`    // positions that the view has and the log does not
	TakenIn    int64    `json:"taken_in"` // the sum of its next positions, which grows as it takes in
	Places     []Place  `json:"places"`
}

// Place is how far a view is behind in a topic of a slot.
type Place struct {
	Topic   topic.Topic    `json:"topic"`
	Slot    topic.Slot     `json:"slot"`
	Next    topic.Position `json:"next"`
	End     topic.Position `json:"end"`
	Records int64          `json:"records"`
	Seconds float64        `json:"seconds"`
	AtLeast bool           `json:"at_least,omitempty"`
	Flow
	Owner string `json:"owner,omitempty"`
	Lost  int64  `json:"lost,omitempty"`
	Ahead int64  `json:"ahead,omitempty"`

	at int64 // the offset of Next
}

// Flow is how fast a lag changes, since it was asked for last. What is not known, or never, is nil.
type Flow struct {
	Rate     *float64 `json:"rate"`             // records taken in a second
	Arrivals *float64 `json:"arrivals"`         // records that came a second
	CatchUp  *float64 `json:"catch_up_seconds"` // until there is no lag, should both stay as they are
}

// known is the age of a record that was read.
type known struct {
	next topic.Position
	time time.Time
}

// key names a partition.
type key struct {
	topic topic.Topic
	slot  topic.Slot
}

// sample is where the log began and ended at a time.
type sample struct {
	at   time.Time
	ends map[topic.Topic][]topic.Position
}

// Meter asks for the lags. Its methods are not to be called concurrently.
type Meter struct {
	cfg     Config
	topics  []topic.Topic            // of all sources
	samples []sample                 // by time
	last    map[string]map[key]int64 // offsets of next positions
	lastAt  map[string]time.Time
	read    map[string]map[key]known

	stale  bool      // an operator may have adopted another log than the bases are of
	loaded time.Time // when the bases were
}

// loadEvery is how often the bases are loaded again at most.
const loadEvery = time.Minute

// NewMeter returns a meter, which has not asked anything.
func NewMeter(cfg Config) *Meter {
	run.Default(&cfg.Reads, 64)
	run.Default(&cfg.askTime, AskTime)
	if cfg.now == nil {
		cfg.now = time.Now
	}
	m := &Meter{cfg: cfg}
	for _, s := range cfg.Sources {
		for _, t := range s.Topics {
			if !slices.Contains(m.topics, t) {
				m.topics = append(m.topics, t)
			}
		}
	}
	m.Forget()
	return m
}

// Forget makes it ask as for the first time.
func (m *Meter) Forget() {
	m.samples = nil
	m.last, m.lastAt = map[string]map[key]int64{}, map[string]time.Time{}
	m.read = map[string]map[key]known{}
}

// The ends that are remembered: so many, and none older.
const (
	maxSamples = 128
	maxMemory  = 10 * time.Minute
)

// Ask returns how far each view is behind, in the order of the sources. It fails when the log does not answer: without
// it there is nothing that a view could be behind.
func (m *Meter) Ask(ctx context.Context) ([]View, error) {
	if err := m.load(ctx); err != nil {
		return nil, err
	}
	ends, err := m.ends(ctx)
	if err != nil {
		return nil, err
	}
	now := m.cfg.now()
	m.remember(sample{at: now, ends: ends})
	begins, err := m.begins(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]View, len(m.cfg.Sources))
	answers := make([]Answer, len(m.cfg.Sources))
	var asked sync.WaitGroup
	for i, s := range m.cfg.Sources {
		asked.Go(func() {
			limited, cancel := context.WithTimeout(ctx, m.cfg.askTime)
			defer cancel()
			out[i].View = s.View
			var err error
			if answers[i], err = s.Ask(limited); err != nil {
				out[i].Error = strings.Join(strings.Fields(err.Error()), " ") // in one line
			}
		})
	}
	owners := make([]map[topic.Slot]string, len(m.cfg.Sources))
	for i, s := range m.cfg.Sources {
		asked.Go(func() { owners[i] = m.owners(ctx, s.Group, &out[i]) })
	}
	asked.Wait()
	for i, s := range m.cfg.Sources {
		if out[i].Slots = len(ends[s.Topics[0]]); out[i].GroupError == "" {
			out[i].Unowned = out[i].Slots - len(owners[i])
		}
		if out[i].Error == "" {
			m.compare(&out[i], s, answers[i], owners[i], now, begins)
		}
	}
	if err := m.checkAhead(ctx, out); err != nil {
		return nil, err
	}
	for i, s := range m.cfg.Sources {
		if out[i].Error == "" {
			m.age(ctx, &out[i], s, answers[i])
			out[i].sum()
		}
		m.stale = m.stale || out[i].Ahead > 0 || out[i].Lost > 0
	}
	return out, nil
}

// load loads the bases again where there is reason to.
func (m *Meter) load(ctx context.Context) error {
	if !m.stale || time.Since(m.loaded) < loadEvery {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.askTime)
	defer cancel()
	if err := m.cfg.Bases.Reload(ctx, m.cfg.Client); err != nil {
		return fmt.Errorf("lag: load bases: %w", err)
	}
	m.stale, m.loaded = false, time.Now()
	return nil
}

func (m *Meter) remember(s sample) {
	m.samples = append(m.samples, s)
	drop := max(0, len(m.samples)-maxSamples)
	for drop < len(m.samples)-1 && s.at.Sub(m.samples[drop].at) > maxMemory {
		drop++
	}
	m.samples = slices.Delete(m.samples, 0, drop)
}

func (m *Meter) ends(ctx context.Context) (map[topic.Topic][]topic.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.askTime)
	defer cancel()
	out := map[topic.Topic][]topic.Position{}
	for _, t := range m.topics {
		ends, err := m.cfg.Bases.Ends(ctx, m.cfg.Client, t)
		if err != nil {
			return nil, fmt.Errorf("lag: %w", err)
		}
		out[t] = ends
	}
	return out, nil
}

// begins are the offsets of the partitions' first records.
func (m *Meter) begins(ctx context.Context) (map[key]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.askTime)
	defer cancel()
	var names []string
	for _, t := range m.topics {
		names = append(names, m.cfg.Kafka.Name(t))
	}
	listed, err := kadm.NewClient(m.cfg.Client).ListStartOffsets(ctx, names...)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("lag: where the log begins: %w", err)
	}
	out := map[key]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		if t, ok := m.cfg.Kafka.Topic(o.Topic); ok {
			out[key{t, topic.Slot(o.Partition)}] = o.Offset
		}
	})
	return out, nil
}

// owners asks a group who owns which slots.
func (m *Meter) owners(ctx context.Context, group string, v *View) map[topic.Slot]string {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.askTime)
	defer cancel()
	v.Owners = []string{}
	members, err := kafka.DescribeGroup(ctx, m.cfg.Client, m.cfg.Kafka, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // nobody has ever joined
		v.GroupError = err.Error()
		return nil
	}
	out := map[topic.Slot]string{}
	for _, one := range members {
		name := one.InstanceID
		if name == "" {
			name = one.ClientID
		}
		v.Owners = append(v.Owners, name)
		for _, s := range one.Slots {
			out[s] = name
		}
	}
	return out
}

// compare fills in the places of a view.
func (m *Meter) compare(
	v *View, src Source, a Answer, owners map[topic.Slot]string, now time.Time, begins map[key]int64,
) {
	v.Generation = a.Generation
	ends := m.samples[len(m.samples)-1].ends
	before, prior := m.last[v.View], m.prior()
	since := now.Sub(m.lastAt[v.View]).Seconds()
	nexts, bases := map[key]int64{}, m.cfg.Bases
	for _, t := range src.Topics {
		for i, end := range ends[t] {
			k := key{t, topic.Slot(i)}
			stored := a.Next[t][k.slot]
			// What an operator has given up is behind every view.
			at := max(0, bases.First(t, k.slot), bases.Offset(t, k.slot, stored))
			until := bases.Offset(t, k.slot, end)
			p := Place{
				Topic: t, Slot: k.slot, Next: max(stored, bases.At(t, k.slot, at)), End: end, at: at,
				Owner: owners[k.slot], Records: max(0, until-at),
			}
			p.Ahead = max(0, int64(p.Next-end))
			if t != topic.Receipts {
				p.Lost = max(0, min(begins[k], until)-at)
			}
			nexts[k] = at
			v.TakenIn += at
			if was, ok := before[k]; ok && was <= at && since > 0 && prior != nil && i < len(prior.ends[t]) {
				came := until - bases.Offset(t, k.slot, prior.ends[t][i])
				p.Flow = flow(p.Records, float64(at-was)/since, float64(came)/now.Sub(prior.at).Seconds())
			}
			v.Places = append(v.Places, p)
		}
	}
	m.last[v.View], m.lastAt[v.View] = nexts, now
}

// prior is the sample before the last one; nil: there is none.
func (m *Meter) prior() *sample {
	if len(m.samples) < 2 {
		return nil
	}
	return &m.samples[len(m.samples)-2]
}

func flow(records int64, rate, arrivals float64) Flow {
	f := Flow{Rate: &rate, Arrivals: &arrivals}
	if gain := rate - arrivals; records == 0 || gain > 0 {
		left := 0.0
		if records > 0 {
			left = float64(records) / gain
		}
		f.CatchUp = &left
	}
	return f
}

// checkAhead asks the log again where a view seems ahead of it: it may have taken in what came since.
func (m *Meter) checkAhead(ctx context.Context, all []View) error {
	ahead := func(p Place) bool { return p.Ahead > 0 }
	if !slices.ContainsFunc(all, func(v View) bool { return slices.ContainsFunc(v.Places, ahead) }) {
		return nil
	}
	ends, err := m.ends(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		for j := range all[i].Places {
			if p := &all[i].Places[j]; p.Ahead > 0 {
				p.Ahead = max(0, int64(p.Next-ends[p.Topic][p.Slot]))
			}
		}
	}
	return nil
}

// sum fills in what a view has of its places.
func (v *View) sum() {
	lagging := map[topic.Slot]bool{}
	var rate, arrivals float64
	flows := len(v.Places) > 0
	for _, p := range v.Places {
		v.Records += p.Records
		v.Lost += p.Lost
		v.Ahead += p.Ahead
		v.AtLeast = v.AtLeast || p.AtLeast
		v.Seconds = max(v.Seconds, p.Seconds)
		if p.Records > 0 {
			lagging[p.Slot] = true
		}
		if flows = flows && p.Rate != nil; flows {
			rate += *p.Rate
			arrivals += *p.Arrivals
		}
	}
	v.Lagging = len(lagging)
	if flows {
		v.Flow = flow(v.Records, rate, arrivals)
	}
}
