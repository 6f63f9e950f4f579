//go:build vm

package vm

import (
	"regexp"
	"slices"
	"testing"
	"time"
)

// crash, as a step's script, resets the machine.
const crash = "\x00crash"

// variant is a machine that lacks something, and what is to happen there.
type variant struct {
	name   string
	memory int    // MB; 0: 1024
	kernel string // words for the kernel's command line
	steps  []step
}

func variants(t *testing.T) []variant {
	t.Helper()
	return []variant{
		plain(),
		powerCut(),
		rest(),
		{name: "installed", memory: 2048, steps: slices.Concat(packaged(), tour(t), removed())},
		oneID(),
		broken("no-sub-ids", "no-range", `sed -i /^dev:/d /etc/subuid /etc/subgid`),
		broken("no-newuidmap", "helper-missing", `dpkg --purge uidmap && rm -rf /var/lib/apt/lists && ! command -v newuidmap`),
		broken("clone-off", "clone-off", `sysctl -w kernel.unprivileged_userns_clone=0`),
		broken("apparmor", "apparmor", denyProfile, step{name: "the printed profile is one that AppArmor takes", as: "root", script: `
			[ -e /etc/apparmor.d/abi/4.0 ] || exit 0 # AppArmor 3 has no such restriction to be let out of
			as_dev() { su -s /bin/sh dev -c "PATH=$PATH; $1"; }
			file=/etc/apparmor.d/mnt.test.bin.whisk
			as_dev "whisk doctor --apparmor-profile" >$file && apparmor_parser -r $file && as_dev "whisk run --rm host true" || exit 1
			grep '^/mnt/test/bin/whisk (unconfined)' /sys/kernel/security/apparmor/profiles`}),
		broken("no-nf-tables", "nf-tables", `
			for m in nf_tables nft_tproxy nft_socket; do echo "install $m /bin/false"; done >/etc/modprobe.d/none.conf
			! lsmod | grep -q ^nf_tables`),
		whole("no-tun", `rm -f /dev/net/tun; ! [ -e /dev/net/tun ]`),
		small(),
		whole("read-only-root", `
			for d in /home /var /tmp; do
				mkdir -p /run/kept$d && cp -a $d/. /run/kept$d && mount -t tmpfs tmpfs $d && cp -a /run/kept$d/. $d
			done
			rm -rf /run/kept; sync; echo u >/proc/sysrq-trigger
			for i in $(seq 50); do grep -q '^/dev/vda / ext4 ro' /proc/mounts && exit; sleep 0.2; done; exit 1`,
			step{name: "doctor --fix", script: "whisk doctor --fix >/tmp/mend.sh"},
			step{name: "mends that cannot be kept are named", as: "root", script: "sh /tmp/mend.sh; [ $? = 1 ] && cat /proc/sys/net/ipv4/ping_group_range", want: "not mended: ping, limits\n0\t2147483647\n"}),
		broken("nfs-home", "file-system", `
			mkdir -p /srv/home && cp -a /home/. /srv/home/
			echo '/srv/home *(rw,no_subtree_check,fsid=1)' >/etc/exports # root_squash, as is usual: exports(5)
			systemctl start nfs-server && mount -t nfs -o vers=4.2 127.0.0.1:/srv/home /home && grep ' /home nfs4 ' /proc/mounts`,
			step{name: "an image runs from the new store", script: `
				whisk load -q -i /mnt/test/images --ref busybox:latest && whisk run --rm busybox echo it runs && ls -d /var/lib/whisk-dev/*`, want: "it runs\n/var/lib/whisk-dev/"}),
		moving(),
	}
}

// denyProfile confines whisk's own file, as a distribution or an administrator may, to everything but user namespaces; with
// AppArmor 3, which has no rule for them, to everything but the rights that one gives.
const denyProfile = `
	if [ -e /etc/apparmor.d/abi/4.0 ]; then
		cat >/etc/apparmor.d/local-denied <<-'END'
		abi <abi/4.0>,
		profile denied /mnt/test/bin/whisk {
		  allow all,
		  deny userns,
		}
		END
	else
		cat >/etc/apparmor.d/local-denied <<-'END'
		profile denied /mnt/test/bin/whisk {
		  file,
		  network,
		  signal,
		  ptrace,
		  unix,
		  dbus,
		  mount,
		  umount,
		  pivot_root,
		}
		END
	fi
	apparmor_parser -r /etc/apparmor.d/local-denied`

// demo is two apps from whisk itself.
const demo = `
	cd && url=$(whisk demo -d) || exit 1
	curl -fsS "$url" | grep -o '<title>.*</title>'; whisk demo --stop`

// demoRuns is the last word on any machine.
func demoRuns() step { return step{name: "demo", script: demo, want: "<title>whisk demo</title>"} }

