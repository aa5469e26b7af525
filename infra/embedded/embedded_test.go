package embedded_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/procfs"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/embedded"
	"heliograph/infra/embedded/enginetest"
)

const patience = time.Minute

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func query(addr, password, sql string) (string, error) {
	req, err := http.NewRequest(http.MethodPost, "http://"+addr+"/", strings.NewReader(sql))
	if err != nil {
		return "", err
	}
	req.Header.Set("X-ClickHouse-Key", password)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(string(body))
	}
	return strings.TrimSpace(string(body)), err
}

func TestSharedEngines(t *testing.T) {
	set := enginetest.Start(t)
	ctx := testContext(t)

	cl, err := kgo.NewClient(kgo.SeedBrokers(set.KafkaAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.Ping(ctx); err != nil {
		t.Errorf("kafka: %v", err)
	}

	dsn := enginetest.NewDatabase(t)
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var commit, lower string
	err = conn.QueryRow(ctx, `SELECT current_setting('synchronous_commit'), lower('ÄÖ')`).Scan(&commit, &lower)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := commit+" "+lower, "off äö"; got != want {
		t.Errorf("postgres: got %q, want %q", got, want)
	}

	addr, password, db := enginetest.NewClickHouseDatabase(t)
	got, err := query(addr, password.Reveal(), "SELECT count() FROM system.databases WHERE name = '"+db+"'")
	if err != nil || got != "1" {
		t.Errorf("clickhouse: got %q, %v", got, err)
	}
}

// Killing the log's process loses no acknowledged record, and it comes back on its address.
func TestKillKafka(t *testing.T) {
	e := enginetest.Own(t, embedded.Kafka)
	ctx := testContext(t)
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(e.KafkaAddr), kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 4, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	n := 0
	for round := range 3 {
		for range 100 {
			value := fmt.Sprint(n)
			n++
			r := &kgo.Record{Topic: "t", Partition: int32(n % 4), Value: []byte(value)}
			if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
				t.Fatalf("round %d: produce: %v", round, err)
			}
			want[value] = true
		}
		pid := e.Pid(embedded.Kafka)
		if err := e.Kill(embedded.Kafka); err != nil {
			t.Fatal(err)
		}
		if err := e.Restart(ctx, embedded.Kafka); err != nil {
			t.Fatal(err)
		}
		if e.Pid(embedded.Kafka) == pid {
			t.Error("the process is the same after a kill")
		}
	}
	got := map[string]bool{}
	for len(got) < len(want) {
		fetches := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("got %d of %d records: %v", len(got), len(want), err)
		}
		fetches.EachRecord(func(r *kgo.Record) { got[string(r.Value)] = true })
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

func TestKillPostgres(t *testing.T) {
	e := enginetest.Own(t, embedded.Postgres)
	ctx := testContext(t)
	do := func(sql string) int {
		t.Helper()
		conn, err := pgx.Connect(ctx, e.PostgresURL)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, "SET synchronous_commit = on"); err != nil {
			t.Fatal(err)
		}
		if sql != "" {
			if _, err := conn.Exec(ctx, sql); err != nil {
				t.Fatal(err)
			}
		}
		var n int
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM kept").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	do("CREATE TABLE kept (n int)")
	// A sequence that is young when the server dies goes on where it was.
	do("BEGIN; CREATE TABLE young (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY); " +
		"INSERT INTO young DEFAULT VALUES; COMMIT")
	for round := 1; round <= 3; round++ {
		if got, want := do("INSERT INTO kept SELECT generate_series(1, 1000)"), 1000*round; got != want {
			t.Fatalf("round %d: got %d rows, want %d", round, got, want)
		}
		do("INSERT INTO young DEFAULT VALUES")
		if err := e.Kill(embedded.Postgres); err != nil {
			t.Fatal(err)
		}
		if err := e.Restart(ctx, embedded.Postgres); err != nil {
			t.Fatal(err)
		}
		if got, want := do(""), 1000*round; got != want {
			t.Fatalf("round %d after the kill: got %d rows, want %d", round, got, want)
		}
	}
	if err := e.Restart(ctx, embedded.Postgres); err != nil {
		t.Fatalf("restart of a running engine: %v", err)
	}
	if got, want := do(""), 3000; got != want {
		t.Errorf("after a restart: got %d rows, want %d", got, want)
	}
}

// A postmaster that is killed itself, with its backends at work, ends the engine with an error; a new one recovers.
func TestKillPostmaster(t *testing.T) {
	e := enginetest.Own(t, embedded.Postgres)
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, e.PostgresURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var dir string
	if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&dir); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(raw), &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := e.Wait(ctx); !errors.Is(err, embedded.Failed) {
		t.Errorf("Wait: got %v, want a failure of the engine", err)
	}
	if err := e.Restart(ctx, embedded.Postgres); err != nil {
		t.Fatal(err)
	}
	again, err := pgx.Connect(ctx, e.PostgresURL)
	if err != nil {
		t.Fatal(err)
	}
	again.Close(ctx)
}

// An engine that is stopped and goes on, as all processes are when a laptop sleeps, does not take it for its parent's
// end. libchdb would see to that by making standard input non-blocking; so it must not have the one that tells of the
// parent.
func TestClickHouseSleeps(t *testing.T) {
	e := enginetest.Own(t, embedded.ClickHouse)
	pid := e.Pid(embedded.ClickHouse)
	if got, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/0", pid)); err != nil || got != os.DevNull {
		t.Errorf("the library has %q as standard input: %v", got, err)
	}
	for _, s := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
		if err := syscall.Kill(pid, s); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := query(e.ClickHouseAddr, e.ClickHousePassword, "SELECT 1"); err != nil || got != "1" {
		t.Errorf("got %q, %v", got, err)
	}
}

