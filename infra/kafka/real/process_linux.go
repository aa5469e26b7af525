package realkafka

import (
	"os/exec"
	"syscall"
)

// endWithParent has the kernel kill the child when its parent ends.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
