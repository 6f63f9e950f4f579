package config

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestParseMount(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     Mount
	}{
		{"absolute folder", "/srv:/data", Mount{Kind: MountBind, Source: "/srv", Target: "/data", Create: true}},
		{"relative folder", "./site:/data:ro", Mount{Kind: MountBind, Source: "/p/site", Target: "/data", ReadOnly: true, Create: true}},
		{"the folder itself", ".:/data", Mount{Kind: MountBind, Source: "/p", Target: "/data", Create: true}},
		{"folder above", "../x:/data", Mount{Kind: MountBind, Source: "/x", Target: "/data", Create: true}},
		{"home", "~:/data", Mount{Kind: MountBind, Source: "/home/u", Target: "/data", Create: true}},
		{"below home", "~/x:/data", Mount{Kind: MountBind, Source: "/home/u/x", Target: "/data", Create: true}},
		{"hidden file", "./.bashrc:/data", Mount{Kind: MountBind, Source: "/p/.bashrc", Target: "/data", Create: true}},
		{"volume", "pg.data-1:/data", Mount{Kind: MountVolume, Source: "pg.data-1", Target: "/data"}},
		{"volume with options", "v:/data:ro,nocopy,z", Mount{Kind: MountVolume, Source: "v", Target: "/data", ReadOnly: true, NoCopy: true}},
		{"anonymous volume", "/data", Mount{Kind: MountVolume, Target: "/data"}},
		{"unclean target", "v://data/./x/", Mount{Kind: MountVolume, Source: "v", Target: "/data/x"}},
		{"empty-handed rw", "v:/data:rw", Mount{Kind: MountVolume, Source: "v", Target: "/data"}},
		{"SELinux label", "/srv:/data:Z", Mount{Kind: MountBind, Source: "/srv", Target: "/data", Create: true}},
		{"blanks", "./my site:/my data", Mount{Kind: MountBind, Source: "/p/my site", Target: "/my data", Create: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseMount(c.in, "/p", "/home/u")
			if err != nil || got != c.want {
				t.Errorf("ParseMount(%q) = %+v, %v; want %+v", c.in, got, err, c.want)
			}
		})
	}
}

func TestParseMountRefuses(t *testing.T) {
	for _, c := range []struct{ name, in, says string }{
		{"nothing", "", "is empty"},
		{"folder alone", "./x", "the target is missing"},
		{"volume alone", "x", "the target is missing"},
		{"empty source", ":/x", "the source is empty"},
		{"empty target", "x:", "the target is empty"},
		{"relative target", "x:y", `"y" is not an absolute path`},
		{"the root", "x:/", "cannot be mounted over"},
		{"the root, hidden", "x:/./", "cannot be mounted over"},
		{"upwards", "x:/a/../b", ".. is not allowed"},
		{"path without ./", "a/b:/x", "./a/b"},
		{"another's home", "~bob:/x", "another user's home"},
		{"two accesses", "x:/x:ro,rw", "both ro and rw"},
		{"unknown option", "x:/x:readonly", `unknown option "readonly"`},
		{"option nearly right", "x:/x:nocpoy", `did you mean "nocopy"?`},
		{"empty option", "x:/x:", "an option is empty"},
		{"nocopy for a folder", "/x:/x:nocopy", "nocopy is for volumes"},
		{"propagation", "/x:/x:rshared", "not passed between"},
		{"too many parts", "a:/b:ro:c", "too many colons"},
		{"line end in target", "a:/b\nc", "control character"},
		{"line end in source", "/a\nb:/c", "control character"},
		{"not UTF-8", "a:/\xff", "not UTF-8"},
		{"bad volume name", "-v:/x", "must begin with a letter"},
	} {
		t.Run(c.name, func(t *testing.T) { refuses(t, c.in, c.says, second(ParseMount(c.in, "/p", "/home/u"))) })
	}
	t.Run("no home", func(t *testing.T) { refuses(t, "~/x:/x", "no home directory", second(ParseMount("~/x:/x", "/p", ""))) })
}

