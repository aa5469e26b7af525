package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"sort"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"heliograph/infra/kafka"
	"heliograph/ingest"
	logevent "heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/tools/chat"
	"heliograph/tools/operator"
)

// quarantineCmd is the way out of quarantine.
type quarantineCmd struct {
	List  quarantineListCmd  `cmd:"" help:"List the threads and users that stand still, and since which event."`
	Show  quarantineShowCmd  `cmd:"" help:"Show the events that stop a thread or user, and why."`
	Retry quarantineRetryCmd `cmd:"" help:"Have the event that stops a thread or user tried again."`
	Drop  quarantineDropCmd  `cmd:"" help:"Have an event passed over for ever, so that its thread or user goes on."`
}

// Help shows how it is used.
func (quarantineCmd) Help() string {
	return `Examples:
  helio quarantine list
  helio quarantine show 5f0e9d2a-77b1-8c44-9a53-6d1f1f6b8e21
  helio quarantine retry 5f0e9d2a-77b1-8c44-9a53-6d1f1f6b8e21
  helio quarantine drop 5f0e9d2a-77b1-8c44-9a53-6d1f1f6b8e21 --position 1200 --note 'written by a broken build'

An event that a view cannot apply stops its thread or user there: all later events of it are parked, in order. What is
decided is an event of helio.quarantine, with who decided it and why. Every fold obeys it, and every later rebuild.`
}

// quarantineFlags are those of every command of quarantine.
type quarantineFlags struct {
	kafkaFlags
	postgresFlags
	clickhouseFlags
	localFlags
	outputFlags
}

// views opens both views. The caller closes them.
func (f *quarantineFlags) views(ctx context.Context, log *slog.Logger) (*operator.Views, error) {
	if err := f.fill(ctx, &f.kafkaFlags, &f.postgresFlags, &f.clickhouseFlags); err != nil {
		return nil, err
	}
	return operator.OpenViews(
		ctx, f.postgresFlags.config(log, nil, "quarantine", 2), f.clickhouseFlags.config(log, nil, "quarantine"),
	)
}

func (f *quarantineFlags) log(log *slog.Logger) kafka.Config {
	return f.kafkaFlags.config(log, nil, "helio-quarantine")
}

// subjectOf reads the id of a thread or user.
func subjectOf(s string) (topic.Subject, error) {
	subject, err := id.Parse[id.ThreadID](s)
	if err != nil {
		return topic.Subject{}, fmt.Errorf("%q is not the id of a thread or user: %w", s, err)
	}
	return topic.Subject(subject), nil
}

// silent is the views that did not answer, as an error.
func silent(q operator.Quarantine) error {
	var errs []error
	for _, view := range []string{operator.ViewThreads, operator.ViewHistory} {
		if why := q.Errors[view]; why != "" {
			errs = append(errs, fmt.Errorf("the %s do not answer: %s", viewName(view), why))
		}
	}
	return errors.Join(errs...)
}

type quarantineListCmd struct{ quarantineFlags }

// Help shows how it is used.
func (quarantineListCmd) Help() string {
	return `Examples:
  helio quarantine list
  helio quarantine list -o json

Each line is a thread or user, with the event since which it stands still on a topic (slot and position), how many
events are parked behind that, and the views that have it so. An event without a thread or user in its key stops
nothing; its subject is all zeros.`
}

// Run lists what stands still.
func (c *quarantineListCmd) Run(ctx context.Context, log *slog.Logger) error {
	v, err := c.views(ctx, log)
	if err != nil {
		return err
	}
	defer v.Close()
	q := v.Quarantine(ctx, nil)
	header := table.Row{"subject", "topic", "slot", "position", "since", "behind", "views", "reason"}
	rows := make([]table.Row, len(q.Stopped))
	for i := range q.Stopped {
		s := &q.Stopped[i]
		rows[i] = table.Row{
			s.Subject, s.Topic, s.Slot, s.Position, s.Since.Local().Format(time.DateTime), s.MostBehind(), s.Views(),
			chat.CleanLine(s.Reason),
		}
	}
	if len(rows) == 0 && c.Output != "json" && len(q.Errors) == 0 {
		_, err := fmt.Println("nothing is in quarantine")
		return err
	}
	if err := c.print(q, header, rows); err != nil {
		return err
	}
	return silent(q)
}