// broken lacks something that doctor is to name first, by this cause, in the words of its golden file. After root has
// run what doctor --fix prints, the demo must run.
func broken(name, cause, breaking string, more ...step) variant {
	return variant{name: name, steps: append([]step{
		{name: "breaking it", as: "root", script: breaking},
		{name: "doctor", script: findings, golden: name, want: `"cause": "` + cause + `"`},
		{name: "the demo runs at once where doctor says so", script: "whisk doctor >/dev/null || { echo '<title>'; exit; }" + demo, want: "<title>"},
		{name: "doctor --fix", script: "whisk doctor --fix >/tmp/mend.sh; cat /tmp/mend.sh"},
		{name: "mending it as root", as: "root", script: "sh -x /tmp/mend.sh"},
		{name: "doctor names it no more", script: `! whisk doctor --json | grep '"cause": "` + cause + `"'`},
		demoRuns(),
		{name: "mending it again changes nothing", as: "root", script: "sh -x /tmp/mend.sh"},
	}, more...)}
}

// whole lacks something that whisk does without.
func whole(name, breaking string, more ...step) variant {
	return variant{name: name, steps: append([]step{
		{name: "breaking it", as: "root", script: breaking},
		{name: "doctor", script: findings, golden: name},
		demoRuns(),
	}, more...)}
}

// killed: with the keeper goes all that it held, and its scope.
func killed() step {
	return step{name: "kill -9 of the keeper leaves nothing", script: `
			whisk run -d --name left -m 64m host sleep 1000 || exit 1
			scope=$(systemctl --user list-units --no-legend 'whisk-*.scope' | grep -o 'whisk-[^ ]*') || exit 1
			keeper=${scope##*-}; echo "$scope"; kill -9 "${keeper%.scope}" || exit 1
			for i in $(seq 50); do
				systemctl --user list-units --all --no-legend 'whisk-*.scope' | grep -q whisk- || { whisk ps -a; whisk rm left; echo gone; exit; }
				sleep 0.2
			done; systemctl --user list-units --all 'whisk-*.scope'; exit 1`, want: "gone"}
}

// findings prints what doctor says, but for what is well, the cause that it names first, and the mends of its script.
const findings = `
	whisk doctor | grep -v '^ok '
	whisk doctor --json | grep -m1 '"cause"'
	echo; whisk doctor --fix | sed -n '/^# [a-z -]*: /,$p'`

// figures are those that differ between two boots of one machine: how much of a disk is free.
var figures = regexp.MustCompile(`[0-9.]+ (GiB free|MiB free|more files fit)`)

// normal leaves figures out of what doctor says.
func normal(said string) string { return figures.ReplaceAllString(said, "N $1") }

// oneID is a login without ranges, as directory users have, that runs the well-known services all the same.
func oneID() variant {
	return variant{name: "one-id", memory: 2048, steps: append([]step{
		{name: "no ranges, and no program that would map them", as: "root", script: `
			sed -i /^dev:/d /etc/subuid /etc/subgid && dpkg --purge uidmap && ! command -v newuidmap && ! grep dev: /etc/subuid /etc/subgid`},
		fixtures(),
		{name: "nginx", script: `
			whisk run -d --name web -p 8081:80 nginx || exit 1
			for i in $(seq 60); do curl -sI 127.0.0.1:8081 | grep -i ^server: && break; sleep 1; done
			whisk exec web ps -o user= | sort -u; whisk rm -f web`, want: "Server: nginx"},
		{name: "PostgreSQL", script: `
			whisk run -d --name db -e POSTGRES_PASSWORD=x postgres || exit 1
			for i in $(seq 200); do whisk exec db env PGPASSWORD=x psql -h 127.0.0.1 -U postgres -tAc 'select 6*7' && break; sleep 1; done
			whisk stop db && whisk rm db`, want: "42", limit: 10 * time.Minute},
		{name: "Redis", script: `
			whisk run -d --name cache redis || exit 1
			for i in $(seq 60); do whisk exec cache redis-cli ping && break; sleep 1; done
			whisk rm -f cache`, want: "PONG"},
	}, scripts("TestOneID", "one_id", "services", "apt")...)}
}

// small has as little memory as a cheap server.
func small() variant {
	return variant{name: "1-gb", memory: 1024, steps: []step{
		{name: "doctor", script: findings, golden: "1-gb"},
		{name: "load an image", script: "whisk load -q -i /mnt/test/images --ref postgres:latest", limit: 10 * time.Minute},
		{name: "a database", script: `
			whisk run -d --name db -e POSTGRES_PASSWORD=x postgres || exit 1
			for i in $(seq 100); do whisk exec db env PGPASSWORD=x psql -h 127.0.0.1 -U postgres -tAc 'select 6*7' && break; sleep 1; done
			whisk stop db`, want: "42", limit: 5 * time.Minute},
		demoRuns(),
	}}
}

