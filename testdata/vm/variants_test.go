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
		{name: "demo", script: "url=$(whisk demo -d) && curl -fsS \"$url\" | grep -o '<title>.*</title>' && whisk demo --stop", want: "whisk demo"},
		{name: "memory limit ends a hog, not its neighbour", script: `
			whisk run -d --name neighbour --network lan busybox sleep 1000
			whisk run --name hog --network lan -m 64m busybox tail /dev/zero
			code=$?
			[ $code = 137 ] || { echo "exit code $code"; exit 1; }
			[ "$(whisk exec neighbour echo lives)" = lives ] || exit 1
			whisk inspect hog | grep '"error"'
			whisk rm hog; whisk stop -t 0 neighbour; whisk rm neighbour`, want: "the app was killed: out of its memory limit of 64m"},
		{name: "processes are bounded", script: `
			whisk run --rm --pids-limit 20 busybox sh -c 'cat /sys/fs/cgroup/pids.max; for i in $(seq 40); do sleep 5 & done; wait' 2>&1`, want: "can't fork"},
		{name: "cpu limit holds", script: `
			whisk run -d --name spin --cpus 0.3 busybox sh -c 'while :; do :; done' || exit 1
			sleep 2
			whisk stats --no-stream spin
			p=$(whisk stats --no-stream --json spin | sed -n 's/.*"cpu_percent": \([0-9]*\).*/\1/p')
			echo "cpu $p %"; [ "$p" -le 45 ] && [ "$p" -ge 5 ] || exit 1
			whisk update --cpus 0 --memory 100m spin || exit 1
			p=$(whisk stats --no-stream --json spin | sed -n 's/.*"cpu_percent": \([0-9]*\).*/\1/p')
			echo "cpu $p % without a limit"; [ "$p" -ge 50 ] || exit 1
			whisk exec spin cat /sys/fs/cgroup/memory.max /proc/self/cgroup
			whisk stop -t 0 spin; whisk rm spin`, want: "104857600\n0::/\n"},
		{name: "kill -9 of the keeper leaves nothing", script: `
			whisk run -d --name left -m 64m busybox sleep 1000 || exit 1
			systemctl --user list-units --no-legend 'whisk-*.scope'
			systemctl --user list-units --no-legend 'whisk-*.scope' | grep -q whisk- || exit 1
			kill -9 $(pgrep -x whisk-keeper)
			for i in $(seq 50); do
				systemctl --user list-units --all --no-legend 'whisk-*.scope' | grep -q whisk- || { whisk ps -a; whisk rm left; echo gone; exit; }
				sleep 0.2
			done; systemctl --user list-units --all 'whisk-*.scope'; exit 1`, want: "gone"},
		{name: "a project with data", script: `
			mkdir -p shop && cd shop && cat >whisk.toml <<-'END'
			[app.db]
			image = "postgres"
			env = { POSTGRES_PASSWORD = "secret" }
			mounts = ["data:/var/lib/postgresql/data"]
			ready = { tcp = 5432 }
			memory = "512m"
			[app.cache]
			image = "redis"
			[volume.data]
			END
			whisk up -d && whisk ps &&
			whisk exec db psql -U postgres -c 'create table visits (n int)' -c 'insert into visits values (42)'`, want: "INSERT 0 1", limit: 5 * time.Minute},
		{name: "up is under way", script: "cd shop && whisk down && (setsid whisk up -d >/dev/null 2>&1 &) ; sleep 2; sync", limit: 3 * time.Minute},
		{name: "power fails", script: crash},
		{name: "afterwards up works and the data is there", script: `
			cd shop && whisk up -d && whisk exec db psql -U postgres -tAc 'select n from visits' && whisk down`, want: "42", limit: 5 * time.Minute},
	}}
}
