package e2e

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"heliograph/edge/client"
	"heliograph/schemas/id"
)

// line is one who writes to one thread without end.
type line struct {
	from *device
	to   client.To

	mu   sync.Mutex // guards what follows
	sent []id.MessageID
	err  error
}

func (l *line) ids() []id.MessageID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]id.MessageID(nil), l.sent...)
}

// traffic is lines that write until stop.
type traffic struct {
	t     *testing.T
	lines []*line
	end   chan struct{}
	wg    sync.WaitGroup
	once  sync.Once
}

// since are the messages after the first n.
func (l *line) since(n int) []id.MessageID {
	ms := l.ids()
	return ms[min(n, len(ms)):]
}

// flow has each line send a message every so often.
func flow(t *testing.T, every time.Duration, lines ...*line) *traffic {
	f := &traffic{t: t, lines: lines, end: make(chan struct{})}
	for _, l := range lines {
		f.wg.Go(func() { l.run(f.end, every) })
	}
	t.Cleanup(f.halt)
	return f
}

func (l *line) run(end <-chan struct{}, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-end:
			return
		case <-ticker.C:
		}
		m, err := l.from.u.Send(l.to, fmt.Sprintf("%s %d", l.from.name, n))
		l.mu.Lock()
		switch {
		case errors.Is(err, client.ErrOutboxFull): // as the design has it: the application is told
		case err != nil:
			l.err = err
		default:
			l.sent = append(l.sent, m)
		}
		l.mu.Unlock()
	}
}

func (f *traffic) halt() {
	f.once.Do(func() { close(f.end) })
	f.wg.Wait()
}

// total is how many messages were sent.
func (f *traffic) total() int {
	n := 0
	for _, l := range f.lines {
		n += len(l.ids())
	}
	return n
}

// marks tells how many messages each line has sent so far. One more that it is sending just now may not be counted.
func (f *traffic) marks() []int {
	out := make([]int, len(f.lines))
	for i, l := range f.lines {
		out[i] = len(l.ids())
	}
	return out
}

// goOn waits until n more messages were sent.
func (f *traffic) goOn(n int) {
	f.t.Helper()
	least := f.total() + n
	until(f.t, "traffic goes on", func() bool { return f.total() >= least })
}

// lasts lets the traffic flow for a while.
func (f *traffic) lasts(d time.Duration) { <-time.After(d) }

// finish stops the traffic and waits until every outbox is empty.
func (f *traffic) finish() {
	f.t.Helper()
	f.halt()
	for _, l := range f.lines {
		if l.err != nil {
			f.t.Errorf("%s cannot send: %v", l.from.name, l.err)
		}
		until(f.t, l.from.name+" has an empty outbox", func() bool { return l.from.u.Outbox() == 0 }, func() string {
			return fmt.Sprintf("%d wait, online: %v", l.from.u.Outbox(), l.from.u.Online())
		})
	}
}
