//go:build vm

// Package vm boots a stock Debian under qemu and has whisk's end-to-end steps run there, by an ordinary user.
//
// Test makes a machine for each variant, one after the other: a fresh disk (a snapshot of the one that build makes),
// what the variant takes away, then steps. A step is a shell script that the agent inside runs; it must end with 0.
//
//	make vmtest       Debian 13 plain, and one variant
//	make vmtest-all   everything
package vm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// bootTime bounds a boot, in software, on a machine with other work: some 30 s on a quiet one.
	bootTime = 4 * time.Minute
	// boots is how often a machine may try to come up.
	boots = 3
	// tailLines is how much of the guest's console a failure shows.
	tailLines = 40
)

// Machine is a virtual machine that runs. Close ends it.
type Machine struct {
	dir    string
	cmd    *exec.Cmd
	exited chan error
	conn   net.Conn
	in     *bufio.Reader
	next   int
}

// Config says what to boot.
type Config struct {
	Disk   string // the folder that build printed
	Drive  string // an ext4 image, which the guest mounts on /mnt/test
	Memory int    // MB
	Kernel string // words for the kernel's command line
	Dir    string // for the console's log and sockets
}

// qemuArgs plans a machine: the guest's kernel is booted without a boot loader, all writes go to a temporary file.
func qemuArgs(c Config) []string {
	return []string{
		// One processor: with several, the emulator loses traps between them while the kernel changes its own code, as it does
		// for the first cpu limit, and the guest panics. A plain one: of the newest features emulated, some panic it now and then.
		"-machine", "q35", "-accel", "tcg", "-cpu", "Nehalem", "-smp", "1", "-m", fmt.Sprint(c.Memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-monitor", "unix:" + filepath.Join(c.Dir, "monitor") + ",server=on,wait=off",
		"-kernel", filepath.Join(c.Disk, "vmlinuz"), "-initrd", filepath.Join(c.Disk, "initrd.img"),
		"-append", strings.TrimSpace("root=/dev/vda rw console=ttyS0 loglevel=4 panic=3 systemd.show_status=0 net.ifnames=0 " + c.Kernel),
		"-drive", "file=" + filepath.Join(c.Disk, "root.ext4") + ",if=none,id=root,format=raw,snapshot=on", "-device", "virtio-blk-pci,drive=root",
		"-drive", "file=" + c.Drive + ",if=none,id=test,format=raw,readonly=on", "-device", "virtio-blk-pci,drive=test",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=agent,path=" + filepath.Join(c.Dir, "agent") + ",server=on,wait=off",
		"-device", "virtserialport,chardev=agent,name=whisk",
		"-chardev", "file,id=console,path=" + filepath.Join(c.Dir, "console"), "-serial", "chardev:console",
		"-netdev", "user,id=outer", "-device", "virtio-net-pci,netdev=outer,id=outer",
		"-device", "virtio-rng-pci",
	}
}

// Boot starts a machine and waits until its agent greets.
func Boot(ctx context.Context, c Config) (*Machine, error) {
	m := &Machine{dir: c.Dir, exited: make(chan error, 1)}
	m.cmd = exec.Command("qemu-system-x86_64", qemuArgs(c)...)
	m.cmd.Env = append(os.Environ(), "TMPDIR="+c.Dir)
	var complaint bytes.Buffer
	m.cmd.Stderr = &complaint
	// A test that is killed must not leave it behind.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the signal comes with the end of the thread that forked, prctl(2)
		defer runtime.UnlockOSThread()
		err := m.cmd.Start()
		started <- err
		if err == nil {
			err = m.cmd.Wait()
			m.exited <- fmt.Errorf("qemu ended: %w %s", errors.Join(err), strings.TrimSpace(complaint.String()))
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting qemu: %w", err)
	}
	for m.conn == nil {
		conn, err := net.Dial("unix", filepath.Join(c.Dir, "agent"))
		if err == nil {
			m.conn = conn
			break
		}
		select {
		case err := <-m.exited:
			m.exited <- err
			return nil, err
		case <-ctx.Done():
			m.Close()
			return nil, fmt.Errorf("waiting for qemu's socket: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
	m.in = bufio.NewReader(m.conn)
	if err := m.Greeting(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// Greeting waits for the agent's first words after a boot.
func (m *Machine) Greeting() error {
	for {
		r, err := m.reply(bootTime)
		if err != nil {
			return fmt.Errorf("waiting for the guest to boot: %w", err)
		}
		if r.ID == 0 && r.Output == "ready" {
			return nil
		}
	}
}

// Reply is how a script in the guest ended.
type Reply struct {
	ID     int
	Exit   int // -1: it was killed
	Output string
	Error  string
}

// Run has a script run as root or dev and waits for its end, at most for so long.
func (m *Machine) Run(as, script string, limit time.Duration) (Reply, error) {
	m.next++
	b, err := json.Marshal(map[string]any{"id": m.next, "as": as, "script": script, "seconds": limit.Seconds()})
	if err != nil {
		return Reply{}, err
	}
	if _, err := m.conn.Write(append(b, '\n')); err != nil {
		return Reply{}, fmt.Errorf("asking the guest: %w", err)
	}
	for {
		r, err := m.reply(limit + time.Minute)
		if err != nil || r.ID == m.next {
			return r, err
		}
	}
}

func (m *Machine) reply(limit time.Duration) (Reply, error) {
	if err := m.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return Reply{}, err
	}
	line, err := m.in.ReadBytes('\n')
	if err != nil {
		select {
		case ended := <-m.exited:
			m.exited <- ended
			return Reply{}, ended
		default:
			return Reply{}, fmt.Errorf("hearing the guest: %w", err)
		}
	}
	var r Reply
	if err := json.Unmarshal(line, &r); err != nil {
		return Reply{}, fmt.Errorf("understanding the guest: %w in %q", err, line)
	}
	return r, nil
}

// Crash resets the machine, as if its power had gone, and waits until it is up again.
func (m *Machine) Crash() (err error) {
	for range boots {
		if err = m.monitor("system_reset"); err != nil {
			return err
		}
		if err = m.Greeting(); err == nil {
			return nil
		}
	}
	return err
}

// monitor gives qemu a command, see qemu(1), -monitor.
func (m *Machine) monitor(line string) error {
	conn, err := net.Dial("unix", filepath.Join(m.dir, "monitor"))
	if err != nil {
		return fmt.Errorf("reaching qemu's monitor: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return fmt.Errorf("telling qemu %q: %w", line, err)
	}
	in := bufio.NewReader(conn)
	for prompts := 0; prompts < 2; { // the one before the command, and the one after it
		b, err := in.ReadString(' ')
		if err != nil {
			return fmt.Errorf("telling qemu %q: %w", line, err)
		}
		if strings.HasSuffix(b, "(qemu) ") {
			prompts++
		}
	}
	return nil
}

// Tail is the end of what the guest wrote to its console.
func (m *Machine) Tail() string {
	b, err := os.ReadFile(filepath.Join(m.dir, "console"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}

// Panicked tells whether the console says that the kernel has given up.
func (m *Machine) Panicked() bool { return strings.Contains(m.Tail(), "Kernel panic - not syncing") }

// Close kills the machine.
func (m *Machine) Close() {
	if m.conn != nil {
		m.conn.Close()
	}
	_ = m.cmd.Process.Kill()
	<-m.exited
	m.exited <- errors.New("qemu was killed")
}
