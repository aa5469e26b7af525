package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"heliograph/infra/lag"
	"heliograph/tools/operator"
)

// exitError ends the process with a code of its own; what there is to say was printed.
type exitError int

// Error names the code.
func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// checkCmd judges a deployment for a monitor. It only reads.
type checkCmd struct {
	deploymentFlags
	Output   string        `short:"o" help:"nagios, json or prometheus." enum:"nagios,json,prometheus" default:"nagios"`
	View     string        `help:"Which view: threads (Postgres), history (ClickHouse), delivery or all." enum:"threads,history,delivery,all" default:"all"`
	Max      time.Duration `help:"How far a view may be behind before it is a warning." default:"30s"`
	Critical time.Duration `help:"How far behind is critical; default: four times --max." placeholder:"DURATION"`
	Timeout  time.Duration `help:"How long everything may take; then it is unknown." default:"30s"`
}

// Help shows how it is used.
func (checkCmd) Help() string {
	return `Examples:
  helio check
  helio check --max 30s --critical 5m
  helio check -o json --view threads
  helio check -o prometheus > /var/lib/node_exporter/helio.prom

The stores and the log are asked, and no role. A view that is behind, that has slots without an owner, that never took
in what the log has no more, or that is ahead of a log that was set back, is told.

The exit code is what monitoring plugins agree on: 0 all is well, 1 a warning, 2 critical, 3 not known, which is also
that of a command that was used wrongly.`
}

// Run judges and prints.
func (c *checkCmd) Run(ctx context.Context, log *slog.Logger) error {
	whole, found, err := c.judge(ctx, log)
	if err := c.write(os.Stdout, whole, found, err); err != nil {
		fmt.Fprintln(os.Stderr, "helio:", err)
		return exitError(operator.Unknown)
	}
	if whole != operator.OK {
		return exitError(whole)
	}
	return nil
}

func (c *checkCmd) limits() (operator.Limits, error) {
	if c.Critical == 0 {
		c.Critical = 4 * c.Max
	}
	if c.Max <= 0 || c.Critical < c.Max || c.Timeout <= 0 {
		return operator.Limits{}, fmt.Errorf("--max %v, --critical %v, --timeout %v: they are positive, and the first "+
			"is not above the second", c.Max, c.Critical, c.Timeout)
	}
	return operator.Limits{Warn: c.Max.Seconds(), Critical: c.Critical.Seconds()}, nil
}

func (c *checkCmd) judge(ctx context.Context, log *slog.Logger) (operator.Judgement, []operator.Finding, error) {
	by, err := c.limits()
	if err != nil {
		return operator.Unknown, nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("no answer within %v", c.Timeout))
	defer cancel()
	all, err := c.ask(ctx, log)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			err = cause
		}
		return operator.Unknown, nil, err
	}
	whole, found := operator.Judge(all, by)
	return whole, found, nil
}

func (c *checkCmd) ask(ctx context.Context, log *slog.Logger) ([]lag.View, error) {
	d, err := c.deployment(ctx, log, "check")
	if err != nil {
		return nil, err
	}
	l, err := operator.OpenLag(ctx, d)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	all, err := l.Ask(ctx)
	if err != nil {
		return nil, err
	}
	var out []lag.View
	for _, v := range all {
		if c.View == "all" || c.View == v.View {
			out = append(out, v)
		}
	}
	return out, nil
}

// write prints a judgement in the form that was asked for.
func (c *checkCmd) write(w io.Writer, whole operator.Judgement, found []operator.Finding, failed error) error {
	switch c.Output {
	case "json":
		said := struct {
			State string             `json:"state"`
			Code  int                `json:"code"`
			Error string             `json:"error,omitempty"`
			Views []operator.Finding `json:"views"`
		}{State: whole.String(), Code: int(whole), Views: found}
		if failed != nil {
			said.Error = failed.Error()
		}
		return printJSON(w, said)
	case "prometheus":
		return c.writeMetrics(w, whole, found)
	}
	return c.writeNagios(w, whole, found, failed)
}

// writeNagios prints a line of text and performance data, as monitoring plugins do, and a line for each reason.
func (c *checkCmd) writeNagios(w io.Writer, whole operator.Judgement, found []operator.Finding, failed error) error {
	var short, why, perf []string
	if failed != nil {
		short = append(short, oneLine(failed.Error()))
	}
	for _, f := range found {
		if f.Judgement == operator.OK {
			short = append(short, fmt.Sprintf("%s %s behind", f.View, operator.Ago(f.Seconds)))
		} else {
			short = append(short, fmt.Sprintf("%s %s: %s", f.View, f.State, oneLine(f.Why[0])))
		}
		for _, reason := range f.Why {
			why = append(why, fmt.Sprintf("%s: %s", f.View, oneLine(reason)))
		}
		if f.Told {
			perf = append(perf, fmt.Sprintf("%s_seconds=%.3fs;%g;%g;0 %s_records=%d;;;0",
				f.View, f.Seconds, c.Max.Seconds(), c.Critical.Seconds(), f.View, f.Records))
		}
	}
	line := "HELIO " + whole.String() + " - " + strings.Join(short, ", ")
	if len(perf) > 0 {
		line += " | " + strings.Join(perf, " ")
	}
	_, err := fmt.Fprintln(w, strings.Join(append([]string{line}, why...), "\n"))
	return err
}

// oneLine is a text that ends no line and begins no performance data.
func oneLine(s string) string { return strings.NewReplacer("\n", " ", "|", "/").Replace(s) }

// writeMetrics prints what Prometheus reads, for the textfile collector of its node exporter.
func (c *checkCmd) writeMetrics(w io.Writer, whole operator.Judgement, found []operator.Finding) error {
	var b strings.Builder
	metric := func(name, help string, value func(operator.Finding) (float64, bool)) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name)
		for _, f := range found {
			if v, ok := value(f); ok {
				fmt.Fprintf(&b, "%s{view=%q} %g\n", name, f.View, v)
			}
		}
	}
	told := func(of func(operator.Finding) float64) func(operator.Finding) (float64, bool) {
		return func(f operator.Finding) (float64, bool) { return of(f), f.Told }
	}
	fmt.Fprintf(&b, "# HELP helio_check_state 0 all is well, 1 a warning, 2 critical, 3 not known.\n"+
		"# TYPE helio_check_state gauge\nhelio_check_state %d\n", int(whole))
	metric("helio_check_view_state", "The same of each view.",
		func(f operator.Finding) (float64, bool) { return float64(f.Judgement), true })
	metric("helio_check_lag_seconds", "Age of the oldest record that the view has not taken in.",
		told(func(f operator.Finding) float64 { return f.Seconds }))
	metric("helio_check_lag_records", "Log end minus the view's next positions.",
		told(func(f operator.Finding) float64 { return float64(f.Records) }))
	metric("helio_check_slots_unowned", "Slots of the view that no process owns.",
		func(f operator.Finding) (float64, bool) { return float64(f.Unowned), true })
	_, err := io.WriteString(w, b.String())
	return err
}
