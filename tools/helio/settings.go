package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// fileSettings are the values of the file named by --config. A key is a flag's name with underscores, of any command:
// one file may serve all roles.
type fileSettings struct{ values map[string]any }

// readConfig reads the file named by --config.
func readConfig(r io.Reader) (kong.Resolver, error) {
	var f fileSettings
	dec := json.NewDecoder(r)
	if err := dec.Decode(&f.values); err != nil {
		return nil, fmt.Errorf("--config: not a JSON object: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("--config: there is more in the file than one JSON object")
	}
	return f, nil
}

// key is how a flag is named in the file.
func key(flag *kong.Flag) string { return strings.ReplaceAll(flag.Name, "-", "_") }

// Resolve implements kong.Resolver.
func (f fileSettings) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		if _, set := os.LookupEnv(name); set {
			return nil, nil // the variable wins
		}
	}
	return f.values[key(flag)], nil
}

// Validate implements kong.Resolver: a key that is no flag's would be a setting without effect.
func (f fileSettings) Validate(app *kong.Application) error {
	known := map[string]bool{}
	for _, flag := range flags(app.Node) {
		known[key(flag)] = true
	}
	for _, own := range []string{"help", "config", "version"} {
		delete(known, own)
	}
	var errs []error
	for _, k := range slices.Sorted(maps.Keys(f.values)) {
		if !known[k] {
			errs = append(errs, fmt.Errorf("--config: there is no setting %q; the nearest is %q", k, nearest(k, known)))
		}
	}
	return errors.Join(errs...)
}

// flags are the flags of a command and of those under it.
func flags(n *kong.Node) []*kong.Flag {
	out := slices.Clone(n.Flags)
	for _, c := range n.Children {
		out = append(out, flags(c)...)
	}
	return out
}

// warnOfVariables tells of HELIO_ variables that no flag reads. It is no error: the environment may be meant for others
// too.
func warnOfVariables(log *slog.Logger, app *kong.Application) {
	known := map[string]bool{}
	for _, flag := range flags(app.Node) {
		for _, name := range flag.Envs {
			known[name] = true
		}
	}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "HELIO_") && !known[name] && !strings.HasPrefix(name, "HELIO_ENGINE") &&
			name != "HELIO_KAFKA_JARS" {
			log.Warn("an environment variable is not known and has no effect",
				"variable", name, "nearest", nearest(name, known))
		}
	}
}

// nearest returns the known word with the fewest letters to change.
func nearest(word string, known map[string]bool) string {
	best, least := "", -1
	for _, k := range slices.Sorted(maps.Keys(known)) {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); least < 0 || d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is the number of letters to insert, remove or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
