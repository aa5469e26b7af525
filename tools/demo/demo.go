package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"heliograph/edge/client"
	"heliograph/infra/clickhouse"
	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	"heliograph/schemas/event"
	"heliograph/schemas/id"
	pgschema "heliograph/schemas/postgres"
	"heliograph/tools/cluster"
)

// play is a demo that runs. Its fields are owned by Run's goroutine.
type play struct {
	cfg    Config
	show   func(Step)
	began  time.Time
	result Result

	chapter string
	c       *cluster.Cluster
	devices []*device

	ann, bob, cem, dana, eli, tablet *device
	direct                           client.To // between Ann and Bob
	group                            client.To

	people map[id.UserID]string
	titles map[id.ThreadID]string
	said   []saying
}

// saying is a message that the script sent.
type saying struct {
	by  *device
	to  id.ThreadID
	id  id.MessageID
	ans event.MessageRef // that it answers
	txt string
}

// Run plays the demo. show is called after each step, on this goroutine. The result is complete as far as the demo got;
// an error says why it ended early.
func Run(ctx context.Context, cfg Config, show func(Step)) (Result, error) {
	if err := cfg.Validate(); err != nil {
		return Result{}, fmt.Errorf("demo: %w", err)
	}
	p := &play{
		cfg:    cfg.withDefaults(),
		show:   show,
		began:  time.Now(),
		people: map[id.UserID]string{},
		titles: map[id.ThreadID]string{},
	}
	err := p.run(ctx)
	if stop := p.stop(); stop != nil {
		err = errors.Join(err, stop)
	}
	p.result.TookMS = millis(time.Since(p.began))
	if err != nil {
		p.result.OK, p.result.Verdict = false, "the demo did not get to its end"
	}
	return p.result, err
}

func (p *play) run(ctx context.Context) error {
	for _, ch := range []struct {
		name string
		play func(context.Context) error
	}{
		{"The stage", p.stage},
		{"Ann and Bob", p.talk},
		{"A group", p.groups},
		{"Bob's tablet", p.second},
		{"Dana goes through a tunnel", p.tunnel},
		{"An edge dies", p.edgeDies},
		{"A delivery instance dies", p.deliveryDies},
		{"What the history knows", p.history},
		{"Who has what", p.verdict},
	} {
		p.chapter = ch.name
		if err := ch.play(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stop disconnects what is connected and stops the deployment.
func (p *play) stop() error {
	var errs []error
	for _, d := range p.devices {
		errs = append(errs, d.off())
	}
	if p.c != nil {
		errs = append(errs, p.c.Stop())
	}
	return errors.Join(errs...)
}

// step plays one step, shows it and keeps it.
func (p *play) step(whole context.Context, name string, f func(context.Context, *Step) error) error {
	ctx, cancel := context.WithTimeout(whole, p.cfg.patience)
	defer cancel()
	s := Step{Chapter: p.chapter, Name: name}
	began := time.Now()
	s.AtMS = millis(began.Sub(p.began))
	err := f(ctx, &s)
	s.TookMS = millis(time.Since(began))
	if err != nil {
		s.Error = err.Error()
		if whole.Err() != nil {
			s.Error = "interrupted" // what it waited for just then tells nothing
		}
		err = fmt.Errorf("%s: %w", name, err)
	}
	p.result.Steps = append(p.result.Steps, s)
	p.show(s)
	return err
}

// note adds a line to a step.
func (s *Step) note(format string, args ...any) {
	s.Notes = append(s.Notes, fmt.Sprintf(format, args...))
}

// say sends a message and keeps what was sent.
func (p *play) say(d *device, to client.To, text string) (id.MessageID, time.Time, error) {
	at := time.Now()
	m, err := d.user.Send(to, text)
	if err != nil {
		return m, at, fmt.Errorf("%s: send: %w", d.name, err)
	}
	p.said = append(p.said, saying{by: d, to: to.Thread, id: m, ans: to.Reply, txt: text})
	return m, at, nil
}

// tell sends a message and waits until it is on the devices named.
func (p *play) tell(
	ctx context.Context, s *Step, d *device, to client.To, text string, on ...*device,
) (id.MessageID, error) {
	m, at, err := p.say(d, to, text)
	if err != nil {
		return m, err
	}
	_, acked, err := d.acked(ctx, m)
	if err != nil {
		return m, err
	}
	var last time.Time
	for _, o := range on {
		came, err := o.came(ctx, m)
		if err != nil {
			return m, err
		}
		if came.After(last) {
			last = came
		}
	}
	s.note("%s: %s  (✓ %s, there %s)", p.people[d.me.User], text, took(acked.Sub(at)), took(last.Sub(at)))
	return m, nil
}

// took shows a short duration.
func took(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}

func (p *play) kafka() kafka.Config {
	return kafka.Config{
		Brokers:    []string{p.c.KafkaAddr()},
		ClientID:   "helio-demo",
		Partitions: p.c.Partitions(),
		Logger:     p.logger(),
	}
}

// stores opens both views.
func (p *play) stores(ctx context.Context) (stores, error) {
	pool, err := postgres.Open(ctx, postgres.Config{
		URL: p.c.PostgresURL(), Name: "demo", MaxConns: 2, Logger: p.logger(),
		Params: map[string]string{"search_path": pgschema.ViewsSchema},
	})
	if err != nil {
		return stores{}, err
	}
	conn, err := clickhouse.Open(clickhouse.Config{
		Addr: []string{p.c.ClickHouseAddr()}, Password: p.c.ClickHousePassword(), Name: "demo", Logger: p.logger(),
	})
	if err != nil {
		pool.Close()
		return stores{}, err
	}
	return stores{pool, conn}, nil
}

func (p *play) logger() *slog.Logger {
	if p.cfg.Cluster.Logger != nil {
		return p.cfg.Cluster.Logger
	}
	return slog.New(slog.DiscardHandler)
}

// nameOf names a thread for people.
func (p *play) nameOf(t id.ThreadID) string {
	if n, ok := p.titles[t]; ok {
		return n
	}
	return t.String()
}

func names(ds []*device) string {
	out := make([]string, len(ds))
	for i, d := range ds {
		out[i] = d.name
	}
	return strings.Join(out, ", ")
}
