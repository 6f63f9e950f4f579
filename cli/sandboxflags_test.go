package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/whisk-sandbox/whisk/config"
)

// at is where the command lines of these tests are typed.
func at(env map[string]string, files map[string]string) surroundings {
	return surroundings{
		dir: "/home/ann/shop", home: "/home/ann",
		lookup: func(key string) (string, bool) { v, ok := env[key]; return v, ok },
		readFile: func(name string) ([]byte, error) {
			text, ok := files[name]
			if !ok {
				return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
			}
			return []byte(text), nil
		},
	}
}

// TestSpecOfFlags holds what docker's and podman's words ask of a keeper. The golden file is written anew by
// -update, and reviewed.
func TestSpecOfFlags(t *testing.T) {
	env := map[string]string{"TOKEN": "s3cret", "TZ": "Asia/Tokyo"}
	files := map[string]string{"/home/ann/shop/app.env": "# comment\nA=1\nTZ\nQ=\"kept\"\n", "/etc/profile.json": `{"defaultAction":"SCMP_ACT_ALLOW"}`}
	var got bytes.Buffer
	for _, line := range []string{
		"run busybox",
		"run -it --rm busybox ls -l --color",
		"run -d --name web -p 8080:80 -p 127.0.0.1:0:443/tcp -p [::1]:53:53/udp -p 9000-9002:9000-9002 nginx",
		"run -e A=B -e TOKEN -e UNSET --env-file app.env --env=C=D -l k=v -l bare busybox",
		"run -v ./site:/site:ro -v ~/notes:/notes -v cache:/cache -v /anon --mount type=bind,src=/etc/hosts,dst=/h,readonly --tmpfs /tmp:size=64m,mode=1777 --read-only busybox",
		"run -u 1000:1000 -w /srv -h box --entrypoint sh busybox -c true",
		"run --entrypoint= busybox true",
		"run --entrypoint /bin/sh busybox",
		"run --network none --init=false --stop-signal quit --stop-timeout 3 --restart on-failure:5 busybox",
		"run --network shop --network-alias cart --add-host db:10.0.0.1 --add-host gw:host-gateway --egress none busybox",
		"run --egress api.example.com,*.Example.org:443 --egress udp://192.0.2.53:53 --host-port 5432 busybox",
		"run --network shop busybox",
		"run --network shop --link db --link cache busybox",
		"run --cap-add net_admin --cap-drop ALL --ulimit nofile=1024:2048 --ulimit core=-1 -m 512m --cpus 1.5 --pids-limit 100 busybox",
		"run --pids-limit -1 --memory 0 busybox",
		"run --security-opt no-new-privileges --security-opt seccomp=unconfined busybox",
		"run --security-opt no-new-privileges:false --security-opt seccomp=/etc/profile.json --platform linux/arm64 busybox",
		"run --rm host make -C /src",
	} {
		cmd, _, err := parse(strings.Fields(line), settings(&config.User{}))
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		run, ok := cmd.(*runCmd)
		if !ok {
			t.Fatalf("%s: is a %T", line, cmd)
		}
		spec, err := run.spec("0123456789ab", at(env, files))
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		fmt.Fprintf(&got, "whisk %s\n%s\n\n", line, lean(t, spec))
	}
	golden(t, "testdata/specs.golden", got.String())
}

// lean is a document as JSON without what is zero.
func lean(t *testing.T, doc any) []byte {
	t.Helper()
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber() // no limit is 2⁶⁴-1
	if err := dec.Decode(&tree); err != nil {
		t.Fatal(err)
	}
	var prune func(v any) (kept any, zero bool)
	prune = func(v any) (any, bool) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				if value != nil && (key == "Init" || key == "Labels") {
					continue // false and empty are not the same as none
				}
				kept, zero := prune(value)
				if v[key] = kept; zero {
					delete(v, key)
				}
			}
			return v, len(v) == 0
		case []any: // an empty list is not the same as none
			for i := range v {
				v[i], _ = prune(v[i])
			}
			return v, false
		}
		return v, v == nil || v == "" || v == json.Number("0") || v == false
	}
	tree, _ = prune(tree)
	b, err = json.MarshalIndent(tree, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// golden compares with a file, or writes it when -update is given.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range min(len(gotLines), len(wantLines)) {
		if gotLines[i] != wantLines[i] {
			t.Fatalf("%s:%d: got %q, want %q; -update writes it anew", file, i+1, gotLines[i], wantLines[i])
		}
	}
	t.Fatalf("%s: got %d lines, want %d; -update writes it anew", file, len(gotLines), len(wantLines))
}

func TestFlagsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"run", "an image is missing"},
		{"run --name a/b img", `--name: name "a/b"`},
		{"run -w src img", `--workdir: "src" is not an absolute path`},
		{"run --env-file none img", "--env-file: open /home/ann/shop/none"},
		{"run -e =x img", "--env: "},
		{"run -p 80:99999 img", "--publish: "},
		{"run --network host img", `--network: "host" is not offered`},
		{"run --network container:x img", `--network: "container:x" is not offered`},
		{"run --network none -p 80:80 img", "--publish: a sandbox with --network none"},
		{"run -h -x- img", "--hostname: "},
		{"run --network-alias a..b img", "--network-alias: "},
		{"run --add-host a img", "--add-host: "},
		{"run -v a:b:c:d img", "--volume: "},
		{"run --mount type=nfs,dst=/x img", "--mount: "},
		{"run --tmpfs rel img", "--tmpfs: "},
		{"run --cap-add FLY img", "--cap-add: "},
		{"run --cap-drop FLY img", "--cap-drop: "},
		{"run --security-opt apparmor=x img", `--security-opt: "apparmor=x" is not known`},
		{"run --security-opt no-new-privileges=maybe img", `--security-opt: "no-new-privileges=maybe" is not known`},
		{"run --security-opt seccomp=gone.json img", "--security-opt: seccomp profile: open /home/ann/shop/gone.json"},
		{"run -m 1k img", "--memory: "},
		{"run --cpus many img", "--cpus: "},
		{"run --pids-limit -2 img", "--pids-limit: -2 is below -1"},
		{"run --ulimit x=1 img", "--ulimit: "},
		{"run --stop-signal JUMP img", "--stop-signal: "},
		{"run --stop-timeout -2 img", "--stop-timeout: "},
		{"run --restart often img", "--restart: "},
		{"run --restart always --rm img", "--restart and --rm exclude each other"},
	} {
		t.Run(c.in, func(t *testing.T) {
			cmd, _, err := parse(strings.Fields(c.in), settings(&config.User{}))
			if err == nil {
				run, ok := cmd.(*runCmd)
				if !ok {
					t.Fatalf("is a %T", cmd)
				}
				_, err = run.spec("0123456789ab", at(nil, nil))
			}
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v, want %s…", err, c.want)
			}
		})
	}
}