// An engine does not live in the directory from which it was started: that may be removed under it, and ClickHouse
// then refuses every insert. Input: the directory is gone; expected: the insert is taken; got: "getcwd failed".
func TestStartedWhereNothingIsLeft(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	e := enginetest.Own(t, embedded.ClickHouse)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"CREATE TABLE kept (n UInt64) ENGINE = MergeTree ORDER BY n", "INSERT INTO kept FORMAT TSV\n1\n2\n",
	} {
		if _, err := query(e.ClickHouseAddr, e.ClickHousePassword, sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestKillClickHouse(t *testing.T) {
	e := enginetest.Own(t, embedded.ClickHouse)
	ctx := testContext(t)
	do := func(sql string) string {
		t.Helper()
		got, err := query(e.ClickHouseAddr, e.ClickHousePassword, sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return got
	}
	do("CREATE TABLE kept (n UInt64) ENGINE = MergeTree ORDER BY n")
	for round := 1; round <= 2; round++ {
		do("INSERT INTO kept SELECT number FROM numbers(1000)")
		if err := e.Kill(embedded.ClickHouse); err != nil {
			t.Fatal(err)
		}
		if err := e.Restart(ctx, embedded.ClickHouse); err != nil {
			t.Fatal(err)
		}
		if got, want := do("SELECT count() FROM kept"), fmt.Sprint(1000*round); got != want {
			t.Fatalf("round %d: got %s rows, want %s", round, got, want)
		}
	}
}

// Every engine's trouble reaches the caller of Start as the child's own typed line.
func TestFaults(t *testing.T) {
	ctx := testContext(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []embedded.Kind{embedded.Kafka, embedded.Postgres, embedded.ClickHouse} {
		cases := []struct {
			name  string
			with  func(t *testing.T, o *embedded.Options)
			fault embedded.Fault
			says  []string
		}{
			{"port in use", func(t *testing.T, o *embedded.Options) {
				addr := taken.Addr().String()
				o.KafkaListen, o.PostgresListen, o.ClickHouseListen = addr, addr, addr
			}, embedded.PortInUse, []string{port, "--" + string(kind) + "-listen"}},
			{"wildcard", func(t *testing.T, o *embedded.Options) {
				o.KafkaListen, o.PostgresListen, o.ClickHouseListen = "0.0.0.0:0", "0.0.0.0:0", "0.0.0.0:0"
			}, embedded.BadListen, []string{"--" + string(kind) + "-listen"}},
			{"wrong version", func(t *testing.T, o *embedded.Options) {
				write(
					t, filepath.Join(o.Dir, string(kind), "engine.json"),
					fmt.Sprintf(`{"engine":%q,"format":99}`, kind),
				)
			}, embedded.WrongVersion, []string{"format 99", "format 1", "--data"}},
			{"other engine's data", func(t *testing.T, o *embedded.Options) {
				write(t, filepath.Join(o.Dir, string(kind), "engine.json"), `{"engine":"other","format":1}`)
			}, embedded.WrongVersion, []string{"other", "--data"}},
			{"foreign directory", func(t *testing.T, o *embedded.Options) {
				write(t, filepath.Join(o.Dir, string(kind), "thesis.tex"), "")
			}, embedded.WrongVersion, []string{"thesis.tex", "--data"}},
			{"unwritable", func(t *testing.T, o *embedded.Options) {
				write(t, filepath.Join(o.Dir, "file"), "")
				o.Dir = filepath.Join(o.Dir, "file")
			}, embedded.Unwritable, []string{"file", "--data"}},
		}
		for _, tc := range cases {
			t.Run(string(kind)+"/"+tc.name, func(t *testing.T) {
				opts := enginetest.Options(t, kind)
				tc.with(t, &opts)
				e, err := embedded.Start(ctx, opts)
				if err == nil {
					t.Fatal(errors.Join(errors.New("started"), e.Stop()))
				}
				if errors.Is(err, embedded.Missing) {
					enginetest.Absent(t, err)
				}
				checkFault(t, err, kind, tc.fault, tc.says...)
			})
		}
	}
}

func checkFault(t *testing.T, err error, kind embedded.Kind, fault embedded.Fault, says ...string) {
	t.Helper()
	var got *embedded.Error
	if !errors.As(err, &got) {
		t.Fatalf("got %v (%T), want an *embedded.Error", err, err)
	}
	if got.Engine != kind || got.Fault != fault || !errors.Is(err, fault) {
		t.Errorf("got engine %s and fault %q in %q, want %s and %q", got.Engine, got.Fault, err, kind, fault)
	}
	for _, s := range append(says, string(kind)) {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q does not name %q", err, s)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q is not one line", err)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Engines without a password are not put on the network.
func TestOpenToTheNetwork(t *testing.T) {
	for _, kind := range []embedded.Kind{embedded.Kafka, embedded.ClickHouse} {
		opts := enginetest.Options(t, kind)
		opts.KafkaListen, opts.ClickHouseListen = "192.0.2.1:0", "192.0.2.1:0"
		_, err := embedded.Start(testContext(t), opts)
		checkFault(t, err, kind, embedded.BadListen, "password", "--"+string(kind)+"-listen 127.0.0.1")
	}
}

func TestMissingClickHouse(t *testing.T) {
	opts := enginetest.Options(t, embedded.ClickHouse)
	opts.EnginesDir = t.TempDir()
	_, err := embedded.Start(testContext(t), opts)
	checkFault(t, err, embedded.ClickHouse, embedded.Missing, "make engines", "--engines")
}

func TestHeldDirectory(t *testing.T) {
	opts := enginetest.Options(t, embedded.Kafka)
	ctx := testContext(t)
	first, err := embedded.Start(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := first.Stop(); err != nil {
			t.Error(err)
		}
	}()
	_, err = embedded.Start(ctx, opts)
	checkFault(t, err, embedded.Kafka, embedded.Held, fmt.Sprintf("process %d", first.Pid(embedded.Kafka)), "--data")
}

// One engine that cannot start takes the others down again, and its error is the one that is told.
func TestStartIsAllOrNothing(t *testing.T) {
	opts := enginetest.Options(t, embedded.Kafka, embedded.Postgres)
	write(t, filepath.Join(opts.Dir, "kafka", "engine.json"), `{"engine":"kafka","format":99}`)
	_, err := embedded.Start(testContext(t), opts)
	checkFault(t, err, embedded.Kafka, embedded.WrongVersion)
}

func TestProgramThatIsNoEngine(t *testing.T) {
	opts := enginetest.Options(t, embedded.Kafka)
	opts.Executable = filepath.Join(opts.Dir, "program")
	write(t, opts.Executable, "#!/bin/sh\necho something else\necho what is an \"$1\" >&2\nexit 3\n")
	if err := os.Chmod(opts.Executable, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := embedded.Start(testContext(t), opts)
	checkFault(t, err, embedded.Kafka, embedded.Failed, "exit status 3", "what is an engine")
}

// The command line of a child says the same as its environment, so that helio and a test binary are the same engine.
func TestCommandLine(t *testing.T) {
	opts := enginetest.Options(t, embedded.Kafka)
	opts.KafkaListen, opts.SyncWrites, opts.NoSync = "127.0.0.1:5", true, true
	opts.Executable = filepath.Join(opts.Dir, "program")
	write(
		t, opts.Executable,
		"#!/bin/sh\nprintf '%s\\n' \"$@\" >\"$0.args\"\nprintf '%s' \"$HELIO_ENGINE_CHILD\" >\"$0.env\"\nexit 1\n",
	)
	if err := os.Chmod(opts.Executable, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := embedded.Start(testContext(t), opts)
	checkFault(t, err, embedded.Kafka, embedded.Failed)
	args, err := os.ReadFile(opts.Executable + ".args")
	if err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile(opts.Executable + ".env")
	if err != nil {
		t.Fatal(err)
	}
	var want embedded.EngineConfig
	if err := json.Unmarshal(env, &want); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Engine  embedded.EngineConfig `cmd:""`
		LogJSON bool                  // of every command of helio
	}
	parser, err := kong.New(&got)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(strings.Split(strings.TrimSpace(string(args)), "\n")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.Engine); diff != "" {
		t.Errorf("(-environment +command line):\n%s", diff)
	}
	if !want.Child || !want.SyncWrites || !want.NoSync || want.Listen != "127.0.0.1:5" {
		t.Errorf("got %+v", want)
	}
}

// When the parent is killed, the engines end, and the next parent finds the data free and whole.
func TestParentKilled(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("no /proc")
	}
	dir := enginetest.Dir(t)
	for round := range 2 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), parentEnv+"="+dir)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer stdin.Close()
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(stdout).ReadString('\n')
		pids := make([]int, 3)
		if _, serr := fmt.Sscanf(line, "pids %d %d %d", &pids[0], &pids[1], &pids[2]); err != nil || serr != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			if strings.Contains(line, "make engines") && os.Getenv("CI") != "true" {
				t.Skip(line)
			}
			t.Fatalf("round %d: parent said %q: %v", round, line, err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		if round == 0 {
			continue // the second parent starts while the first one's engines are still ending
		}
		eventually(t, "engines are gone", func() bool {
			for _, pid := range pids {
				if running(pid) {
					return false
				}
			}
			return true
		})
	}
}

// running says whether the process exists and is not a zombie.
func running(pid int) bool {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return false
	}
	s, err := p.Stat()
	return err == nil && s.State != "Z"
}
