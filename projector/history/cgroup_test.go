package history_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/procfs"
)

// cgroup is a bound on the memory of a child process: a cgroup of its own (v2 or v1), where the test may make one,
// which kills a child that uses more; else the child is only told, and measured, and the test does not count: it is
// skipped at its end. Where HELIO_REQUIRE names cgroup it must be able to make one.
type cgroup struct {
	dir  string // empty: none could be made
	peak string // the file that tells the most memory that was used
}

// newCgroup makes a cgroup for so many bytes, until the test ends.
func newCgroup(t testing.TB, bytes int64) *cgroup {
	t.Helper()
	name := fmt.Sprintf("helio-test-%d", os.Getpid())
	for _, v := range []struct{ root, limit, peak string }{
		{"/sys/fs/cgroup", "memory.max", "memory.peak"},
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"},
	} {
		dir := filepath.Join(v.root, name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		file, err := os.OpenFile(filepath.Join(dir, v.limit), os.O_WRONLY, 0) // it is there, or this is no such cgroup
		if err == nil {
			_, err = fmt.Fprint(file, bytes)
			file.Close()
		}
		if err != nil {
			_ = os.Remove(dir)
			continue
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil { // its processes have ended
				t.Error(err)
			}
		})
		return &cgroup{dir, filepath.Join(dir, v.peak)}
	}
	if strings.Contains(os.Getenv("HELIO_REQUIRE"), "cgroup") {
		t.Fatal(noCgroup)
	}
	t.Log(noCgroup)
	return &cgroup{}
}

const noCgroup = "no memory cgroup can be made here: the child is measured, not bounded"

// skipUnbounded ends a test that had no cgroup, and found nothing wrong without one.
func (c *cgroup) skipUnbounded(t testing.TB) {
	t.Helper()
	if c.dir == "" && !t.Failed() {
		t.Skip(noCgroup)
	}
}

// env is what the child's environment needs besides: where there is no cgroup to read, the runtime's own limit.
func (c *cgroup) env(bytes int64) []string {
	if c.dir == "" {
		return []string{fmt.Sprintf("GOMEMLIMIT=%d", bytes/100*85)}
	}
	return nil
}

// add puts a process in. It must not have begun its work.
func (c *cgroup) add(t testing.TB, pid int) {
	t.Helper()
	if c.dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(c.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// peakOf is the most memory that the child has used, in bytes; it must live.
func (c *cgroup) peakOf(t testing.TB, child *exec.Cmd) int64 {
	t.Helper()
	if c.dir != "" {
		if b, err := os.ReadFile(c.peak); err == nil {
			n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	p, err := procfs.NewProc(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.NewStatus()
	if err != nil {
		t.Fatal(err)
	}
	return int64(s.VmHWM)
}
