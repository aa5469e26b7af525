package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"

	"heliograph/infra/embedded"
	"heliograph/infra/embedded/enginetest"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != "helio" {
		embedded.EngineMain() // enginetest's engines; those of 'helio dev' are 'helio engine', with its own words
	}
	testscript.Main(enginetest.Tests{M: m}, map[string]func(){"helio": func() { os.Exit(Main()) }})
}

// wait bounds every wait of a script.
const wait = time.Minute

// TestScripts drives the command as people do: testdata/script holds a script for each subject.
//
// Commands beside testscript's own:
//
//	hold udp|tcp VAR    listen on a free port, whose address is then $VAR
//	await FILE TEXT     wait until the file holds the text
//	readyz FILE TEXT    wait until the process that logs its admin address to the file says that it is not ready, with
//	                    the text
//	exports FILE TEXT   the process that logs its admin address to the file exports a line with the text
//	tables FILE         connect to the Postgres that 'helio dev' printed into the file, and find the views' tables
//	dev VAR FIELD       put a field of data/dev.json into $VAR
//
// The condition [engines] holds where Postgres and ClickHouse are installed; in CI they must be.
func TestScripts(t *testing.T) {
	dir, installed := engines(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Deadline:            time.Now().Add(4 * time.Minute),
		Setup: func(env *testscript.Env) error {
			for _, v := range os.Environ() { // no setting of the caller's reaches a script
				if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "HELIO_") {
					env.Setenv(name, "")
				}
			}
			env.Vars = without(env.Vars, "HELIO_")
			env.Setenv("HELIO_ENGINES", dir)
			// Postgres runs as another user where this is root, and has to reach its data.
			data, err := os.MkdirTemp("/tmp", "helio")
			if err != nil {
				return err
			}
			env.Defer(func() { _ = os.RemoveAll(data) }) // a temporary directory that stays harms nobody
			env.Setenv("OPEN", data)
			return os.Chmod(data, 0o755)
		},
		Condition: func(name string) (bool, error) { return name == "engines" && installed, nil },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"hold": hold, "await": await, "dev": field, "readyz": readyz, "exports": exports, "tables": tables,
		},
	})
}

// engines finds the embedded engines; in CI they must be there.
func engines(t *testing.T) (dir string, installed bool) {
	dir = os.Getenv("HELIO_ENGINES")
	if dir == "" {
		dir = filepath.Join("..", "..", ".helio", "engines")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = os.Stat(filepath.Join(dir, "node_modules", "@chdb"))
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("the engines are not installed: %v", err)
	}
	return dir, err == nil
}

func without(vars []string, prefix string) []string {
	var out []string
	for _, v := range vars {
		if !strings.HasPrefix(v, prefix) {
			out = append(out, v)
		}
	}
	return out
}

func hold(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: hold udp|tcp VAR")
	}
	switch args[0] {
	case "udp":
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		ts.Check(err)
		ts.Defer(func() { ts.Check(c.Close()) })
		ts.Setenv(args[1], c.LocalAddr().String())
	default:
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		ts.Defer(func() { ts.Check(l.Close()) })
		ts.Setenv(args[1], l.Addr().String())
	}
}

func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE TEXT")
	}
	var last string
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		if last = string(b); err == nil && strings.Contains(last, args[1]) {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	ts.Fatalf("%s never held %q: %s", args[0], args[1], last)
}

var adminAddr = regexp.MustCompile(`admin=(http://\S+)`)

func readyz(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: readyz FILE TEXT")
	}
	if status, body := asked(ts, args[0], "/readyz"); status != http.StatusServiceUnavailable ||
		!strings.Contains(body, args[1]) {
		ts.Fatalf("status %d: %s", status, body)
	}
}

func exports(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: exports FILE TEXT")
	}
	if status, body := asked(ts, args[0], "/metrics"); status != http.StatusOK || !strings.Contains(body, args[1]) {
		ts.Fatalf("status %d: no %s", status, args[1])
	}
}

// asked is what the process that logs its admin address to a file answers there.
func asked(ts *testscript.TestScript, file, path string) (status int, body string) {
	b, err := os.ReadFile(ts.MkAbs(file))
	ts.Check(err)
	m := adminAddr.FindSubmatch(b)
	if m == nil {
		ts.Fatalf("%s names no admin address: %s", file, b)
	}
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get(string(m[1]) + path)
	ts.Check(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	ts.Check(err)
	return answer.StatusCode, string(text)
}

func tables(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: tables FILE")
	}
	b, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	m := regexp.MustCompile(`psql '([^']+)'`).FindSubmatch(b)
	if m == nil {
		ts.Fatalf("no command for psql in %s", b)
	}
	u, err := url.Parse(string(m[1]))
	ts.Check(err)
	for key := range u.Query() {
		if key != "sslmode" && key != "options" { // libpq refuses what it does not know, as search_path
			ts.Fatalf("psql does not take %s in %s", key, u.Redacted())
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	conn, err := pgx.Connect(ctx, u.String())
	ts.Check(err)
	defer func() { ts.Check(conn.Close(ctx)) }()
	var messages, pins int
	ts.Check(conn.QueryRow(ctx, `SELECT count(*) FROM messages`).Scan(&messages))
	ts.Check(conn.QueryRow(ctx, `SELECT count(*) FROM pg_tables WHERE schemaname = 'registration'`).Scan(&pins))
	if messages == 0 || pins == 0 {
		ts.Fatalf("%d messages, %d tables of the registration", messages, pins)
	}
}

func field(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: dev VAR FIELD")
	}
	b, err := os.ReadFile(filepath.Join(ts.Getenv("OPEN"), "dev.json"))
	ts.Check(err)
	var all map[string]any
	ts.Check(json.Unmarshal(b, &all))
	s, ok := all[args[1]].(string)
	if !ok {
		ts.Fatalf("dev.json has no %s: %s", args[1], b)
	}
	ts.Setenv(args[0], s)
}

// A dev.json that a killed helio dev left behind leads nobody to a deployment that is gone.
func TestDevStateOfTheDead(t *testing.T) {
	dir := t.TempDir()
	pid := 1 << 30 // above the kernel's highest
	if err := syscall.Kill(pid, 0); err == nil {
		t.Fatal("a process has an impossible id")
	}
	b, err := json.Marshal(devState{Pid: pid, Edge: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "dev.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readDevState(dir); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("error %v", err)
	}
}
