package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"heliograph/infra/embedded/certtest"
	"heliograph/infra/embedded/enginetest"
	"heliograph/tools/secrets"
)

// settings are environment variables, as a deployment has them.
type settings map[string]string

// with returns the settings with some of them changed, in pairs of name and value.
func (s settings) with(pairs ...string) settings {
	s = maps.Clone(s)
	for i := 0; i < len(pairs); i += 2 {
		s[pairs[i]] = pairs[i+1]
	}
	return s
}

// command prepares helio with these settings and none of the caller's.
func (s settings) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "helio", args...)
	cmd.Env = without(os.Environ(), "HELIO_")
	for k, v := range s {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// TestSecureEngines keeps the README's word on real engines: roles whose only settings are environment variables get
// ready against a log with TLS and SASL, a Postgres with TLS and a ClickHouse with TLS and a user, and do not start
// with wrong ones.
func TestSecureEngines(t *testing.T) {
	const password = "heliotrope"
	ca, other := certtest.New(t, "the engines' authority"), certtest.New(t, "another authority")
	server := ca.Server(t, "127.0.0.1")
	log := enginetest.SecureKafka(t, server, "helio", password)
	views := enginetest.SecurePostgres(t, server, password)
	history, database := enginetest.SecureClickHouse(t, server, "helio", password)
	dir := t.TempDir()
	if err := secrets.Ensure(filepath.Join(dir, "secrets")); err != nil {
		t.Fatal(err)
	}
	deployment := settings{
		"HELIO_KAFKA": log, "HELIO_KAFKA_TLS": "true", "HELIO_KAFKA_CA": ca.File,
		"HELIO_KAFKA_SASL": "scram-sha-512", "HELIO_KAFKA_USER": "helio", "HELIO_KAFKA_PASSWORD": password,
		"HELIO_PARTITIONS": "4",
		"HELIO_POSTGRES":   views + "?sslmode=verify-full&sslrootcert=" + ca.File,
		"HELIO_CLICKHOUSE": history, "HELIO_CLICKHOUSE_TLS": "true", "HELIO_CLICKHOUSE_CA": ca.File,
		"HELIO_CLICKHOUSE_DATABASE": database,
		"HELIO_CLICKHOUSE_USER":     "helio", "HELIO_CLICKHOUSE_PASSWORD": password,
		"HELIO_SECRETS": filepath.Join(dir, "secrets"), "HELIO_SMS": "file:" + filepath.Join(dir, "sms.jsonl"),
		"HELIO_LISTEN": "127.0.0.1:0", "HELIO_DELIVERY_LISTEN": "127.0.0.1:0", "HELIO_ADMIN": "127.0.0.1:0",
	}

	nativeAddr, nativeDatabase := enginetest.NativeClickHouse(t, &server, "helio", password)
	native := deployment.with(
		"HELIO_CLICKHOUSE", nativeAddr, "HELIO_CLICKHOUSE_PROTOCOL", "native",
		"HELIO_CLICKHOUSE_DATABASE", nativeDatabase, "HELIO_NAME", "native",
	)
	toPostgres := []string{"projector", "--store", "postgres"}
	toClickHouse := []string{"projector", "--store", "clickhouse"}

	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"init", "--replicas", "4"}, "--replicas 4"}, // more than there are brokers
		{[]string{"projector", "--store", "postgres"}, "helio init"},
		{[]string{"init"}, "make"},
		{[]string{"init"}, "there already"},
	} {
		soon, cancel := context.WithTimeout(t.Context(), wait)
		out, err := deployment.command(soon, c.args...).CombinedOutput()
		cancel()
		if (err == nil) != (c.want == "make" || c.want == "there already") || !bytes.Contains(out, []byte(c.want)) {
			t.Fatalf("helio %v: %v, want %q in\n%s", c.args, err, c.want, out)
		}
	}
	// All at once: an edge is ready when it has a link to a delivery instance.
	roles := []*role{
		deployment.start(t, toPostgres...), deployment.start(t, toClickHouse...), native.start(t, toClickHouse...),
		deployment.start(t, "delivery"), native.start(t, "edge"),
	}
	for _, r := range roles {
		r.awaitReady(t)
	}
	for _, r := range roles {
		r.stop(t)
	}

	ask, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if out, err := deployment.command(ask, "log", "topics").CombinedOutput(); err != nil ||
		!bytes.Contains(out, []byte("helio.threads")) {
		t.Errorf("helio log topics: %v\n%s", err, out)
	}

	for _, c := range []struct {
		name  string
		args  []string
		from  settings
		wants []string
	}{
		{"log, wrong authority", toPostgres,
			deployment.with("HELIO_KAFKA_CA", other.File),
			[]string{"signed by unknown authority", "--kafka-ca"}},
		{"log, wrong password", toPostgres,
			deployment.with("HELIO_KAFKA_PASSWORD", "wrong"),
			[]string{"wrong user or password", "--kafka-password"}},
		{"log, no such file", toPostgres,
			deployment.with("HELIO_KAFKA_CA", "/nonexistent/ca.pem"),
			[]string{"/nonexistent/ca.pem"}},
		{"Postgres, wrong authority", toPostgres,
			deployment.with("HELIO_POSTGRES", views+"?sslmode=verify-full&sslrootcert="+other.File),
			[]string{"signed by unknown authority", "sslrootcert"}},
		{"Postgres, wrong password", toPostgres,
			deployment.with("HELIO_POSTGRES", strings.Replace(deployment["HELIO_POSTGRES"], password, "wrong", 1)),
			[]string{"password authentication failed", "password in the URL"}},
		{"Postgres, no such file", toPostgres,
			deployment.with("HELIO_POSTGRES", views+"?sslmode=verify-full&sslrootcert=/nonexistent/ca.pem"),
			[]string{"open /nonexistent/ca.pem"}},
		{"ClickHouse, wrong authority", toClickHouse,
			deployment.with("HELIO_CLICKHOUSE_CA", other.File),
			[]string{"signed by unknown authority", "--clickhouse-ca"}},
		{"ClickHouse, wrong password", toClickHouse,
			deployment.with("HELIO_CLICKHOUSE_PASSWORD", "wrong"),
			[]string{"Authentication failed", "--clickhouse-password"}},
		{"ClickHouse by the native protocol, wrong authority", toClickHouse,
			native.with("HELIO_CLICKHOUSE_CA", other.File),
			[]string{"signed by unknown authority", "--clickhouse-ca"}},
		{"ClickHouse by the native protocol, wrong password", toClickHouse,
			native.with("HELIO_CLICKHOUSE_PASSWORD", "wrong"),
			[]string{"Authentication failed", "--clickhouse-password"}},
		{"ClickHouse, no such file", toClickHouse,
			deployment.with("HELIO_CLICKHOUSE_CA", "/nonexistent/ca.pem"),
			[]string{"/nonexistent/ca.pem"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			out, err := c.from.command(ctx, c.args...).CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || ctx.Err() != nil {
				t.Fatalf("it ended with %v, context %v:\n%s", err, ctx.Err(), out)
			}
			said, lines := lastLine(out)
			for _, want := range append(c.wants, "helio: ") {
				if !strings.Contains(said, want) {
					t.Errorf("it said %q, want word of %q", said, want)
				}
			}
			if waited := regexp.MustCompile(`waiting for`).FindString(lines); waited != "" ||
				strings.Contains(lines, password) {
				t.Errorf("it waited, or showed the password:\n%s", lines)
			}
		})
	}
}

