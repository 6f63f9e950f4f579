//go:build vm

package vm

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// packaged installs whisk as people do, in both ways.
func packaged() []step {
	return []step{
		{name: "the archive, by install.sh", script: `
			export PATH=$HOME/.local/bin:/usr/bin:/bin WHISK_BASE_URL=/mnt/test/dist
			sh /mnt/test/dist/install.sh && command -v whisk && whisk version && whisk run --rm host echo it runs &&
			sh /mnt/test/dist/install.sh --uninstall && ! [ -e ~/.local/bin/whisk ]`, want: "it runs"},
		{name: "the package", as: "root", script: "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq /mnt/test/dist/*.deb && ls -l /usr/bin/whisk && dpkg -L whisk", want: "/usr/share/man/man1/whisk.1.gz", limit: 5 * time.Minute},
		{name: "its AppArmor profile is loaded", as: "root", script: `
			[ -e /etc/apparmor.d/abi/4.0 ] || { ! [ -e /etc/apparmor.d/whisk ] && echo 'whisk (unconfined): AppArmor 3 has no use for it'; exit; }
			grep '^whisk (unconfined)' /sys/kernel/security/apparmor/profiles && su -l dev -c '/usr/bin/whisk run --rm host cat /proc/self/attr/apparmor/current; :'`, want: "whisk (unconfined)"},
		{name: "a sandbox runs through the upgrade", script: top + `
			whisk load -q -i /mnt/test/images --ref busybox:latest && whisk run -d --name kept -v kept:/data busybox sh -c 'echo mine >/data/file; exec sleep 100000'`, limit: 10 * time.Minute},
		{name: "the same package again", as: "root", script: `
			inode=$(stat -c %i /usr/bin/whisk)
			DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --reinstall /mnt/test/dist/*.deb || exit 1
			[ "$(stat -c %i /usr/bin/whisk)" != "$inode" ] || { echo 'it has put nothing in its place'; exit 1; }
			! [ -e /etc/apparmor.d/abi/4.0 ] || grep '^whisk (unconfined)' /sys/kernel/security/apparmor/profiles`, limit: 5 * time.Minute},
		{name: "it runs still, and so does what was there", script: top + `
			whisk exec kept cat /data/file && whisk images | grep busybox && whisk run --rm -v kept:/data busybox cat /data/file && whisk stop -t 0 kept && whisk start kept && whisk exec kept cat /data/file && whisk rm -f kept`, want: "mine\n"},
	}
}

// top is a login with the package's whisk and no other.
const top = "export PATH=/usr/bin:/bin; mkdir -p ~/tour && cd ~/tour || exit 1\n"

// removed takes the package away again: what is the user's stays.
func removed() []step {
	return []step{
		{name: "the package is removed", as: "root", script: `
			DEBIAN_FRONTEND=noninteractive apt-get remove -y -qq whisk && ! [ -e /usr/bin/whisk ] && ! [ -e /etc/apparmor.d/whisk ] &&
			! grep '^whisk (' /sys/kernel/security/apparmor/profiles`, limit: 5 * time.Minute},
		{name: "and the user's data is not", script: `
			/mnt/test/bin/whisk images && /mnt/test/bin/whisk run --rm -v kept:/data busybox cat /data/file`, want: "mine\n"},
	}
}

// tour types README's five minutes as they are written there, with the package's whisk.
func tour(t *testing.T) []step {
	t.Helper()
	steps := []step{{name: "what README's reader has", limit: 15 * time.Minute, script: top + `
		mkdir -p site src && echo '<p>tour</p>' >site/index.html && printf 'all:\n\t@echo made it\n' >src/Makefile
		whisk load -q -i /mnt/test/images && whisk tag nginx docker.io/library/nginx:1.27 && whisk tag postgres docker.io/library/postgres:17
		# A machine that is emulated takes minutes to make a database, and README's reader seconds.
		whisk run -d --name first -v shop_pgdata:/var/lib/postgresql/data -e POSTGRES_PASSWORD=dev postgres || exit 1
		for i in $(seq 300); do whisk exec first env PGPASSWORD=dev psql -h 127.0.0.1 -U postgres -tAc 'select 6*7' && break; sleep 2; done
		whisk stop first && whisk rm first`, want: "42"}}
	wants := map[string]string{
		"whisk run --rm busybox": "hello", "whisk exec -it": "#", "whisk run --rm -v ./src": "made it", "whisk up": "ready", "curl": "<p>tour</p>", "whisk ps": "db",
	}
	lines, file := typed(t)
	steps = append(steps, step{name: "README's whisk.toml", script: top + "cat >whisk.toml <<'END'\n" + file + "END\n"})
	for _, line := range lines {
		s := step{name: "README: " + line, script: top + line, limit: 5 * time.Minute}
		switch {
		case strings.Contains(line, " -it "): // a person leaves again
			s.script = top + fmt.Sprintf("echo exit | script -qec %q /dev/null", line)
		case strings.Contains(line, " logs -f "):
			s.script = top + "timeout 5 " + line + "; [ $? = 124 ]"
		}
		for begin, want := range wants {
			if strings.HasPrefix(line, begin) {
				s.want = want
			}
		}
		steps = append(steps, s)
	}
	return steps
}

// typed gives the command lines of README's tour, without their remarks, and its project file.
func typed(t *testing.T) (lines []string, file string) {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\n## Five minutes\n")
	section, _, ok := strings.Cut(rest, "\n## ")
	if !ok {
		t.Fatal("README has no five minutes")
	}
	before, rest, _ := strings.Cut(section, "\n```toml\n")
	file, after, ok := strings.Cut(rest, "\n```\n")
	if !ok {
		t.Fatal("README's tour has no whisk.toml")
	}
	for line := range strings.Lines(before + "\n" + after) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			command, _, _ = strings.Cut(command, " #")
			lines = append(lines, strings.TrimSpace(command))
		}
	}
	if len(lines) < 8 {
		t.Fatalf("README's tour has only these commands: %q", lines)
	}
	return lines, file + "\n"
}
