package chdb

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"go.uber.org/goleak"
)

// childEnv tells a child of the test binary to run the engine, with the Config in it: libchdb stays out of the tests'
// own process.
const childEnv = "HELIO_TEST_CHDB"

type childConfig struct {
	DataDir, LibraryPath, Listen           string
	MaxConcurrent, MaxQueued, MaxPreferred int
	MaxBody                                int64
	DrainTimeout, SendTimeout              time.Duration
	SyncWrites                             bool
}

func TestMain(m *testing.M) {
	if c := os.Getenv(childEnv); c != "" {
		os.Exit(child(c))
	}
	goleak.VerifyTestMain(m)
}

func child(text string) int {
	var c childConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := Run(ctx, Config{
		DataDir: c.DataDir, LibraryPath: c.LibraryPath, Listen: c.Listen,
		MaxConcurrent: c.MaxConcurrent, MaxQueued: c.MaxQueued, MaxPreferred: c.MaxPreferred, MaxBody: c.MaxBody,
		DrainTimeout: c.DrainTimeout, SendTimeout: c.SendTimeout, SyncWrites: c.SyncWrites,
		MaxMemory: 2 << 30, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}, func(addr string) { fmt.Println("ready", addr) })
	if err != nil {
		fmt.Println("failed", err)
		return 1
	}
	return 0
}

// libraryPath finds the engine, or skips the test; in CI it must be there.
func libraryPath(tb testing.TB) string {
	tb.Helper()
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		tb.Fatal(err)
	}
	dir := os.Getenv("HELIO_ENGINES")
	if dir == "" {
		dir = filepath.Join(root, ".helio", "engines")
	}
	path := filepath.Join(dir, "node_modules", "@chdb", "lib-linux-x64-gnu", "libchdb.so")
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			tb.Fatalf("the ClickHouse engine is missing: %v", err)
		}
		tb.Skipf("the ClickHouse engine is missing (make engines): %v", err)
	}
	return path
}

// process is an engine in a child process.
type process struct {
	cmd  *exec.Cmd
	dir  string
	addr string
	who  Accounts
	done chan struct{} // closed when it has ended
	err  error
}

// start starts an engine; without a DataDir it gets one of its own. It is stopped when the test ends.
func start(tb testing.TB, c childConfig) *process {
	tb.Helper()
	p, failure := tryStart(tb, c)
	if failure != "" {
		tb.Fatalf("the engine did not start: %s", failure)
	}
	return p
}

// tryStart returns what the engine said when it did not start.
func tryStart(tb testing.TB, c childConfig) (_ *process, failure string) {
	tb.Helper()
	if c.LibraryPath == "" {
		c.LibraryPath = libraryPath(tb)
	}
	if c.DataDir == "" {
		c.DataDir = filepath.Join(tb.TempDir(), "data")
	}
	text, err := json.Marshal(c)
	if err != nil {
		tb.Fatal(err)
	}
	p := &process{dir: c.DataDir, cmd: exec.Command(os.Args[0]), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	go func() {
		defer close(p.done)
		_, _ = io.Copy(io.Discard, out)
		p.err = p.cmd.Wait()
	}()
	tb.Cleanup(func() { _ = p.stop(tb, syscall.SIGKILL) }) // killed: how it ended says nothing
	word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	if word != "ready" {
		<-p.done
		return nil, rest
	}
	if err != nil {
		tb.Fatal(err)
	}
	p.addr = rest
	if p.who, err = ReadAccounts(p.dir); err != nil {
		tb.Fatal(err)
	}
	return p, ""
}

// stop sends a signal and waits for the process to end.
func (p *process) stop(tb testing.TB, sig syscall.Signal) error {
	tb.Helper()
	select {
	case <-p.done:
		return p.err
	default:
	}
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		tb.Errorf("the engine did not end after %v", sig)
		<-p.done
	}
	return p.err
}

// open connects clickhouse-go; opts may be changed by edit.
func (p *process) open(tb testing.TB, edit func(*clickhouse.Options)) clickhouse.Conn {
	tb.Helper()
	o := &clickhouse.Options{Protocol: clickhouse.HTTP, Addr: []string{p.addr}, MaxOpenConns: 8}
	o.Auth.Username, o.Auth.Password = Writer, p.who.Writer
	if edit != nil {
		edit(o)
	}
	c, err := clickhouse.Open(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// response is what plain HTTP gave.
type response struct {
	status int
	header http.Header
	body   string
}

// as is a request's header that says who asks.
func as(user, password string) http.Header {
	return http.Header{"X-Clickhouse-User": {user}, "X-Clickhouse-Key": {password}}
}

// do sends a request to /?query, by plain HTTP, as the writer.
func (p *process) do(tb testing.TB, method string, args url.Values, header http.Header, body []byte) response {
	tb.Helper()
	own := as(Writer, p.who.Writer)
	maps.Copy(own, header)
	return p.ask(tb, method, args, own, body)
}

// read is a POST of the reader.
func (p *process) read(tb testing.TB, args url.Values, text string) response {
	tb.Helper()
	return p.ask(tb, http.MethodPost, args, as(Reader, p.who.Reader), []byte(text))
}

// ask sends a request that says of its user what header has.
func (p *process) ask(tb testing.TB, method string, args url.Values, header http.Header, body []byte) response {
	tb.Helper()
	req, err := http.NewRequestWithContext(
		context.Background(), method, "http://"+p.addr+"/?"+args.Encode(), bytes.NewReader(body),
	)
	if err != nil {
		tb.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	tr := &http.Transport{DisableCompression: true, DisableKeepAlives: true}
	res, err := (&http.Client{Transport: tr, Timeout: time.Minute}).Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return response{res.StatusCode, res.Header, string(text)}
}

// sql runs a statement by POST and fails the test unless it gives 200.
func (p *process) sql(tb testing.TB, text string) string {
	tb.Helper()
	r := p.do(tb, http.MethodPost, nil, nil, []byte(text))
	if r.status != http.StatusOK {
		tb.Fatalf("%s: %d %s", text, r.status, r.body)
	}
	return strings.TrimRight(r.body, "\n")
}

// until polls ok until it holds.
func until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
