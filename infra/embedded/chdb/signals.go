package chdb

import (
	"syscall"
	"unsafe"
)

// sigaction is the kernel's struct sigaction on 64-bit Linux.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// guarded are the signals whose handlers the library resets or replaces when it is loaded and at every connect.
var guarded = []syscall.Signal{
	syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGILL, syscall.SIGBUS, syscall.SIGSYS, syscall.SIGFPE,
	syscall.SIGTSTP, syscall.SIGTRAP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP,
	syscall.SIGPIPE, syscall.SIGURG,
}

// keepSignals notes the handlers of the guarded signals and returns the function that puts them back. Between the two,
// a nil dereference in Go ends the process instead of being recovered; both belong closely around a call.
func (l *library) keepSignals() func() {
	l.signals.Lock()
	saved := make([]sigaction, len(guarded))
	for i, s := range guarded {
		_ = rtSigaction(s, nil, &saved[i])
	}
	return func() {
		for i, s := range guarded {
			var now sigaction
			if rtSigaction(s, nil, &now) == nil && now != saved[i] {
				_ = rtSigaction(s, &saved[i], nil)
			}
		}
		l.signals.Unlock()
	}
}

func rtSigaction(s syscall.Signal, set, old *sigaction) error {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(s),
		uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), unsafe.Sizeof(sigaction{}.mask), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
