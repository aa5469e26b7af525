// Package enginetest gives integration tests real engines: one set per test process, started when the first test asks,
// stopped at the end of TestMain.
//
// Promise: a test that asks gets an engine that takes connections and a name space that no other test has: a database
// of its own in PostgreSQL and ClickHouse, a topic prefix of its own in the log. An engine that is not installed skips
// the test, or fails it where the environment variable CI is "true".
//
// Durability: none; the data lies in a temporary directory that is removed at the end.
//
// Slow or restarted: engines are shared, so a test must not kill them. A test that wants to kill starts its own with
// embedded.Start and Options.
//
// Non-obvious:
//   - A package that uses it needs a TestMain that calls Main: the test binary itself is run as the engines' processes.
//   - Only the engines that are asked for are started: a test of the log alone does not load ClickHouse.
//   - The secure variants (TLS, users) are fronts or settings of the same engines: an authority from the package
//     certtest signs what they show.
//   - t.TempDir is closed to other users, and PostgreSQL never runs as root: use Dir for the data of an own set.
package enginetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"heliograph/infra/embedded"
	"heliograph/infra/run"
)

const (
	// enginesEnv says where the engines are, for tests outside the repository.
	enginesEnv = "HELIO_ENGINES"
	startWait  = 2 * time.Minute
	dropWait   = 20 * time.Second
)

// shared is the set of this test process.
var shared struct {
	mu      sync.Mutex
	main    bool // Main was called
	dir     string
	started map[embedded.Kind]*embedded.Engines
	failed  map[embedded.Kind]error
}

// Main is the body of a TestMain: it becomes an engine where the process is one, else runs the tests, stops the engines
// and looks for leaked goroutines, and exits.
func Main(m *testing.M, opts ...goleak.Option) {
	embedded.EngineMain()
	os.Exit(Tests{M: m, Options: opts}.Run())
}

// Tests is what Main runs, for a TestMain that has a main of another kind around it; it calls embedded.EngineMain
// itself, before anything else.
type Tests struct {
	// M is the tests.
	M interface{ Run() int }
	// Options are for the search for leaked goroutines.
	Options []goleak.Option
}

// Run runs the tests, stops the engines, looks for leaked goroutines and returns the exit code.
func (t Tests) Run() int {
	shared.mu.Lock()
	shared.main = true
	shared.mu.Unlock()
	code := t.M.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	http.DefaultClient.CloseIdleConnections()
	if code == 0 {
		if err := goleak.Find(t.Options...); err != nil {
			fmt.Fprintf(os.Stderr, "goleak: %v\n", err)
			code = 1
		}
	}
	return code
}

func stop() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	var errs []error
	for _, e := range shared.started {
		errs = append(errs, e.Stop())
	}
	shared.started = nil
	if shared.dir != "" {
		errs = append(errs, os.RemoveAll(shared.dir))
	}
	return errors.Join(errs...)
}

// Set is the addresses of the shared engines.
type Set struct {
	// KafkaAddr is the log's only broker.
	KafkaAddr string
	// PostgresURL is the connection URL of the database helio. Prefer NewDatabase.
	PostgresURL string
	// ClickHouseAddr is the host and port of ClickHouse's HTTP interface, and ClickHousePassword that of its user
	// default. Prefer NewClickHouseDatabase.
	ClickHouseAddr     string
	ClickHousePassword run.Secret
}

// Start starts what is not running yet of the three shared engines and returns their addresses.
func Start(tb testing.TB) *Set {
	tb.Helper()
	var wg sync.WaitGroup
	for _, k := range []embedded.Kind{embedded.Kafka, embedded.Postgres, embedded.ClickHouse} {
		// The failures are kept, and told below by the goroutine of the test.
		wg.Go(func() { _, _ = ensure(k) })
	}
	wg.Wait()
	return &Set{
		KafkaAddr:      get(tb, embedded.Kafka).KafkaAddr,
		PostgresURL:    get(tb, embedded.Postgres).PostgresURL,
		ClickHouseAddr: get(tb, embedded.ClickHouse).ClickHouseAddr,

		ClickHousePassword: run.Secret(get(tb, embedded.ClickHouse).ClickHousePassword),
	}
}

// Kafka returns the brokers of the shared log and a prefix for topics and groups that no other test has.
func Kafka(tb testing.TB) (brokers []string, prefix string) {
	tb.Helper()
	return []string{get(tb, embedded.Kafka).KafkaAddr}, "t" + unique() + "."
}

// NewDatabase makes an empty PostgreSQL database for the test and returns its connection URL. It is dropped at the
// test's end.
func NewDatabase(tb testing.TB) string {
	tb.Helper()
	admin := get(tb, embedded.Postgres).PostgresURL
	name := "t_" + unique()
	if err := execute(admin, "CREATE DATABASE "+name); err != nil {
		tb.Fatalf("make database %s: %v", name, err)
	}
	tb.Cleanup(func() {
		if err := execute(admin, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			tb.Logf("drop database %s: %v", name, err)
		}
	})
	u, err := url.Parse(admin)
	if err != nil {
		tb.Fatalf("parse database URL: %v", err)
	}
	u.Path = "/" + name
	return u.String()
}

