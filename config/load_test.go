package config

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

// issueExample is the whisk.toml that the project was asked for.
const issueExample = `
name = "shop"                        # default: the folder's name
[app.web]
image      = "docker.io/library/nginx:1.27"
ports      = ["8080:80"]
mounts     = ["./site:/usr/share/nginx/html:ro", "~/notes:/notes", "cache:/var/cache/nginx"]   # path or volume
depends_on = ["db"]                  # started after db is ready
env        = { TZ = "Asia/Tokyo" }   # also env_file, command, entrypoint, user, workdir, hostname, tmpfs, read_only, cap_add, cap_drop,
                                     # ulimits, labels, stop_signal, stop_timeout, init, tty, memory, cpus, pids, restart, extra_hosts
[app.db]
image  = "docker.io/library/postgres:17"
env    = { POSTGRES_PASSWORD = "dev" }
mounts = ["pgdata:/var/lib/postgresql/data"]
ready  = { tcp = 5432 }              # or { http = ":80/health" }, { cmd = ["pg_isready"] }, { log = "regexp" }; interval, timeout
[network]
egress = "all"                       # "all" or "none" now; a list later
[volume.pgdata]
`

// write makes files in a fresh folder called shop and returns the path of its whisk.toml.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "shop")
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, FileName)
}

