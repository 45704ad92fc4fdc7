package subject

import "syscall"

// attributes give the child a group of its own, and end it should the harness be killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