type quarantineShowCmd struct {
	quarantineFlags
	Subject string `arg:"" help:"The thread or user."`
	Bodies  bool   `help:"Show what messages say."`
}

// Help shows how it is used.
func (quarantineShowCmd) Help() string {
	return `Examples:
  helio quarantine show 5f0e9d2a-77b1-8c44-9a53-6d1f1f6b8e21
  helio quarantine show 5f0e9d2a-77b1-8c44-9a53-6d1f1f6b8e21 -o json

What cannot be decoded is shown in hexadecimal too.`
}

// Run shows what stops a subject.
func (c *quarantineShowCmd) Run(ctx context.Context, log *slog.Logger) error {
	subject, err := subjectOf(c.Subject)
	if err != nil {
		return err
	}
	v, err := c.views(ctx, log)
	if err != nil {
		return err
	}
	defer v.Close()
	q := v.Quarantine(ctx, &subject)
	var found []operator.Found
	for _, s := range q.Stopped {
		found = append(found, s.Find(ctx, c.log(log), c.Bodies))
	}
	if c.Output == "json" {
		if err := printJSON(os.Stdout, struct {
			Found  []operator.Found  `json:"found"`
			Errors map[string]string `json:"errors,omitempty"`
		}{found, q.Errors}); err != nil {
			return err
		}
		return silent(q)
	}
	for i := range found {
		showFound(os.Stdout, &found[i])
	}
	if len(found) == 0 && len(q.Errors) == 0 {
		fmt.Printf("nothing of %s is in quarantine\n", c.Subject)
	}
	return silent(q)
}

// showFound prints an event for people.
func showFound(w io.Writer, f *operator.Found) {
	fmt.Fprintf(w, "%s slot %d position %d\n", f.Topic, f.Slot, f.Position)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "  %-10s %s\n", name, chat.CleanLine(value)) // people wrote some of it
		}
	}
	line("reason", f.Reason)
	line("since", f.Since.Local().Format(time.DateTime))
	for _, view := range []string{operator.ViewThreads, operator.ViewHistory} {
		if behind, ok := f.Behind[view]; ok {
			line(view, fmt.Sprintf("stands still, with %d parked behind it", behind))
		}
	}
	if f.Error != "" {
		line("log", f.Error)
		return
	}
	line("key", f.Key)
	line("event", f.Kind)
	line("by", cmp.Or(f.User, "system"))
	line("device", f.Device)
	line("envelope", strings.Join(f.Words(), " "))
	var fields []string
	for k, v := range f.Fields {
		fields = append(fields, fmt.Sprintf("%s=%v", k, v))
	}
	sort.Strings(fields)
	line("fields", strings.Join(fields, " "))
	line("malformed", f.Event.Error)
	line("bytes", f.Raw)
}

// decideFlags are those of a command that decides something.
type decideFlags struct {
	quarantineFlags
	Subject string        `arg:"" help:"The thread or user."`
	Topic   string        `help:"Topic of the event, where the subject stands still on several: threads, receipts or users." enum:",threads,receipts,users" default:""`
	Who     string        `help:"Who decides it; default: the user and machine." env:"HELIO_WHO"`
	Wait    time.Duration `help:"How long to wait until the views have done it." default:"30s"`
	NoWait  bool          `help:"Do not wait."`
}

// who names the operator in the event.
func (f *decideFlags) who() string {
	who := f.Who
	if who == "" {
		who = "unknown"
		if u, err := user.Current(); err == nil {
			who = u.Username
		}
		if host, err := os.Hostname(); err == nil {
			who += "@" + host
		}
	}
	return producer(who)
}