func TestParseMountFlag(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     Mount
	}{
		{"bind", "type=bind,src=/a,dst=/b", Mount{Kind: MountBind, Source: "/a", Target: "/b"}},
		{"long names", "type=bind,source=~/a,destination=/b,readonly", Mount{Kind: MountBind, Source: "/home/u/a", Target: "/b", ReadOnly: true}},
		{"ro=false", "type=bind,src=./a,target=/b,ro=false", Mount{Kind: MountBind, Source: "/p/a", Target: "/b"}},
		{"rw=false", "type=bind,src=/a,target=/b,rw=false", Mount{Kind: MountBind, Source: "/a", Target: "/b", ReadOnly: true}},
		{"colon in the path", "type=bind,src=/a:b,dst=/c:d", Mount{Kind: MountBind, Source: "/a:b", Target: "/c:d"}},
		{"comma in the path", `type=bind,"src=/a,b",dst=/c`, Mount{Kind: MountBind, Source: "/a,b", Target: "/c"}},
		{"a volume is the default", "src=v,dst=/b,volume-nocopy", Mount{Kind: MountVolume, Source: "v", Target: "/b", NoCopy: true}},
		{"anonymous volume", "dst=/b", Mount{Kind: MountVolume, Target: "/b"}},
		{"tmpfs", "type=tmpfs,dst=/b,tmpfs-size=64m,tmpfs-mode=0700,noexec", Mount{Kind: MountTmpfs, Target: "/b", Size: 64 << 20, Mode: 0o700, NoExec: true}},
		{"a tmpfs is noexec", "type=tmpfs,dst=/b", Mount{Kind: MountTmpfs, Target: "/b", NoExec: true}},
		{"tmpfs to execute from", "type=tmpfs,dst=/b,exec", Mount{Kind: MountTmpfs, Target: "/b"}},
		{"tmpfs, noexec=false", "type=tmpfs,dst=/b,noexec=false", Mount{Kind: MountTmpfs, Target: "/b"}},
		{"make the folder", "type=bind,src=/a,dst=/b,bind-create-src", Mount{Kind: MountBind, Source: "/a", Target: "/b", Create: true}},
		{"what changes nothing", "type=bind,src=/a,dst=/b,consistency=cached,bind-propagation=rprivate", Mount{Kind: MountBind, Source: "/a", Target: "/b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseMountFlag(c.in, "/p", "/home/u")
			if err != nil || got != c.want {
				t.Errorf("ParseMountFlag(%q) = %+v, %v; want %+v", c.in, got, err, c.want)
			}
		})
	}
}

func TestParseMountFlagRefuses(t *testing.T) {
	for _, c := range []struct{ name, in, says string }{
		{"nothing", "", "want key=value"},
		{"no target", "type=bind,src=/a", "the target is missing"},
		{"no source", "type=bind,dst=/a", "the source is missing"},
		{"unknown type", "type=devpts,dst=/a", "not bind, volume or tmpfs"},
		{"unknown key", "type=bind,scr=/a,dst=/b", "unknown key"},
		{"key nearly right", "type=tmpfs,dst=/b,tmpfs-sise=1m", `did you mean "tmpfs-size"?`},
		{"key twice", "src=a,source=b,dst=/c", "source is given twice"},
		{"volume of a path", "src=/a,dst=/b", "say type=bind"},
		{"bind of a word", "type=bind,src=a,dst=/b", "is not a path"},
		{"tmpfs with a source", "type=tmpfs,src=a,dst=/b", "has no source"},
		{"size of a volume", "src=a,dst=/b,tmpfs-size=1m", "not for type=volume"},
		{"nocopy of a bind", "type=bind,src=/a,dst=/b,volume-nocopy", "not for type=bind"},
		{"exec of a bind", "type=bind,src=/a,dst=/b,exec", "not for type=bind"},
		{"exec and noexec", "type=tmpfs,dst=/b,exec,noexec", "both exec and noexec"},
		{"both accesses", "src=a,dst=/b,ro,rw", "both readonly and rw"},
		{"bad boolean", "src=a,dst=/b,ro=maybe", "want true or false"},
		{"bad mode", "type=tmpfs,dst=/b,tmpfs-mode=999", "octal"},
		{"no value", "type=bind,src,dst=/b", "source has no value"},
		{"open quote", `type=bind,"src=/a,dst=/b`, "double quotes"},
	} {
		t.Run(c.name, func(t *testing.T) { refuses(t, c.in, c.says, second(ParseMountFlag(c.in, "/p", "/home/u"))) })
	}
}

