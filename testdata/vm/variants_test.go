//go:build vm

package vm

import "time"

// crash, as a step's script, resets the machine.
const crash = "\x00crash"

// variant is a machine that lacks something, and what is to happen there.
type variant struct {
	name   string
	memory int    // MB; 0: 1024
	kernel string // words for the kernel's command line
	steps  []step
}

func variants() []variant {
	return []variant{plain()}
}

// plain is the laptop as Debian installs it.
func plain() variant {
	return variant{name: "plain", memory: 2048, steps: []step{
		{name: "login session", script: "echo $XDG_RUNTIME_DIR; loginctl --no-pager; systemctl --user is-system-running --wait; cat /proc/self/cgroup; cat /sys/fs/cgroup/user.slice/user-$(id -u).slice/user@$(id -u).service/cgroup.controllers", want: "/run/user/"},
		{name: "whisk version", script: "whisk version", want: "0.0.0-vm"},
		{name: "load the fixtures", script: "whisk load -i /mnt/test/images && whisk images", want: "postgres", limit: 10 * time.Minute},
		{name: "run busybox", script: "whisk run --rm busybox sh -c 'id -u; hostname -i; echo it runs'", want: "it runs"},
		{name: "demo", script: "url=$(whisk demo -d) && curl -fsS \"$url\" && whisk demo --stop", want: "<html"},
	}}
}
