package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"

	"heliograph/infra/run"
	logevent "heliograph/schemas/event"
)

// build is what this program was built from, as far as the build said.
type build struct {
	Version string `json:"version"`          // or "(development)"
	Commit  string `json:"commit,omitempty"` // with "+" behind it where the sources were changed after it
	Go      string `json:"go"`
	Reader  int    `json:"reader"` // of events
}

// built reads it from the program itself.
func built() build {
	b := build{Version: "(development)", Go: runtime.Version(), Reader: logevent.Reader}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	b.Go = info.GoVersion
	changed := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "+"
		}
	}
	if b.Commit != "" {
		b.Commit += changed
	}
	return b
}

// release is the version that was built, or "(development)".
func release() string { return built().Version }

// exportBuild shows in the metrics what runs.
func exportBuild(reg prometheus.Registerer) {
	b := built()
	commit := b.Commit
	if commit == "" {
		commit = "unknown"
	}
	run.Register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "helio_build_info", Help: "1; what the program was built from stands in the labels.",
	}, []string{"version", "commit", "go"})).WithLabelValues(b.Version, commit, b.Go).Set(1)
}

// versionCmd tells what this program is.
type versionCmd struct {
	Output string `short:"o" help:"text or json." enum:"text,json" default:"text"`
}

// Help shows how it is used.
func (versionCmd) Help() string {
	return `Examples:
  helio version
  helio version -o json

The reader's number says which events it understands; 'helio status' shows it for every role that runs.`
}

// Run prints it.
func (c *versionCmd) Run() error {
	b := built()
	if c.Output == "json" {
		return printJSON(os.Stdout, b)
	}
	commit := b.Commit
	if commit == "" {
		commit = "unknown"
	}
	_, err := fmt.Fprintf(os.Stdout, "helio %s\ncommit %s\n%s\nreader %d\n", b.Version, commit, b.Go, b.Reader)
	return err
}
