//go:build vm

package vm

import "time"

// scripts are the end-to-end scripts of these names, each a step, as they run on the machine that builds: by their test's own
// binary, with programs built before (makeScripts). Those that need a registry, an internet, root or Python are not for here.
func scripts(test string, names ...string) []step {
	env := "export WHISK_TEST_BINARY=$PWD/whisk WHISK_TEST_BREACH=$PWD/breach/whisk WHISK_TEST_IMAGES=/mnt/test/images USER=dev"
	if test == "TestOneID" {
		env += " WHISK_TEST_ONE_ID=1"
	}
	var steps []step
	for _, name := range names {
		steps = append(steps, step{
			name: test + "/" + name, limit: 15 * time.Minute, want: "--- PASS: " + test + "/" + name,
			script: "cd /mnt/test/e2e && " + env + "\n./main.test -test.v -test.timeout 14m -test.run '^" + test + "$/^" + name + "$' >/tmp/said 2>&1\ncode=$?; tail -c 6000 /tmp/said; exit $code",
		})
	}
	return steps
}

// everyCommit are the scripts that every commit runs on Debian as it is installed.
func everyCommit() []step { return scripts("TestScripts", "run", "volume", "up", "attack-cgroup") }

// rest are those that only vmtest-all runs. Scripts that want other programs' word, such as skopeo's, stay outside: a stock Debian
// has none of them.
func rest() variant {
	return variant{name: "scripts", memory: 2048, steps: scripts("TestScripts",
		"run_files", "run_init", "run_rights", "run_logs", "run_host", "up_shop", "detached", "network_project", "cp")}
}
