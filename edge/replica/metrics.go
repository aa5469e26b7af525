package replica

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
	"heliograph/schemas/thread"
)

// The reasons of helio_replica_drops_total.
const (
	dropKey         = "malformed_key"
	dropTopic       = "unknown_topic"
	dropBacklog     = "backlog_full" // too many events of a subject wait until it is live
	dropQuarantined = "quarantined"  // the subject's events have stopped
)

// verdictDuplicate is the one of helio_replica_refused_events_total that is no reason for which a fold rejects.
const verdictDuplicate = "duplicate"

// operations are those of helio_replica_errors_total: questions to the views, and links.
var operations = []string{
	"delivered", "unread", "rejected", "tails", "devices", "quarantine", "positions", "snapshot", "look_up",
	"directory", "link",
}

type metrics struct {
	drops            *prometheus.CounterVec
	quarantined      prometheus.Counter
	released         prometheus.Counter
	packed           prometheus.Counter
	gaps             prometheus.Counter
	late             *prometheus.CounterVec
	viewsBack        prometheus.Counter
	verdicts         *prometheus.CounterVec
	errors           *prometheus.CounterVec
	refused          prometheus.Counter
	lookedUp         prometheus.Counter
	snapshotSeconds  prometheus.Histogram
	snapshotSubjects prometheus.Histogram
	eventAge         prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, r *Replica) metrics {
	name := func(n string) string { return "helio_replica_" + n }
	counter := func(n, help string) prometheus.Counter {
		return run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: name(n), Help: help}))
	}
	vec := func(n, help, label string) *prometheus.CounterVec {
		opts := prometheus.CounterOpts{Name: name(n), Help: help}
		return run.Register(reg, prometheus.NewCounterVec(opts, []string{label}))
	}
	histogram := func(n, help string, buckets []float64) prometheus.Histogram {
		opts := prometheus.HistogramOpts{Name: name(n), Help: help, Buckets: buckets}
		return run.Register(reg, prometheus.NewHistogram(opts))
	}
	sampled := func(n, help string, fn func(slotSample) float64) {
		opts := prometheus.GaugeOpts{Name: name(n), Help: help}
		run.Register(reg, prometheus.NewGaugeFunc(opts, func() float64 { return fn(r.sample()) }))
	}
	m := metrics{
		drops: vec(
			"drops_total", "Events that were dropped, by reason; the subject makes up for it by a snapshot.", "reason",
		),
		quarantined: counter(
			"subjects_quarantined_total", "Subjects whose events stopped because one could not be applied.",
		),
		released: counter(
			"subjects_released_total",
			"Subjects that were opened again, because the views have got past what stopped them.",
		),
		refused: counter(
			"subjects_refused_total",
			"Subjects for which a link to a delivery instance had no room; they are asked for again.",
		),
		lookedUp: counter(
			"messages_looked_up_total",
			"Messages that the views were asked for, because more came within the window of the rule on repeats than "+
				"is loaded with a thread.",
		),
		packed: counter("threads_packed_total", "Threads whose states were packed because they were of no use."),
		gaps:   counter("gaps_total", "Subjects that were loaded anew because their slot's stream had a gap."),
		late: vec(
			"subjects_late_total",
			"Subjects that were not live, or not subscribed with their slot's owner, after five seconds, by what they "+
				"waited for; it is asked for again.", "waits_for",
		),
		viewsBack: counter(
			"views_fell_back_total",
			"Answers that found the thread views at an earlier position than before, as after a crash of Postgres.",
		),
		verdicts: vec(
			"refused_events_total", "Events that a thread's fold did not accept, by reason.", "reason",
		),
		errors: vec(
			"errors_total", "Failures of what the replica depends on, by operation; each is tried again.", "operation",
		),
		snapshotSeconds: histogram(
			"snapshot_seconds", "Duration of a snapshot.", prometheus.ExponentialBuckets(0.0005, 2.5, 12),
		),
		snapshotSubjects: histogram(
			"snapshot_subjects", "Subjects of a snapshot.", prometheus.ExponentialBuckets(1, 4, 6),
		),
		eventAge: histogram(
			"event_age_seconds", "Age by log time of an event when it was taken in.",
			prometheus.ExponentialBuckets(0.0005, 2.5, 12),
		),
	}
	run.Born(m.late, waits)
	run.Born(m.drops, []string{dropKey, dropTopic, dropBacklog, dropQuarantined})
	run.Born(m.verdicts, []string{
		verdictDuplicate, string(thread.NotMember), string(thread.NotAdmin), string(thread.Malformed),
		string(thread.Exists), string(thread.Missing), string(thread.NotInvited), string(thread.Full),
		string(thread.WrongKind), string(thread.Unknown),
	})
	run.Born(m.errors, operations)
	sampled(
		"threads", "Threads that this edge is subscribed to.", func(s slotSample) float64 { return float64(s.threads) },
	)
	sampled("users", "Users that this edge is subscribed to.", func(s slotSample) float64 { return float64(s.users) })
	sampled(
		"subjects_pending", "Subjects that are not live yet.", func(s slotSample) float64 { return float64(s.waiting) },
	)
	sampled(
		"subjects_late",
		"Subjects that have not been live, or subscribed with their slot's owner, for more than five seconds.",
		func(s slotSample) float64 { return float64(s.late) },
	)
	sampled(
		"backlog_events", "Events that wait for subjects that are not live yet, or for the views to look a message up.",
		func(s slotSample) float64 { return float64(s.backlog) },
	)
	sampled(
		"oldest_pending_seconds", "Age of the oldest subject that is not live yet.",
		func(s slotSample) float64 { return s.oldest.Seconds() },
	)
	sampled(
		"oldest_undelivered_seconds",
		"Age by log time of the oldest event that waits for its subject to be live, or for the views to look up a "+
			"message.",
		func(s slotSample) float64 { return s.undelivered.Seconds() },
	)
	sampled(
		"slots_without_owner", "Slots that no delivery instance has claimed.",
		func(s slotSample) float64 { return float64(s.orphans) },
	)
	sampled(
		"slot_cursor_lag_seconds", "Longest time since a slot's cursor was confirmed.",
		func(s slotSample) float64 { return s.silence.Seconds() },
	)
	return m
}

