package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/jackc/pgx/v5/pgxpool"

	"heliograph/infra/clickhouse"
	"heliograph/infra/embedded"
	"heliograph/infra/embedded/enginetest"
	realkafka "heliograph/infra/kafka/real"
	pgschema "heliograph/schemas/postgres"
	"heliograph/tools/cluster"
)

// testCase is one test of the suite.
type testCase struct {
	name string
	run  func(*testing.T, *env)
}

// suite is in the order in which the tests run; the last three compare everything that all of them wrote.
var suite = []testCase{
	{"conversation", testConversation},
	{"newcomer", testNewcomer},
	{"text", testText},
	{"crowd", testCrowd},
	{"pins", testPins},
	{"devices", testDevices},
	{"retries", testRetries},
	{"blackhole", testBlackhole},
	{"removed", testRemoved},
	{"unheard", testUnheard},
	{"strangers", testStrangers},
	{"invitations", testInvitations},
	{"revoked", testRevoked},
	{"absence", testAbsence},
	{"slow", testSlow},
	{"history", testHistory},
	{"quarantine", testQuarantine},
	{"released", testReleased},
	{"edges", testRollingEdges},
	{"stampede", testStampede},
	{"delivery", testMovedSlots},
	{"zombie", testZombie},
	{"outages", testOutages},
	{"hung", testHung},
	{"silent", testSilent},
	{"kills", testKills},
	{"replay", testReplay},
	{"rebuild", testRebuild},
	{"compacted", testCompacted},
}

// TestKfake runs the suite with the embedded log.
func TestKfake(t *testing.T) {
	if os.Getenv("HELIO_E2E_LOG") == "kafka" {
		t.Skip("HELIO_E2E_LOG=kafka")
	}
	runSuite(t, start(t, nil))
}

// TestKafka runs the suite with Apache Kafka; for as long as it takes that, only where it is asked for.
func TestKafka(t *testing.T) {
	switch log := os.Getenv("HELIO_E2E_LOG"); {
	case log == "kfake", log == "" && !inCI():
		t.Skip("HELIO_E2E_LOG=kafka runs it; in CI it runs always")
	}
	runSuite(t, start(t, &apache{t: t, Broker: realkafka.StartBroker(t)}))
}

// apache makes a realkafka.Broker an engine of the cluster. Its methods are called from the test's goroutine.
type apache struct {
	*realkafka.Broker

	t *testing.T
}

// Kill ends the broker.
func (a *apache) Kill() error {
	a.Broker.Kill()
	return nil
}

// Restart brings it back; it ends the test when it does not come.
func (a *apache) Restart(context.Context) error {
	a.Broker.Restart(a.t)
	return nil
}

func runSuite(t *testing.T, e *env) {
	for _, c := range suite {
		ok := t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			e.phones++
			c.run(t, e)
			e.whole(t)
			t.Logf("%s took %.1f s", c.name, time.Since(began).Seconds())
		})
		if !ok && !e.mend(t) {
			t.Fatal("the cluster does not come back; the tests that are left cannot run")
		}
	}
}

// env is what the tests share.
type env struct {
	*cluster.Cluster

	real   bool // the log is Apache Kafka
	pg     *pgxpool.Pool
	ch     driver.Conn
	phones int // the running test's range of phone numbers
	users  int
}