func TestParseTmpfs(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     Mount
		says     string
	}{
		{name: "target alone", in: "/run", want: Mount{Kind: MountTmpfs, Target: "/run", NoExec: true}},
		{name: "size and mode", in: "/run:size=64m,mode=1777", want: Mount{Kind: MountTmpfs, Target: "/run", Size: 64 << 20, Mode: 0o1777, NoExec: true}},
		{name: "docker's example", in: "/run:rw,noexec,nosuid,size=65536k", want: Mount{Kind: MountTmpfs, Target: "/run", Size: 64 << 20, NoExec: true}},
		{name: "exec", in: "/run:exec", want: Mount{Kind: MountTmpfs, Target: "/run"}},
		{name: "relative", in: "run", says: "not an absolute path"},
		{name: "unknown option", in: "/run:uid=1", says: `unknown option "uid=1"`},
		{name: "empty size", in: "/run:size=", says: "not a number of bytes"},
		{name: "no size", in: "/run:size=0", says: "holds nothing"},
		{name: "mode zero", in: "/run:mode=0", says: "octal"},
		{name: "twice", in: "/run:size=1m,size=2m", says: "given twice"},
		{name: "both", in: "/run:ro,rw", says: "both ro and rw"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseTmpfs(c.in)
			if c.says != "" {
				refuses(t, c.in, c.says, err)
			} else if err != nil || got != c.want {
				t.Errorf("ParseTmpfs(%q) = %+v, %v; want %+v", c.in, got, err, c.want)
			}
		})
	}
}

func FuzzParseMount(f *testing.F) {
	for _, s := range []string{"./a:/b:ro", "~/a:/b", "v:/b:nocopy", "/b", "..:/b", "type=bind,src=/a,dst=/b,ro", `"src=a""b",dst=/c`, "/b:size=1m,mode=700,noexec", "type=tmpfs,dst=/b,tmpfs-size=1", "type=tmpfs,dst=/b,exec"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, parse := range map[string]func() (Mount, error){
			"-v":      func() (Mount, error) { return ParseMount(s, "/p", "/home/u") },
			"--mount": func() (Mount, error) { return ParseMountFlag(s, "/p", "/home/u") },
			"--tmpfs": func() (Mount, error) { return ParseTmpfs(s) },
		} {
			m, err := parse()
			if err != nil {
				if strings.ContainsAny(err.Error(), "\n\r") {
					t.Errorf("%s %q: the error has several lines: %q", name, s, err)
				}
				continue
			}
			if !filepath.IsAbs(m.Target) || filepath.Clean(m.Target) != m.Target || m.Target == "/" || hasControl(m.Target+m.Source) ||
				m.Kind == MountBind && (!filepath.IsAbs(m.Source) || filepath.Clean(m.Source) != m.Source) {
				t.Fatalf("%s %q is %+v, which cannot be", name, s, m)
			}
			again, err := ParseMountFlag(m.String(), "/elsewhere", "")
			if err != nil || again != m {
				t.Errorf("%s %q is %+v, but its own form %q is %+v, %v", name, s, m, m, again, err)
			}
		}
	})
}