// moving is carried from one network to another: the outer interface goes down and comes up with a new address.
func moving() variant {
	const surf = `whisk exec surf wget -T 20 -qO- http://web.example/`
	return variant{name: "new-address", steps: []step{
		{name: "the local network", as: "root", script: `
			ip netns add lan && ip link add wan0 type veth peer name eth9 netns lan
			ip -n lan addr add 198.51.100.2/24 dev eth9 && ip -n lan link set eth9 up && ip -n lan link set lo up
			ip addr add 198.51.100.1/24 dev wan0 && ip link set wan0 up && echo nameserver 198.51.100.2 >/etc/resolv.conf
			systemd-run --quiet --unit=lan ip netns exec lan /mnt/test/agent lan 198.51.100.2`},
		{name: "a sandbox reaches it by name", script: `
			whisk load -q -i /mnt/test/images --ref busybox:latest && whisk run -d --name surf busybox sleep 10000 && ` + surf, want: "hello from the local network", limit: 10 * time.Minute},
		{name: "suspend", as: "root", script: "ip link set wan0 down; ip addr del 198.51.100.1/24 dev wan0; sleep 3"},
		{name: "doctor", script: findings, golden: "new-address"},
		{name: "unreachable meanwhile", script: "! " + surf, limit: 3 * time.Minute},
		{name: "resume with a new address", as: "root", script: "ip addr add 198.51.100.77/24 dev wan0; ip link set wan0 up"},
		{name: "the same sandbox reaches it again", script: surf, want: "hello from the local network"},
	}}
}

// plain is the laptop as Debian installs it.
func plain() variant {
	return variant{name: "plain", memory: 2048, steps: slices.Concat([]step{
		{name: "login session", script: "echo $XDG_RUNTIME_DIR; loginctl --no-pager; systemctl --user is-system-running --wait; cat /proc/self/cgroup; cat /sys/fs/cgroup/user.slice/user-$(id -u).slice/user@$(id -u).service/cgroup.controllers", want: "/run/user/"},
		{name: "whisk version", script: "whisk version", want: "0.0.0-vm"},
		fixtures(),
		{name: "run busybox", script: "whisk run --rm busybox sh -c 'id -u; hostname -i; echo it runs'", want: "it runs"},
		demoRuns(),
		{name: "memory limit ends a hog, not its neighbour", script: `
			whisk run -d --name neighbour --network lan busybox sleep 1000
			whisk run --name hog --network lan -m 64m busybox tail /dev/zero
			code=$?
			[ $code = 137 ] || { echo "exit code $code"; exit 1; }
			[ "$(whisk exec neighbour echo lives)" = lives ] || exit 1
			whisk inspect hog | grep '"error"'
			whisk rm hog; whisk stop -t 0 neighbour; whisk rm neighbour`, want: "the app was killed: out of its memory limit of 64m"},
		{name: "processes are bounded", script: `
			whisk run --rm --pids-limit 20 busybox sh -c 'cat /sys/fs/cgroup/pids.max; for i in $(seq 40); do sleep 5 & done; wait' 2>&1 || :`, want: "can't fork"},
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
		killed(),
		project(),
	}, powerFails("3"), everyCommit())}
}

// powerCut is plain, with the power failing early and late.
func powerCut() variant {
	return variant{name: "power-cut", memory: 2048, steps: slices.Concat([]step{fixtures(), project()}, powerFails("1", "8"))}
}

// fixtures loads the images that the others run.
func fixtures() step {
	return step{name: "load the fixtures", script: "whisk load -q -i /mnt/test/images && whisk images", want: "postgres", limit: 10 * time.Minute}
}

// project is one whose database has something in it.
func project() step {
	return step{name: "a project with data", script: `
			mkdir -p shop && cd shop && cat >whisk.toml <<-'END'
			[app.db]
			image = "postgres"
			env = { POSTGRES_PASSWORD = "secret" }
			mounts = ["data:/var/lib/postgresql/data"]
			ready = { tcp = 5432, timeout = "8m" }
			memory = "512m"
			[app.cache]
			image = "redis"
			[volume.data]
			END
			whisk up -d && whisk ps &&
			whisk exec db psql -U postgres -c 'create table visits (n int)' -c 'insert into visits values (42)'`, want: "INSERT 0 1", limit: 10 * time.Minute}
}

// powerFails resets the machine so many seconds into an up, with nothing that has written the disk's buffers out, and then
// has up work again. The delays are for a machine that is emulated: while the network is made, while the database starts, and
// about when it is ready.
func powerFails(seconds ...string) []step {
	var steps []step
	for _, s := range seconds {
		steps = append(steps,
			step{name: "up is under way for " + s + " s", script: "cd shop && whisk down && (setsid whisk up -d >/dev/null 2>&1 &) ; sleep " + s, limit: 3 * time.Minute},
			step{name: "power fails", script: crash},
			step{name: "afterwards up works and the data is there", script: `
			cd shop && whisk up -d && whisk exec db psql -U postgres -tAc 'select n from visits'`, want: "42", limit: 10 * time.Minute})
	}
	return append(steps, step{name: "down again", script: "cd shop && whisk down", limit: 3 * time.Minute})
}