// pick finds what stops the subject: at a position, or, below 0, wherever.
func (f *decideFlags) pick(q operator.Quarantine, at topic.Position) ([]operator.Stopped, error) {
	var out []operator.Stopped
	var have []string
	for _, s := range q.Stopped {
		if f.Topic != "" && s.Topic != topic.Topic(kafka.DefaultTopicPrefix+f.Topic) {
			continue
		}
		have = append(have, fmt.Sprintf("position %d of %s slot %d (%s)", s.Position, s.Topic, s.Slot, s.Views()))
		if at < 0 || s.Position == at {
			out = append(out, s)
		}
	}
	switch {
	case len(have) == 0:
		return nil, fmt.Errorf("nothing of %s is in quarantine", f.Subject)
	case len(out) == 0:
		return nil, fmt.Errorf("%s does not stand still at position %d, but at %s",
			f.Subject, at, strings.Join(have, ", "))
	}
	return out, nil
}

// decided is what a command says as JSON.
type decided struct {
	Topic    topic.Topic         `json:"topic"`
	Slot     topic.Slot          `json:"slot"`
	Position topic.Position      `json:"position"`
	Release  string              `json:"release"`
	Views    []operator.Released `json:"views,omitempty"`

	took time.Duration
}

// decide appends a decision about what stops a subject, and tells what came of it.
func (f *decideFlags) decide(
	ctx context.Context, log *slog.Logger, v *operator.Views, s operator.Stopped, subject topic.Subject,
	release eventv1.Release, note string,
) (decided, error) {
	out := decided{
		Topic: s.Topic, Slot: s.Slot, Position: s.Position,
		Release: strings.ToLower(strings.TrimPrefix(release.String(), "RELEASE_")),
	}
	cfg := f.log(log)
	l, err := operator.Open(ctx, cfg, topic.Quarantine)
	if err != nil {
		return out, err
	}
	cfg.Partitions = l.Partitions()
	offset := l.End(s.Slot)
	l.Close()
	begun := time.Now()
	if _, err := (ingest.Release{
		Topic: s.Topic, Slot: s.Slot, Position: s.Position, Subject: subject, Release: release, Note: note,
		Who: f.who(),
	}).Append(ctx, cfg); err != nil {
		return out, err
	}
	if f.NoWait {
		return out, nil
	}
	ctx, cancel := context.WithTimeout(ctx, f.Wait)
	defer cancel()
	out.Views = v.Watch(ctx, cfg, s, release == eventv1.Release_RELEASE_DROPPED, offset)
	out.took = time.Since(begun)
	return out, nil
}

// tell says what came of decisions; what is not done is a failure.
func (f *decideFlags) tell(all []decided) error {
	if f.Output == "json" {
		if err := printJSON(os.Stdout, all); err != nil {
			return err
		}
	}
	open := 0
	for _, d := range all {
		if f.Output != "json" {
			fmt.Printf("%s slot %d position %d is %s\n", d.Topic, d.Slot, d.Position, d.Release)
		}
		for _, r := range d.Views {
			if r.State != operator.ReleaseDrained {
				open++
			}
			if f.Output != "json" {
				fmt.Printf("  %-8s %s\n", r.View, releasedWords(r, d.took))
			}
		}
	}
	if open > 0 {
		return errReported
	}
	return nil
}

func releasedWords(r operator.Released, took time.Duration) string {
	behind := fmt.Sprintf("position %d (%s), with %d parked behind it", r.Position, chat.CleanLine(r.Reason), r.Behind)
	switch r.State {
	case operator.ReleaseDrained:
		return "has taken in all that was parked"
	case operator.ReleaseStopped:
		return "has gone on, and stands still again at " + behind
	case operator.ReleaseRefused:
		return "has tried it again, and stands still at " + behind
	case operator.ReleaseUnknown:
		return "does not answer: " + chat.CleanLine(r.Reason)
	}
	return fmt.Sprintf("has not done it after %v: it stands still at %s; its projector is down, or of an older version",
		took.Round(time.Second), behind)
}

type quarantineRetryCmd struct {
	decideFlags
	Note string `help:"Why." placeholder:"WHY"`
}