func lastLine(out []byte) (last, all string) {
	all = strings.TrimSpace(string(out))
	return all[strings.LastIndexByte(all, '\n')+1:], all
}

// role is a process of helio.
type role struct {
	args  []string
	out   tail
	end   context.CancelFunc
	ended chan error // room for one
}

// start starts a role, which ends with the test at the latest.
func (s settings) start(t *testing.T, args ...string) *role {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &role{args: args, end: cancel, ended: make(chan error, 1)}
	cmd := s.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &r.out, &r.out
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	go func() { r.ended <- cmd.Wait() }()
	return r
}

var adminLine = regexp.MustCompile(`admin=(http://\S+)`)

// awaitReady waits until the role's admin port says that it is ready.
func (r *role) awaitReady(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	last := errors.New("it does not tell its admin address")
	for {
		if m := adminLine.FindStringSubmatch(r.out.String()); m != nil {
			if last = ready(ctx, m[1]); last == nil {
				return
			}
		}
		select {
		case err := <-r.ended:
			t.Fatalf("%v ended: %v\n%s", r.args, err, r.out.String())
		case <-ctx.Done():
			t.Fatalf("%v is not ready: %v\n%s", r.args, last, r.out.String())
		case <-tick.C:
		}
	}
}

// stop ends the role as a supervisor does.
func (r *role) stop(t *testing.T) {
	t.Helper()
	r.end()
	if err := <-r.ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("%v ended badly: %v\n%s", r.args, err, r.out.String())
	}
}

var unpooled = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func ready(ctx context.Context, admin string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/readyz", nil)
	if err != nil {
		return err
	}
	res, err := unpooled.Do(req)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		err = fmt.Errorf("/readyz answered %s", res.Status)
	}
	return errors.Join(err, res.Body.Close())
}

// tail holds what a process said, while it says more.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}
