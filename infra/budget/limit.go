package budget

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// runtimeShare is the part of the memory, in percent, that the Go runtime may fill before it collects without a pause
// (GOMEMLIMIT): the kernel counts sockets' buffers and pages of files to the same cgroup.
const runtimeShare = 85

// Memory tells how many bytes this process may use: what GOMEMLIMIT is a part of, the bound of its cgroup, or half of
// the machine's. bounded: it may end when it uses more. With an error the number holds all the same.
func Memory() (bytes int64, bounded bool, err error) {
	if os.Getenv("GOMEMLIMIT") != "" {
		if n := debug.SetMemoryLimit(-1); n != math.MaxInt64 { // the runtime has read it
			return n / runtimeShare * 100, true, nil
		}
	}
	machine, err := installed()
	if err != nil {
		return 0, false, err
	}
	n, err := memlimit.FromCgroup()
	switch {
	case err == nil && n < uint64(machine):
		return int64(n), true, nil
	case err == nil, errors.Is(err, memlimit.ErrNoLimit), errors.Is(err, memlimit.ErrNoCgroup),
		errors.Is(err, memlimit.ErrCgroupsNotSupported):
		return machine / 2, false, nil
	}
	return machine / 2, false, fmt.Errorf("read the cgroup's memory limit: %w", err)
}

func installed() (int64, error) {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("read the machine's memory: %w", err)
	}
	return int64(info.Totalram * uint64(info.Unit)), nil
}

// Apply tells the runtime of a bound on the memory, and logs what holds.
func Apply(bytes int64, bounded bool, log *slog.Logger) {
	if bounded && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(bytes / 100 * runtimeShare)
	}
	log.Debug("memory", "bytes", bytes, "bounded", bounded)
}