func env(pairs ...string) Lookup {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func load(t *testing.T, text string, pairs ...string) *Project {
	t.Helper()
	p, err := Load(write(t, map[string]string{FileName: text}), LoadOptions{LookupEnv: env(pairs...), Home: "/home/user"})
	if err != nil {
		t.Fatalf("whisk.toml does not load:\n%v", err)
	}
	return p
}

func TestLoadReadsTheIssuesExample(t *testing.T) {
	path := write(t, map[string]string{FileName: issueExample})
	got, err := Load(path, LoadOptions{Home: "/home/user"})
	if err != nil {
		t.Fatalf("it does not load:\n%v", err)
	}
	dir := filepath.Dir(path)
	port, err := ParsePort("8080:80")
	if err != nil {
		t.Fatal(err)
	}
	want := &Project{
		Name: "shop", File: path, Dir: dir, Egress: "all",
		Apps: []App{
			{
				Name: "web", Image: "docker.io/library/nginx:1.27", Ports: []Port{port},
				Mounts: []Mount{
					{Kind: MountBind, Source: dir + "/site", Target: "/usr/share/nginx/html", ReadOnly: true},
					{Kind: MountBind, Source: "/home/user/notes", Target: "/notes"},
					{Kind: MountVolume, Source: "cache", Target: "/var/cache/nginx"},
				},
				DependsOn: []string{"db"}, Env: []string{"TZ=Asia/Tokyo"},
			},
			{
				Name: "db", Image: "docker.io/library/postgres:17", Env: []string{"POSTGRES_PASSWORD=dev"},
				Mounts: []Mount{{Kind: MountVolume, Source: "pgdata", Target: "/var/lib/postgresql/data"}},
				Ready:  &Ready{TCP: 5432, Interval: 200 * time.Millisecond, Timeout: time.Minute},
			},
		},
		Volumes: []Volume{{Name: "pgdata"}, {Name: "cache"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestLoadReadsEveryKey(t *testing.T) {
	path := write(t, map[string]string{
		FileName: `
[app.web]
image = "${REGISTRY:-docker.io}/library/nginx:${TAG}"
platform = "linux/arm64/v8"
ports = ["127.0.0.1:8000-8001:80-81/tcp", 90, "[::1]:53:53/udp"]
mounts = [".:/srv:ro"]
tmpfs = ["/run:size=64m,mode=0755", "/tmp"]
env = ["A=1", "FROM_ENV", "NOT_SET"]
env_file = ["a.env", "sub/b.env"]
command = "nginx -g 'daemon off;'"
entrypoint = []
user = 1000
workdir = "/srv/"
hostname = "web.test"
read_only = true
cap_add = ["net_raw", "CAP_SYS_PTRACE"]
cap_drop = ["ALL"]
ulimits = { nofile = "1024:2048", nproc = 512, core = { soft = 0, hard = -1 } }
stop_signal = "quit"
stop_timeout = "1m30s"
init = false
tty = true
memory = "1.5g"
cpus = 1.5
pids = 100
restart = "on-failure:3"
extra_hosts = { "api.test" = "192.0.2.7" }

[app.web.labels]
"com.example.tier" = "front"
port = 80

[app.web.ready]
log = "ready$"
interval = 1
timeout = "2m"

[app.web2]
image = "busybox"
env = { N = 1, F = 1.50, B = true, PASS = "a$$b $HOME" }
env_file = "a.env"
extra_hosts = ["a=::1", "gw:host-gateway"]
labels = ["x=y", "z"]
ulimits = ["nofile=10"]
ready = { http = ":80/health" }
tmpfs = "/t"
stop_signal = 9
stop_timeout = 0
command = ["sh", "-c", "echo ${TAG}"]

[network]
egress = "none"

[volume.data]
labels = { a = "b" }
external = true
`,
		".env":      "TAG=1.27\nREGISTRY=from.dotenv\n",
		"a.env":     "A=0\nB=\"two words\"\n",
		"sub/b.env": "C=${TAG}\n",
	})
	p, err := Load(path, LoadOptions{LookupEnv: env("REGISTRY", "r.test", "FROM_ENV", "yes"), Home: "/home/user"})
	if err != nil {
		t.Fatalf("it does not load:\n%v", err)
	}
	web := p.Apps[0]
	off, grace := false, 90*time.Second
	port := func(s string) Port {
		p, err := ParsePort(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	want := App{
		Name: "web", Image: "r.test/library/nginx:1.27", Platform: "linux/arm64",
		Ports: []Port{port("8000-8001:80-81"), port("90"), port("[::1]:53:53/udp")},
		Mounts: []Mount{
			{Kind: MountBind, Source: p.Dir, Target: "/srv", ReadOnly: true},
			{Kind: MountTmpfs, Target: "/run", Size: 64 << 20, Mode: 0o755, NoExec: true},
			{Kind: MountTmpfs, Target: "/tmp", NoExec: true},
		},
		Env:     []string{"A=0", "B=two words", "C=1.27", "A=1", "FROM_ENV=yes", "NOT_SET"},
		Command: []string{"nginx", "-g", "daemon off;"}, Entrypoint: []string{},
		User: "1000", Workdir: "/srv", Hostname: "web.test", ReadOnly: true,
		CapAdd: []string{"NET_RAW", "SYS_PTRACE"}, CapDrop: []string{"ALL"},
		Ulimits:    []Ulimit{{"nofile", 1024, 2048}, {"nproc", 512, 512}, {"core", 0, 1<<64 - 1}},
		StopSignal: "SIGQUIT", StopTimeout: &grace, Init: &off, TTY: true,
		Memory: 3 << 29, CPUs: 1.5, Pids: 100, Restart: Restart{"on-failure", 3},
		ExtraHosts: []Host{{"api.test", "192.0.2.7"}},
		Labels:     map[string]string{"com.example.tier": "front", "port": "80"},
		Ready:      &Ready{Log: "ready$", Interval: time.Second, Timeout: 2 * time.Minute},
	}
	if !reflect.DeepEqual(web, want) {
		t.Errorf("app web:\ngot  %+v\nwant %+v", web, want)
	}
	none := time.Duration(0)
	want2 := App{
		Name: "web2", Image: "busybox", Env: []string{"A=0", "B=two words", "N=1", "F=1.50", "B=true", "PASS=a$b $HOME"},
		ExtraHosts: []Host{{"a", "::1"}, {"gw", HostGateway}}, Labels: map[string]string{"x": "y", "z": ""},
		Ulimits: []Ulimit{{"nofile", 10, 10}}, Ready: &Ready{HTTP: ":80/health", Interval: 200 * time.Millisecond, Timeout: time.Minute},
		Mounts: []Mount{{Kind: MountTmpfs, Target: "/t", NoExec: true}}, StopSignal: "SIGKILL", StopTimeout: &none,
		Command: []string{"sh", "-c", "echo 1.27"},
	}
	if !reflect.DeepEqual(p.Apps[1], want2) {
		t.Errorf("app web2:\ngot  %+v\nwant %+v", p.Apps[1], want2)
	}
	if p.Egress != "none" || !reflect.DeepEqual(p.Volumes, []Volume{{Name: "data", Labels: map[string]string{"a": "b"}, External: true}}) {
		t.Errorf("network or volumes: %q %+v", p.Egress, p.Volumes)
	}
}

// TestLoadReportsFaults loads each testdata/faults/*.toml and compares what is reported with the .want beside it;
// -update writes them. A leading part of the file between lines of dashes is its .env.
func TestLoadReportsFaults(t *testing.T) {
	files, err := filepath.Glob("testdata/faults/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]string{FileName: string(text)}
			if rest, ok := strings.CutPrefix(string(text), "# .env:\n"); ok {
				dotenv, rest, _ := strings.Cut(rest, "# whisk.toml:\n")
				files = map[string]string{".env": dotenv, FileName: rest}
			}
			path := write(t, files)
			t.Chdir(filepath.Dir(path))
			_, err = Load(FileName, LoadOptions{LookupEnv: env("SET", "yes"), Home: "/home/user"})
			if err == nil {
				t.Fatal("it loads without a fault")
			}
			if _, ok := err.(Errors); !ok {
				t.Fatalf("the error is a %T, not Errors: %v", err, err)
			}
			compare(t, strings.TrimSuffix(file, ".toml")+".want", err.Error()+"\n")
		})
	}
}

// compare checks text against a golden file below the package's own folder.
func compare(t *testing.T, golden, got string) {
	t.Helper()
	golden = filepath.Join(packageDir, golden)
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("reported:\n%s\nwanted, by %s:\n%s", got, golden, want)
	}
}

// packageDir is where the test began, for a test that changes the folder.
var packageDir = func() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	return dir
}()

func TestTemplateLoads(t *testing.T) {
	for name, edit := range map[string]func(string) string{
		"as it stands": func(s string) string { return s },
		"with every line uncommented": func(s string) string {
			lines := strings.Split(s, "\n")
			for i, l := range lines {
				if bare, ok := strings.CutPrefix(l, "# "); ok && (strings.HasPrefix(bare, "[") || strings.Contains(bare, " = ") && strings.ToLower(bare[:1]) == bare[:1]) {
					lines[i] = bare
				}
			}
			return strings.Join(lines, "\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := load(t, edit(string(Template("/src/My Shop!"))))
			if p.Name != "my-shop" {
				t.Errorf("the name is %q", p.Name)
			}
			if name != "as it stands" && (len(p.Apps) != 2 || p.Egress != "none" || len(p.Apps[0].DependsOn) != 1) {
				t.Errorf("something did not come through: %+v", p)
			}
		})
	}
}

func ExampleErrors() {
	err := Errors{{File: "whisk.toml", Line: 3, Column: 1, Msg: `unknown key "port" in [app.web]`, Hint: `did you mean "ports"?`, Source: `port = ["80"]`}}
	fmt.Println(err)
	// Output:
	// whisk.toml:3:1: unknown key "port" in [app.web]
	//     port = ["80"]
	//     ^
	//     hint: did you mean "ports"?
}

func TestLoadTakesEgressFromTheNearest(t *testing.T) {
	const app = "[app.a]\nimage = 'x'\n"
	for _, c := range []struct{ name, text, option, want string }{
		{"nobody says", app, "", "all"},
		{"the user says", app, "none", "none"},
		{"the project says", app + "[network]\negress = 'all'\n", "none", "all"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := Load(write(t, map[string]string{FileName: c.text}), LoadOptions{Egress: c.option})
			if err != nil || p.Egress != c.want {
				t.Errorf("egress is %q, %v; want %q", p.Egress, err, c.want)
			}
		})
	}
}

// TestLoadOfManyFaults guards against work that grows with the square of a file's length: ten times the lines may take
// ten times as long, not a hundred times.
func TestLoadOfManyFaults(t *testing.T) {
	load := func(lines int) time.Duration {
		var text strings.Builder
		for i := range lines {
			fmt.Fprintf(&text, "unknown_%d = 1\n", i)
		}
		path := write(t, map[string]string{FileName: text.String()})
		least := time.Duration(math.MaxInt64)
		for range 3 { // the least is the one that other work on the machine disturbed least
			start := time.Now()
			_, err := Load(path, LoadOptions{})
			least = min(least, time.Since(start))
			if faults, ok := err.(Errors); !ok || len(faults) != lines+1 {
				t.Fatalf("%d faults are told, want one for each line and one for the missing app", len(faults))
			}
		}
		return least
	}
	few, many := load(5_000), load(50_000)
	if many > 40*few {
		t.Errorf("50,000 lines take %v, 5,000 take %v: %d times as long", many, few, many/few)
	}
}

func TestLoadRefusesFolderThatNamesNoProject(t *testing.T) {
	const app = "[app.web]\nimage = 'x'\n"
	long := strings.Repeat("d", 62)
	for folder, says := range map[string]string{"none": `called "none"`, long: "66 characters"} {
		for text, bad := range map[string]bool{app: true, "name = 'fine'\n" + app: false} {
			dir := filepath.Join(t.TempDir(), folder)
			file := filepath.Join(dir, FileName)
			if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
			_, err := Load(file, LoadOptions{})
			switch {
			case !bad && err != nil:
				t.Errorf("in folder %q, with a name in the file: %v", folder, err)
			case bad && (err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "at the top of the file")):
				t.Errorf("in folder %q: %v, want a word of %s", folder, err, says)
			}
		}
	}
}
