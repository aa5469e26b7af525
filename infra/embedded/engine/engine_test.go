package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// holdEnv makes this test binary hold a directory until its standard input ends.
const holdEnv = "HELIO_TEST_HOLD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdEnv); dir != "" {
		os.Exit(hold(dir))
	}
	goleak.VerifyTestMain(m)
}

func hold(path string) int {
	d, err := Open(context.Background(), Kafka, path, 1)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("held")
	buf := make([]byte, 1)
	if _, err := os.Stdin.Read(buf); err == nil {
		d.Stopping()
		fmt.Println("stopping")
	}
	_, _ = os.Stdin.Read(buf)
	return 0
}

func TestErrorIsOneLine(t *testing.T) {
	e := &Error{Engine: Kafka, Fault: NoSpace, Reason: "no\nspace", Err: errors.New("a\r\nb"), Mend: "free some"}
	if got, want := e.Error(), "kafka: no space: a b; free some"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(fmt.Errorf("wrapped: %w", e), NoSpace) || errors.Is(e, Held) {
		t.Error("errors.Is does not go by the fault")
	}
	// Out of the process and back.
	raw, err := json.Marshal(e.Detached())
	if err != nil {
		t.Fatal(err)
	}
	var back Error
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if got, want := back.Error(), e.Error(); got != want {
		t.Errorf("after JSON: got %q, want %q", got, want)
	}
}

func TestFailure(t *testing.T) {
	full := &os.PathError{Op: "write", Path: "/d/f", Err: syscall.ENOSPC}
	known := &Error{Engine: Kafka, Fault: Held}
	for _, tc := range []struct {
		name string
		err  error
		want Fault
	}{
		{"known", fmt.Errorf("x: %w", known), Held},
		{"full disk", fmt.Errorf("x: %w", full), NoSpace},
		{"full quota", syscall.EDQUOT, NoSpace},
		{"other", errors.New("x"), Failed},
		{"disk, full", DiskError(Kafka, "/d", full), NoSpace},
		{"disk, read-only", DiskError(Kafka, "/d", syscall.EROFS), Unwritable},
	} {
		if got := Failure(Kafka, tc.err); got.Fault != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got.Fault, tc.want)
		}
	}
	if got := DiskError(Kafka, "/d", full).Error(); !strings.Contains(got, "/d") || !strings.Contains(got, "--data") {
		t.Errorf("%q names no place or no flag", got)
	}
}

func TestListen(t *testing.T) {
	ln, err := Listen(Kafka, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, err = Listen(Kafka, ln.Addr().String())
	if !errors.Is(err, PortInUse) {
		t.Errorf("taken port: got %v", err)
	}
	for _, addr := range []string{
		"", "9092", "0.0.0.0:1", "[::]:1", ":1", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1", "kafka:1",
	} {
		if err := CheckListen(Kafka, addr); !errors.Is(err, BadListen) {
			t.Errorf("%q: got %v", addr, err)
		}
	}
	free, picked, err := Reserve(Kafka, "127.0.0.1:0")
	if err != nil || !picked {
		t.Fatalf("reserve: %q, %v, %v", free, picked, err)
	}
	if again, picked, err := Reserve(Kafka, free); err != nil || picked || again != free {
		t.Errorf("reserve %s: got %s, picked %v, %v", free, again, picked, err)
	}
}

// helper runs another process that holds the directory.
func helper(t *testing.T, dir string) (*exec.Cmd, func(order string), func() string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	t.Cleanup(end)
	say := func(order string) {
		if order == "end" {
			end()
			return
		}
		if _, err := in.Write([]byte(order)); err != nil {
			t.Error(err)
		}
	}
	hear := func() string {
		buf := make([]byte, 64)
		n, err := out.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(buf[:n]))
	}
	return cmd, say, hear
}

func TestDirIsHeld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	cmd, say, hear := helper(t, path)
	if got := hear(); got != "held" {
		t.Fatal(got)
	}
	_, err := Open(context.Background(), Kafka, path, 1)
	if !errors.Is(err, Held) || !strings.Contains(err.Error(), fmt.Sprint(cmd.Process.Pid)) {
		t.Errorf("held directory: got %v", err)
	}
	// One that is stopping is waited for; a killed one holds nothing.
	say("s")
	if got := hear(); got != "stopping" {
		t.Fatal(got)
	}
	timer := time.AfterFunc(HeldWait+HeldWait/4, func() { say("end") })
	defer timer.Stop()
	d, err := Open(context.Background(), Kafka, path, 1)
	if err != nil {
		t.Fatalf("after the holder's end: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenObeysItsContext(t *testing.T) {
	path := t.TempDir()
	_, _, hear := helper(t, path)
	hear()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx, Kafka, path, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestFormat(t *testing.T) {
	open := func(path string, kind Kind, version int) error {
		d, err := Open(context.Background(), kind, path, version)
		if err != nil {
			return err
		}
		return d.Close()
	}
	path := t.TempDir()
	for range 2 {
		if err := open(path, Kafka, 3); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{open(path, Kafka, 4), open(path, Kafka, 2), open(path, Postgres, 3)} {
		if !errors.Is(err, WrongVersion) || !strings.Contains(err.Error(), "--data") {
			t.Errorf("got %v, want %v", err, WrongVersion)
		}
	}
	// A note cut short by a crash cannot happen; one damaged by hand is not taken for an empty directory.
	if err := os.WriteFile(filepath.Join(path, "engine.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(path, Kafka, 3); !errors.Is(err, WrongVersion) {
		t.Errorf("empty note: got %v", err)
	}
	if err := open("", Kafka, 3); !errors.Is(err, Unwritable) {
		t.Errorf("no directory: got %v", err)
	}
}

// A full disk is told by name. It needs the right to mount a small one.
func TestFullDisk(t *testing.T) {
	path := t.TempDir()
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "size=16k"); err != nil {
		t.Skip("cannot mount a small disk:", err)
	}
	defer func() { _ = syscall.Unmount(path, syscall.MNT_DETACH) }()
	err := os.WriteFile(filepath.Join(path, "lost+found"), bytes.Repeat([]byte("x"), 1<<20), 0o600)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	_, err = Open(context.Background(), Kafka, path, 1)
	if !errors.Is(err, NoSpace) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want %v", err, NoSpace)
	}
}
