package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	lockName   = "lock"
	formatName = "engine.json"
	stopping   = "stopping"
	lockPoll   = 20 * time.Millisecond
)

// How long Open waits for another holder of the directory.
const (
	// HeldWait is for a holder that has not said it is stopping.
	HeldWait = 2 * time.Second
	// StopWait is for a holder that has.
	StopWait = 30 * time.Second
)

// format is the note that tells which engine wrote a data directory, and in which layout.
type format struct {
	Engine Kind `json:"engine"`
	Format int  `json:"format"`
}

// Dir is a data directory held by this process. Its methods may be called from any goroutine.
type Dir struct {
	path string
	lock *os.File
}

// Open creates the data directory if need be, takes its lock and checks that it holds data of this engine in this
// format, or nothing yet.
func Open(ctx context.Context, kind Kind, path string, version int) (*Dir, error) {
	if path == "" {
		return nil, &Error{
			Engine: kind,
			Fault:  Unwritable,
			Reason: "no data directory",
			Mend:   "give one with --data DIR",
		}
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, DiskError(kind, path, err)
	}
	if err := MakeDir(abs); err != nil {
		return nil, DiskError(kind, abs, err)
	}
	// Whoever made it with another mode, what it holds is nobody else's.
	through := os.FileMode(0)
	if kind == Postgres {
		through = pass()
	}
	if info, err := os.Stat(abs); err == nil && info.Mode().Perm()&0o077&^through != 0 {
		if err := os.Chmod(abs, 0o700|through&info.Mode().Perm()); err != nil && !errors.Is(err, syscall.EPERM) {
			return nil, DiskError(kind, abs, err)
		}
	}
	d := &Dir{path: abs}
	if err := d.hold(ctx, kind); err != nil {
		return nil, err
	}
	if err := d.check(kind, version); err != nil {
		_ = d.lock.Close()
		return nil, err
	}
	return d, nil
}

// MakeDir makes a directory of data and those above it that are missing, for their owner alone. Where that is root,
// others may pass through them and see nothing: PostgreSQL, which refuses to be root, lives below as another user.
func MakeDir(path string) error {
	info, err := os.Stat(path)
	if err == nil {
		if info.IsDir() {
			return nil
		}
		return &os.PathError{Op: "mkdir", Path: path, Err: syscall.ENOTDIR}
	}
	if up := filepath.Dir(path); up != path {
		if err := MakeDir(up); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil // made by another process meanwhile
		}
		return err
	}
	return Private(path)
}

// Private gives a directory that was made otherwise, as a temporary one is, the mode that MakeDir gives.
func Private(path string) error { return os.Chmod(path, 0o700|pass()) }

// pass is what others may do with a directory of data.
func pass() os.FileMode {
	if os.Geteuid() == 0 {
		return 0o011
	}
	return 0
}

// Path is the directory, absolute.
func (d *Dir) Path() string { return d.path }

// Stopping tells a process that waits for the directory to be patient: this one is on its way out.
func (d *Dir) Stopping() {
	// A note that cannot be written only costs the successor its patience.
	_, _ = d.lock.WriteAt([]byte(stopping+"\n"), 0)
}

// Close gives the directory up.
func (d *Dir) Close() error {
	if err := d.lock.Close(); err != nil {
		return fmt.Errorf("release %s: %w", d.path, err)
	}
	return nil
}

func (d *Dir) hold(ctx context.Context, kind Kind) error {
	f, err := os.OpenFile(filepath.Join(d.path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return DiskError(kind, d.path, err)
	}
	start := time.Now()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return DiskError(kind, d.path, err)
		}
		note := make([]byte, 64)
		n, _ := f.ReadAt(note, 0)
		holder := strings.TrimSpace(string(note[:n]))
		patience := HeldWait
		if strings.HasPrefix(holder, stopping) {
			patience = StopWait
		}
		if time.Since(start) > patience {
			_ = f.Close()
			return held(kind, d.path, holder)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return ctx.Err()
		case <-time.After(lockPoll):
		}
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "pid %d\n", os.Getpid()), 0)
	}
	if err != nil {
		_ = f.Close()
		return DiskError(kind, d.path, err)
	}
	d.lock = f
	return nil
}

func held(kind Kind, path, holder string) *Error {
	by := "another process"
	if strings.HasPrefix(holder, "pid ") {
		by = "process " + strings.TrimPrefix(strings.SplitN(holder, "\n", 2)[0], "pid ")
	}
	return &Error{
		Engine: kind, Fault: Held, Reason: path + " is in use by " + by,
		Mend: "stop it or choose another place with --data DIR",
	}
}

func (d *Dir) check(kind Kind, version int) error {
	name := filepath.Join(d.path, formatName)
	raw, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return d.mark(kind, version)
	}
	if err != nil {
		return DiskError(kind, d.path, err)
	}
	var have format
	if err := json.Unmarshal(raw, &have); err != nil {
		return &Error{
			Engine: kind, Fault: WrongVersion, Reason: name + " is not readable", Err: err,
			Mend: "restore it, or choose another place with --data DIR",
		}
	}
	if have.Engine != kind {
		return &Error{
			Engine: kind, Fault: WrongVersion,
			Reason: fmt.Sprintf("%s holds data of the engine %q", d.path, have.Engine),
			Mend:   "choose another place with --data DIR",
		}
	}
	if have.Format != version {
		return &Error{
			Engine: kind, Fault: WrongVersion,
			Reason: fmt.Sprintf("%s holds data of format %d, this helio reads format %d", d.path, have.Format, version),
			Mend:   "run the helio that wrote it, or choose another place with --data DIR",
		}
	}
	// An engine that cannot write fails later and worse: try now.
	probe := filepath.Join(d.path, ".probe")
	if err := os.WriteFile(probe, []byte("probe\n"), 0o600); err != nil {
		_ = os.Remove(probe)
		return DiskError(kind, d.path, err)
	}
	if err := os.Remove(probe); err != nil {
		return DiskError(kind, d.path, err)
	}
	return nil
}

// mark writes the format note of a new directory, which must hold nothing but our lock.
func (d *Dir) mark(kind Kind, version int) error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return DiskError(kind, d.path, err)
	}
	for _, e := range entries {
		switch e.Name() {
		case lockName, formatName + ".new", "lost+found":
		default:
			return &Error{
				Engine: kind, Fault: WrongVersion,
				Reason: fmt.Sprintf("%s holds %q and no data of this engine", d.path, e.Name()),
				Mend:   "choose an empty place with --data DIR",
			}
		}
	}
	raw, err := json.Marshal(format{Engine: kind, Format: version})
	if err != nil {
		return fmt.Errorf("encode format note: %w", err)
	}
	name := filepath.Join(d.path, formatName)
	if err := WriteFile(name, append(raw, '\n'), 0o600); err != nil {
		return DiskError(kind, d.path, err)
	}
	return nil
}

// WriteFile writes a file so that a crash leaves either all of it or none of it under its name.
func WriteFile(name string, data []byte, perm os.FileMode) error {
	tmp := name + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return err
}