// slotSample is the state of all slots together.
type slotSample struct {
	threads, users, waiting, late, backlog, orphans int
	oldest, undelivered, silence                    time.Duration
}

// backlogged counts events that wait.
func (o *slotSample) backlogged(list []queued, now time.Time) {
	if o.backlog += len(list); len(list) > 0 {
		o.undelivered = max(o.undelivered, now.Sub(time.UnixMilli(list[0].rec.GetLogTimeMs())))
	}
}

// sample looks at every slot. One scrape's gauges share a sample.
func (r *Replica) sample() slotSample {
	r.sampleMu.Lock()
	defer r.sampleMu.Unlock()
	if time.Since(r.sampledAt) < 100*time.Millisecond {
		return r.sampled
	}
	var out slotSample
	now := time.Now()
	for _, s := range r.slots {
		s.mu.RLock()
		out.threads += len(s.threads)
		out.users += len(s.users)
		out.waiting += len(s.waiting)
		out.late += s.isLate(now)
		if s.owner == nil {
			out.orphans++
		}
		if !s.heard.IsZero() {
			out.silence = max(out.silence, now.Sub(s.heard))
		}
		for sub := range s.waiting {
			out.oldest = max(out.oldest, now.Sub(sub.pending.since))
			out.backlogged(sub.pending.backlog.list, now)
		}
		for t := range s.doubting {
			out.backlogged(t.doubted.list, now)
		}
		s.mu.RUnlock()
	}
	r.sampled, r.sampledAt = out, now
	return out
}

// OldestPending is the age of the oldest subject that is not live yet. Any goroutine may call it, as those below.
func (r *Replica) OldestPending() time.Duration { return r.sample().oldest }

// OldestUndelivered is the age by log time of the oldest event that waits for its subject to be live, or for the views
// to look a message up.
func (r *Replica) OldestUndelivered() time.Duration { return r.sample().undelivered }

// WithoutOwner is the number of slots that no delivery instance has claimed.
func (r *Replica) WithoutOwner() int { return r.sample().orphans }

// CursorLag is the longest time since a slot's cursor was confirmed: a delivery that is dead shows in no queue, only in
// its silence.
func (r *Replica) CursorLag() time.Duration { return r.sample().silence }
