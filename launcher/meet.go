package launcher

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A keeper that is killed while it forks must leave no child behind. A parent-death signal is lost if the parent dies
// before the child has asked for it, prctl(2), and in a new pid namespace getppid(2) is 0 in either case. So a child
// that has asked tells the keeper, and goes on when the keeper has answered: the thread that answers is the one that
// forked, and was alive afterwards.

// meetKeeper is the child's part. keeper is the keeper's pidfd, or -1 when it is closed already: another child that is
// just being forked may hold a copy of the keeper's socket, which then gives no end of file.
func meetKeeper(s *script, keeper int) {
	word := new([1]byte)
	s.add("tell the keeper", oneByte, unix.SYS_WRITE, syncFD, word, 1)
	flags := 0
	if keeper >= 0 {
		s.add("wait for the keeper", mayFail, unix.SYS_PPOLL, &[2]unix.PollFd{{Fd: syncFD, Events: unix.POLLIN}, {Fd: int32(keeper), Events: unix.POLLIN}}, 2, 0, 0, 0)
		flags = unix.MSG_DONTWAIT
	}
	s.add("wait for the keeper", oneByte, unix.SYS_RECVFROM, syncFD, word, 1, flags, 0, 0)
}

// meetChild is the keeper's part. It answers until the child has executed its program, is ready as init or has died,
// which is a length of 0, or has sent a report, whose length it returns. pidfd is the child's.
func meetChild(fd, pidfd int) (r report, n int, err error) {
	if err := beImpatient(fd); err != nil {
		return r, 0, err
	}
	for {
		n, err := unix.Read(fd, r.bytes())
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			if err := freed(pidfd); err != nil {
				return r, 0, err
			}
			continue
		}
		if err == unix.ECONNRESET { // it was killed before it took the answer
			return r, 0, nil
		}
		if err != nil {
			return r, 0, fmt.Errorf("wait for child: %w", err)
		}
		if n != 1 {
			return r, n, nil
		}
		if _, err := unix.Write(fd, []byte{1}); err != nil && err != unix.EPIPE {
			return r, 0, fmt.Errorf("release child: %w", err)
		}
	}
}

// A child of the sandbox's thread is in the sandbox before it executes its program, where an app's root may stop it, and the
// thread would wait for ever. So it looks, now and then, whether that has happened.
func beImpatient(fd int) error {
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return fmt.Errorf("bound the wait for a child: %w", err)
	}
	return nil
}

// errStopped is of a child that somebody in the sandbox has stopped before it executed its program.
var errStopped error = &Error{Message: "something in the sandbox stops new commands before they start", Hint: "start it again: whisk restart", Exit: ExitWhisk}

// freed kills a child that is stopped, for which the error is errStopped.
func freed(pidfd int) error {
	if !isStopped(pidfd) {
		return nil
	}
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill a stopped child: %w", err)
	}
	return errStopped
}

// isStopped reads the process's state, proc_pid_stat(5), in the host's /proc.
func isStopped(pidfd int) (is bool) {
	elsewhere(func() {
		info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd))
		if err != nil {
			return
		}
		_, after, _ := strings.Cut(string(info), "\nPid:\t")
		pid, _, _ := strings.Cut(after, "\n")
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			return
		}
		state := stat[bytes.LastIndexByte(stat, ')')+1:]
		is = len(state) > 1 && (state[1] == 'T' || state[1] == 't')
	})
	return is
}

// bytes is the report as it is sent.
func (r *report) bytes() []byte {
	return (*[unsafe.Sizeof(*r)]byte)(unsafe.Pointer(r))[:]
}

// highPair makes a pair of sockets that keep messages apart, out of the way of the standard streams.
func highPair() ([2]int, error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return p, fmt.Errorf("make sockets: %w", err)
	}
	return p, raise(&p)
}

// highPipe makes a pipe whose ends are out of the way of the standard streams.
func highPipe(p *[2]int) error {
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	return raise(p)
}

// raise moves two descriptors to 10 and above, or closes both.
func raise(p *[2]int) error {
	for i := range p {
		fd, err := unix.FcntlInt(uintptr(p[i]), unix.F_DUPFD_CLOEXEC, 10)
		if err != nil {
			closeFD(&p[0])
			closeFD(&p[1])
			return fmt.Errorf("move descriptor: %w", err)
		}
		unix.Close(p[i])
		p[i] = fd
	}
	return nil
}
