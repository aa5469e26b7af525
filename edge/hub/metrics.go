package hub

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
)

type metrics struct {
	sessions         prometheus.Gauge
	syncing          prometheus.Gauge
	pushes           prometheus.Counter
	drops            *prometheus.CounterVec
	revoked          prometheus.Counter
	poisoned         prometheus.Counter
	gaps             prometheus.Counter
	older            prometheus.Counter
	viewsBack        prometheus.Counter
	verdicts         *prometheus.CounterVec
	errors           *prometheus.CounterVec
	snapshotSeconds  prometheus.Histogram
	snapshotSubjects prometheus.Histogram
	syncSeconds      prometheus.Histogram
	eventAge         prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, h *Hub) metrics {
	counter := func(name, help string) prometheus.Counter {
		return run.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "helio_hub_" + name, Help: help}))
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return run.Register(
			reg,
			prometheus.NewCounterVec(prometheus.CounterOpts{Name: "helio_hub_" + name, Help: help}, []string{label}),
		)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return run.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: "helio_hub_" + name, Help: help}))
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return run.Register(
			reg,
			prometheus.NewHistogram(prometheus.HistogramOpts{Name: "helio_hub_" + name, Help: help, Buckets: buckets}),
		)
	}
	sampled := func(name, help string, fn func(slotSample) float64) {
		run.Register(
			reg,
			prometheus.NewGaugeFunc(
				prometheus.GaugeOpts{Name: "helio_hub_" + name, Help: help}, func() float64 { return fn(h.sample()) },
			),
		)
	}
	seconds := prometheus.ExponentialBuckets(0.0005, 2.5, 12)
	m := metrics{
		sessions: gauge("sessions", "Sessions that are attached."),
		syncing:  gauge("sessions_catching_up", "Catch-ups under way."),
		pushes:   counter("pushes_total", "Events handed to sessions."),
		drops: vec(
			"drops_total", "What was dropped, by reason; the device or the subject makes up for it by a catch-up.",
			"reason",
		),
		revoked: counter("sessions_revoked_total", "Sessions that were cut because their device was revoked."),
		poisoned: counter(
			"subjects_poisoned_total", "Subjects whose events stopped because one could not be applied.",
		),
		gaps: counter(
			"gaps_total", "Subjects that were loaded anew because their slot's stream had a gap.",
		),
		older: counter(
			"older_events_total",
			"Events of catch-ups that were trimmed from the thread views and read from the history.",
		),
		viewsBack: counter(
			"views_fell_back_total",
			"Answers that found the thread views at an earlier position than before, as after a crash of Postgres.",
		),
		verdicts: vec(
			"refused_events_total", "Events that a thread's fold did not accept, by reason.", "reason",
		),
		errors: vec(
			"errors_total", "Failures of what the hub depends on, by operation; each is tried again.", "operation",
		),
		snapshotSeconds: histogram("snapshot_seconds", "Duration of a snapshot.", seconds),
		snapshotSubjects: histogram(
			"snapshot_subjects", "Subjects of a snapshot.", prometheus.ExponentialBuckets(1, 4, 6),
		),
		syncSeconds: histogram("sync_seconds", "Duration of a session's Sync.", seconds),
		eventAge:    histogram("event_age_seconds", "Age by log time of an event when it was taken in.", seconds),
	}
	sampled(
		"threads", "Threads that this edge is subscribed to.", func(s slotSample) float64 { return float64(s.threads) },
	)
	sampled("users", "Users that this edge is subscribed to.", func(s slotSample) float64 { return float64(s.users) })
	sampled(
		"subjects_pending", "Subjects that are not live yet.", func(s slotSample) float64 { return float64(s.waiting) },
	)
	sampled(
		"events_held", "Events held for subjects that are not live yet.",
		func(s slotSample) float64 { return float64(s.held) },
	)
	sampled(
		"oldest_pending_seconds", "Age of the oldest subject that is not live yet.",
		func(s slotSample) float64 { return s.oldest.Seconds() },
	)
	sampled(
		"oldest_undelivered_seconds",
		"Age of the oldest event that is held: by log time for a subject, since it came for a session that catches up.",
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
	threads, users, waiting, held, orphans int
	oldest, undelivered, silence           time.Duration
}

// sample looks at every slot. One scrape's gauges share a sample.
func (h *Hub) sample() slotSample {
	h.sampleMu.Lock()
	defer h.sampleMu.Unlock()
	if time.Since(h.sampledAt) < 100*time.Millisecond {
		return h.sampled
	}
	var out slotSample
	now := time.Now()
	for _, s := range h.slots {
		s.mu.RLock()
		out.threads += len(s.threads)
		out.users += len(s.users)
		out.waiting += len(s.waiting)
		if s.owner == nil {
			out.orphans++
		}
		if !s.heard.IsZero() {
			out.silence = max(out.silence, now.Sub(s.heard))
		}
		for sub := range s.waiting {
			out.held += len(sub.held)
			out.oldest = max(out.oldest, now.Sub(sub.asking))
			if len(sub.held) > 0 {
				out.undelivered = max(out.undelivered, now.Sub(time.UnixMilli(sub.held[0].rec.GetLogTimeMs())))
			}
		}
		for _, u := range s.users {
			for _, c := range u.sessions() {
				c.mu.Lock()
				if len(c.pending) > 0 {
					out.undelivered = max(out.undelivered, now.Sub(c.held))
				}
				c.mu.Unlock()
			}
		}
		s.mu.RUnlock()
	}
	h.sampled, h.sampledAt = out, now
	return out
}

// OldestPending is the age of the oldest subject that is not live yet. Any goroutine may call it, as those below.
func (h *Hub) OldestPending() time.Duration { return h.sample().oldest }

// OldestUndelivered is the age of the oldest event that is held: by log time for a subject, since it came for a session
// that catches up.
func (h *Hub) OldestUndelivered() time.Duration { return h.sample().undelivered }

// WithoutOwner is the number of slots that no delivery instance has claimed.
func (h *Hub) WithoutOwner() int { return h.sample().orphans }

// CursorLag is the longest time since a slot's cursor was confirmed: a delivery that is dead shows in no queue, only in
// its silence.
func (h *Hub) CursorLag() time.Duration { return h.sample().silence }