// Help shows how it is used.
func (quarantineRetryCmd) Help() string {
	return `Examples:
  helio quarantine retry 5f0e9d2a-77b1-8c44-9a53-6d1f1f6b8e21
  helio quarantine retry 5f0e9d2a-77b1-8c44-9a53-6d1f1f6b8e21 --note 'after the fix of the fold' --wait 2m

For an event that a version has broken on, once one runs that does not. What a newer version has written needs no retry:
a projector of that version takes it in by itself. The exit code is 0 when every view has taken in all that was parked.`
}

// Run has what stops a subject tried again.
func (c *quarantineRetryCmd) Run(ctx context.Context, log *slog.Logger) error {
	subject, err := subjectOf(c.Subject)
	if err != nil {
		return err
	}
	v, err := c.views(ctx, log)
	if err != nil {
		return err
	}
	defer v.Close()
	q := v.Quarantine(ctx, &subject)
	if err := silent(q); err != nil {
		return err
	}
	picked, err := c.pick(q, -1)
	if err != nil {
		return err
	}
	var all []decided
	for _, s := range picked {
		d, err := c.decide(ctx, log, v, s, subject, eventv1.Release_RELEASE_RETRIED, c.Note)
		if err != nil {
			return errors.Join(err, c.tell(all))
		}
		all = append(all, d)
	}
	return c.tell(all)
}

type quarantineDropCmd struct {
	decideFlags
	Position int64  `help:"Position of the event that stops it, as list and show tell it." required:"" placeholder:"N"`
	Note     string `help:"Why." required:"" placeholder:"WHY"`
	Yes      bool   `short:"y" help:"Do not ask."`
}

// Help shows how it is used.
func (quarantineDropCmd) Help() string {
	return `Examples:
  helio quarantine drop 5f0e9d2a-77b1-8c44-9a53-6d1f1f6b8e21 --position 1200 --note 'written by a broken build'
  helio quarantine drop 5f0e9d2a-77b1-8c44-9a53-6d1f1f6b8e21 --position 1200 --note 'a test' --yes --no-wait

The event stays in the log, and every fold passes it over for ever, whenever it comes to it. It must be what stops the
thread or user in every view that folds its topic; what is only parked behind it cannot be dropped. The views take in
what was parked, in order, and senders are let in within a second. The exit code is 0 when all of that is done.`
}

// Run drops an event.
func (c *quarantineDropCmd) Run(ctx context.Context, log *slog.Logger) error {
	subject, err := subjectOf(c.Subject)
	if err != nil {
		return err
	}
	if c.Position < 0 {
		return fmt.Errorf("--position %d is negative", c.Position)
	}
	if n := len(c.Note); n > logevent.MaxNote || strings.TrimSpace(c.Note) == "" {
		return fmt.Errorf("--note has %d bytes, needs 1 to %d", n, logevent.MaxNote)
	}
	v, err := c.views(ctx, log)
	if err != nil {
		return err
	}
	defer v.Close()
	q := v.Quarantine(ctx, &subject)
	if err := silent(q); err != nil {
		return err
	}
	picked, err := c.pick(q, topic.Position(c.Position))
	if err != nil {
		return err
	}
	s := picked[0]
	for _, o := range picked {
		if o.Topic != s.Topic || o.Slot != s.Slot {
			return fmt.Errorf("%s stands still at position %d of several topics: name one by --topic",
				c.Subject, c.Position)
		}
	}
	if err := v.Droppable(ctx, s); err != nil {
		return err
	}
	if !c.Yes {
		f := s.Find(ctx, c.log(log), false)
		showFound(os.Stderr, &f)
		err := confirm(os.Stdin, os.Stderr, "Every fold will pass this event over for ever. Drop it?")
		if err != nil {
			return err
		}
	}
	d, err := c.decide(ctx, log, v, s, subject, eventv1.Release_RELEASE_DROPPED, c.Note)
	if err != nil {
		return err
	}
	return c.tell([]decided{d})
}
