package attacks

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAttacksNeedTheirWalls runs the attacks of the package image that name a wall against an image store without that
// wall. Each has to fail there, that is to say that the attack succeeds, or it would prove nothing. Scripts do so by
// themselves (the command attack), and so do the tests named in selfProving.
func TestAttacksNeedTheirWalls(t *testing.T) {
	selfProving := map[string]bool{"TestAttackLayerBomb": true}
	named := regexp.MustCompile(`(?m)^// Wall: (.+)\.\nfunc (TestAttack\w+)\(`)
	files, err := filepath.Glob(root + "/image/*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	tests := map[string][]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			if !selfProving[m[2]] {
				tests[m[1]] = append(tests[m[1]], m[2])
			}
		}
	}
	if len(tests) == 0 {
		t.Fatal("no attack names a wall")
	}
	for wall, names := range tests {
		t.Run(wall, func(t *testing.T) {
			cmd := exec.Command("go", "test", "-count=1", "-tags", "breach", "-v", "-run", "^("+strings.Join(names, "|")+")$", "./image")
			cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0", "WHISK_BREACH="+wall)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Errorf("every attack is still held")
			}
			verdicts := regexp.MustCompile(`(?m)^ *--- (\w+): (\S+)`).FindAllStringSubmatch(string(out), -1)
			for _, name := range names {
				seen := false
				for _, v := range verdicts {
					part := strings.HasPrefix(v[2], name+"/")
					if v[2] != name && !part {
						continue
					}
					if seen = true; v[1] != "FAIL" {
						t.Errorf("%s: %s without the wall: something else holds it", v[2], v[1])
					}
				}
				if !seen {
					t.Errorf("%s has not run:\n%s", name, out)
				}
			}
		})
	}
}