// start starts the cluster; it ends with the test. broker nil: the log is embedded.
func start(t *testing.T, broker *apache) *env {
	t.Helper()
	engines, err := enginetest.FindEngines()
	if err != nil {
		t.Fatal(err)
	}
	opts := cluster.Options{
		Dir: workDir(t), Helio: helio, EnginesDir: engines, Edges: 2, Deliveries: 2, Projectors: 1, Partitions: 4,
		// The shortest session timeout that Apache Kafka allows by default.
		Args: map[cluster.Role][]string{
			cluster.Threads: {
				"--session-timeout",
				"6s",
			}, cluster.History: {"--session-timeout", "6s"}, cluster.Delivery: {"--session-timeout", "6s"},
		},
	}
	if broker != nil {
		opts.External = map[embedded.Kind]cluster.External{embedded.Kafka: {Addr: broker.Addr(), Engine: broker}}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	began := time.Now()
	c, err := cluster.Start(ctx, opts)
	if err != nil {
		enginetest.Absent(t, err)
	}
	t.Logf("the cluster stands after %.1f s", time.Since(began).Seconds())
	return attach(t, c, broker != nil)
}

// workDir makes a directory for a cluster; it is removed when the test ends.
func workDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "helio-e2e-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // Postgres runs as another user
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if os.Getenv("HELIO_E2E_KEEP") != "" {
			t.Logf("kept: %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// attach makes the env of a cluster that runs, which ends with the test. real: its log is Apache Kafka.
func attach(t *testing.T, c *cluster.Cluster, real bool) *env {
	t.Helper()
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		for _, s := range c.Unasked() {
			t.Errorf("a process ended without having been asked to: %s", s)
		}
	})
	e := &env{Cluster: c, real: real}
	views, err := pgxpool.ParseConfig(c.PostgresURL())
	must(t, err)
	views.ConnConfig.RuntimeParams["search_path"] = pgschema.ViewsSchema
	if e.pg, err = pgxpool.NewWithConfig(e.context(t), views); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.pg.Close)
	history := clickhouse.Config{Addr: []string{c.ClickHouseAddr()}, Password: c.ClickHousePassword()}
	if e.ch, err = clickhouse.Open(history); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.ch.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// whole checks that a test has left everything running.
func (e *env) whole(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, p := range e.Processes() {
		if !p.Running() {
			t.Errorf("%s does not run at the end of the test\n%s", p, p.Tail())
		}
	}
	if err := e.WaitReady(ctx); err != nil {
		t.Error(err)
	}
}

// mend brings everything back after a test that failed half way.
func (e *env) mend(t *testing.T) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var errs []error
	for _, k := range []embedded.Kind{embedded.Kafka, embedded.Postgres, embedded.ClickHouse} {
		if !e.engineUp(ctx, k) {
			errs = append(errs, e.Engine(k).Restart(ctx))
		}
	}
	for _, p := range e.Processes() {
		errs = append(errs, p.Kill(), p.Launch(ctx))
	}
	errs = append(errs, e.WaitReady(ctx))
	if err := errors.Join(errs...); err != nil {
		t.Log(err)
		return false
	}
	return true
}

func (e *env) engineUp(ctx context.Context, k embedded.Kind) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	switch k {
	case embedded.Postgres:
		return e.pg.Ping(ctx) == nil
	case embedded.ClickHouse:
		return e.ch.Ping(ctx) == nil
	default:
		_, err := e.ends(ctx)
		return err == nil
	}
}

// context returns one that ends with the test or after patience.
func (e *env) context(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tick is how often a condition is looked at.
const tick = 15 * time.Millisecond

// until waits for a condition; said is asked at the end of patience.
func until(t *testing.T, what string, condition func() bool, said ...func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for !condition() {
		if time.Now().After(deadline) {
			msg := ""
			for _, f := range said {
				msg += "\n" + f()
			}
			t.Fatalf("it did not come to this in %v: %s%s", patience, what, msg)
		}
		<-ticker.C
	}
}

// settled waits until a function returns no complaint.
func settled(t *testing.T, what string, complaint func() string) {
	t.Helper()
	last := ""
	until(t, what, func() bool { last = complaint(); return last == "" }, func() string { return last })
}

// phone returns a number of the running test's range.
func (e *env) phone() string {
	e.users++
	base := 200
	if e.real {
		base = 400
	}
	return fmt.Sprintf("+49151%04d%04d", base+e.phones, e.users%10_000)
}