func execute(dsn, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), dropWait)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}

// NewClickHouseDatabase makes an empty ClickHouse database for the test and returns the address of the HTTP interface,
// the password of the user default and the database's name. It is dropped at the test's end.
func NewClickHouseDatabase(tb testing.TB) (addr string, password run.Secret, database string) {
	tb.Helper()
	e := get(tb, embedded.ClickHouse)
	database = "t_" + unique()
	if err := query(e, "CREATE DATABASE "+database); err != nil {
		tb.Fatalf("make ClickHouse database %s: %v", database, err)
	}
	tb.Cleanup(func() {
		if err := query(e, "DROP DATABASE "+database); err != nil {
			tb.Logf("drop ClickHouse database %s: %v", database, err)
		}
	})
	return e.ClickHouseAddr, run.Secret(e.ClickHousePassword), database
}

func query(e *embedded.Engines, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), dropWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+e.ClickHouseAddr+"/", strings.NewReader(sql))
	if err != nil {
		return err
	}
	req.Header.Set("X-ClickHouse-Key", e.ClickHousePassword)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(body)))
	}
	return errors.Join(err, res.Body.Close())
}

// Dir returns a temporary directory that other users can pass through, removed at the test's end.
func Dir(tb testing.TB) string {
	tb.Helper()
	dir, err := makeDir()
	if err != nil {
		tb.Fatalf("make data directory: %v", err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Errorf("remove data directory: %v", err)
		}
	})
	return dir
}

func makeDir() (string, error) {
	dir, err := os.MkdirTemp("", "helio-engines-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// Options returns the options of an own set of engines for the test: its data in a directory of the test's, its engines
// where they were found. The test starts and stops it.
func Options(tb testing.TB, kinds ...embedded.Kind) embedded.Options {
	tb.Helper()
	mustMain(tb)
	dir, err := FindEngines()
	if err != nil {
		tb.Fatal(err)
	}
	return embedded.Options{
		Dir: Dir(tb), EnginesDir: dir, Kinds: kinds, NoSync: true, Logger: slog.New(slog.DiscardHandler),
	}
}

// Own starts an own set of engines for the test, which may kill them; it is stopped at the test's end.
func Own(tb testing.TB, kinds ...embedded.Kind) *embedded.Engines {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	e, err := embedded.Start(ctx, Options(tb, kinds...))
	if err != nil {
		Absent(tb, err)
	}
	tb.Cleanup(func() {
		if err := e.Stop(); err != nil {
			tb.Errorf("stop engines: %v", err)
		}
	})
	return e
}

// FindEngines returns the directory of the engines: what HELIO_ENGINES says, else .helio/engines beside the nearest
// go.mod upwards from here.
func FindEngines() (string, error) {
	if dir := os.Getenv(enginesEnv); dir != "" {
		return dir, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find engines: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, ".helio", "engines"), nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("find engines: no go.mod above the working directory; set %s", enginesEnv)
		}
		dir = up
	}
}

// Absent ends a test whose engine did not start: an engine that is not installed skips it, unless CI is "true".
func Absent(tb testing.TB, err error) {
	tb.Helper()
	if errors.Is(err, embedded.Missing) && os.Getenv("CI") != "true" {
		tb.Skip(err)
	}
	tb.Fatal(err)
}

func get(tb testing.TB, kind embedded.Kind) *embedded.Engines {
	tb.Helper()
	mustMain(tb)
	e, err := ensure(kind)
	if err != nil {
		Absent(tb, err)
	}
	return e
}

func mustMain(tb testing.TB) {
	tb.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.main {
		tb.Fatal("this package needs func TestMain(m *testing.M) { enginetest.Main(m) }")
	}
}

// starting serializes the starts of one kind; those of different kinds run side by side.
var starting = map[embedded.Kind]*sync.Mutex{
	embedded.Kafka: new(sync.Mutex), embedded.Postgres: new(sync.Mutex), embedded.ClickHouse: new(sync.Mutex),
}

// ensure starts an engine once; a start that failed is not tried again.
func ensure(kind embedded.Kind) (*embedded.Engines, error) {
	starting[kind].Lock()
	defer starting[kind].Unlock()
	shared.mu.Lock()
	e, err, dir := shared.started[kind], shared.failed[kind], shared.dir
	if dir == "" && err == nil {
		dir, err = makeDir()
		shared.dir = dir
	}
	shared.mu.Unlock()
	if e != nil || err != nil {
		return e, err
	}
	engines, err := FindEngines()
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), startWait)
		defer cancel()
		e, err = embedded.Start(ctx, embedded.Options{
			Dir: dir, EnginesDir: engines, Kinds: []embedded.Kind{kind},
			NoSync: true, // no test cuts the power of these
		})
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if err != nil {
		if shared.failed == nil {
			shared.failed = make(map[embedded.Kind]error)
		}
		shared.failed[kind] = err
		return nil, err
	}
	if shared.started == nil {
		shared.started = make(map[embedded.Kind]*embedded.Engines)
	}
	shared.started[kind] = e
	return e, nil
}

func unique() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
