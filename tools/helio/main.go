// Command helio is Heliograph: every role of it, the engines for a laptop, and the tools of those who run it.
//
// One file for each command. A role's file opens with a drawing of its process, then parses, validates, binds, builds
// bottom-up in plain lines and hands everything to one run.Group, which stops in reverse. Flags, environment variables
// and files are read here and nowhere else.
//
// Non-obvious:
//   - Every setting of a role has an environment variable, and every flag a key in the file named by --config (JSON);
//     the flag wins over the variable, the variable over the file.
//   - helio dev runs the same code as the roles; only the links between edge and delivery are calls instead of
//     connections.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"

	logevent "heliograph/schemas/event"
	"heliograph/tools/operator"
)

// cli is the command line.
type cli struct {
	Dev        devCmd        `cmd:"" help:"Run everything in one place: engines, edge, delivery and both projectors."`
	Chat       chatCmd       `cmd:"" help:"Chat in the terminal."`
	Demo       demoCmd       `cmd:"" help:"Play a conversation with failures on the way and check where every message went."`
	Edge       edgeCmd       `cmd:"" help:"Run an edge: devices connect to it over QUIC."`
	Delivery   deliveryCmd   `cmd:"" help:"Run a delivery instance: it pushes events from the log to the edges."`
	Projector  projectorCmd  `cmd:"" help:"Run a projector: it folds the log into thread views or history."`
	Init       initCmd       `cmd:"" help:"Make the log: its topics, once, with the partitions and replicas you choose."`
	Status     statusCmd     `cmd:"" help:"Show which roles run, with their versions and what they own."`
	Top        topCmd        `cmd:"" help:"Watch the queues of a deployment, the fullest first."`
	Lag        lagCmd        `cmd:"" help:"Show how far each view is behind the log."`
	Check      checkCmd      `cmd:"" help:"Judge a deployment for a monitor, with its exit codes."`
	Log        logCmd        `cmd:"" help:"Look into the log."`
	Trace      traceCmd      `cmd:"" help:"Tell how far a message has got: log, views, devices."`
	Where      traceCmd      `cmd:"" hidden:"" help:"The old name of trace."`
	Verify     verifyCmd     `cmd:"" help:"Compare the views with a fresh fold of the log."`
	Quarantine quarantineCmd `cmd:"" help:"Look at what stands still since an event that cannot be applied, and release it."`
	Replay     replayCmd     `cmd:"" help:"Build a view anew beside the live one, and switch to it."`
	Bench      benchCmd      `cmd:"" help:"Measure throughput, latency, fan-out and connections."`
	Engine     engineCmd     `cmd:"" help:"Run one embedded engine: kafka, postgres or clickhouse."`
	Secrets    secretsCmd    `cmd:"" help:"Make the secrets of a deployment, or replace those of its links."`
	Version    versionCmd    `cmd:"" help:"Print what this program was built from."`
	Completion completionCmd `cmd:"" help:"Print the code that makes the shell complete helio's commands."`

	Config   kong.ConfigFlag  `help:"JSON file with values for flags, for example {\"kafka\": [\"host:9092\"]}." placeholder:"FILE"`
	LogLevel slog.Level       `help:"Least level that is logged: debug, info, warn or error." default:"info" env:"HELIO_LOG_LEVEL"`
	LogJSON  bool             `help:"Log as JSON." env:"HELIO_LOG_JSON"`
	Release  kong.VersionFlag `name:"version" help:"Print the version."`
}

// Help shows how it is used.
func (cli) Help() string {
	return `Examples:
  helio dev                             (everything in one place)
  helio chat --as ann                   (in another terminal)
  helio demo
  helio status
  helio top
  helio log tail --follow
  helio trace MESSAGE-ID
  helio verify
  helio quarantine list
  helio replay postgres --dry-run
  helio edge --help                     (each role and tool has examples of its own)`
}

// completionCmd is kong-completion's, under our help text.
type completionCmd struct{ kongcompletion.Completion }

// Help shows how it is used.
func (completionCmd) Help() string {
	return `Without --code it tells what to add to the shell's init file. Without a shell it takes the one that you have
logged in with.

Examples:
  helio completion
  source <(helio completion -c bash)
  helio completion -c fish | source`
}

func main() {
	os.Exit(Main())
}

// Main runs the command line and returns the exit code: 0 done, 1 failed, 2 used wrongly. Those of check are a
// monitor's.
func Main() int {
	var c cli
	parser, err := newParser(&c)
	if err != nil {
		fmt.Fprintln(os.Stderr, "helio:", err)
		return 2
	}
	kongcompletion.Register(parser)
	ctx, err := parser.Parse(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "helio: %v\n", err)
		misused := 2
		var pe *kong.ParseError
		if errors.As(err, &pe) && pe.Context != nil && pe.Context.Command() != "" {
			// Arguments stand in brackets there.
			words := slices.DeleteFunc(
				strings.Fields(pe.Context.Command()), func(w string) bool { return strings.ContainsAny(w, "<[") },
			)
			fmt.Fprintf(os.Stderr, "Try: helio %s --help\n", strings.Join(words, " "))
			if words[0] == "check" { // to a monitor 2 is critical
				misused = int(operator.Unknown)
			}
		}
		return misused
	}
	log := c.logger()
	slog.SetDefault(log) // for libraries that know no better; our packages are handed theirs
	switch strings.Fields(ctx.Command())[0] {
	case "dev", "edge", "delivery", "projector":
		warnOfVariables(log, ctx.Model)
	}
	run, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx.BindTo(run, (*context.Context)(nil))
	ctx.Bind(log)
	if err := ctx.Run(); err != nil {
		var code exitError
		switch {
		case errors.As(err, &code):
			return int(code)
		case run.Err() != nil && errors.Is(err, context.Canceled):
			fmt.Fprintln(os.Stderr, "helio: interrupted")
		case !errors.Is(err, errReported):
			fmt.Fprintf(os.Stderr, "helio: %v\n", err)
		}
		return 1
	}
	return 0
}

// newParser makes the parser of the command line.
func newParser(c *cli) (*kong.Kong, error) {
	return kong.New(
		c,
		kong.Name("helio"),
		kong.Description("A messaging backend whose only truth is a partitioned log."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 120}),
		kong.Vars{
			"version":    version(),
			"kafka":      defaultKafka,
			"postgres":   defaultPostgres,
			"clickhouse": defaultClickHouse,
		},
		kong.Configuration(readConfig),
	)
}

// errReported ends the process with a failure that the command has told of already.
var errReported = errors.New("failed")

func (c *cli) logger() *slog.Logger {
	opts := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogJSON {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts))
}

func version() string { return "helio " + release() }

// producer is what an edge's events say of who appended them. It never fails: what is too long is cut.
func producer(edge string) string {
	p := strings.ToValidUTF8(edge+"/"+release(), "")
	return strings.ToValidUTF8(p[:min(len(p), logevent.MaxProducer)], "")
}
