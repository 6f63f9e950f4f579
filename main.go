// Command whisk runs apps from container images as an ordinary user: no root, no daemon. See README.md.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"go.podman.io/storage/pkg/reexec"

	"github.com/whisk-sandbox/whisk/cli"
	"github.com/whisk-sandbox/whisk/demo"
	"github.com/whisk-sandbox/whisk/doctor"
	_ "github.com/whisk-sandbox/whisk/internal/prefault"
	"github.com/whisk-sandbox/whisk/launcher"
	keeperstage "github.com/whisk-sandbox/whisk/launcher/keeper"
	"github.com/whisk-sandbox/whisk/launcher/keeper/early"
)

// Set by the linker, for a release from its tag and commit.
var (
	version = "dev"
	commit  string
	date    string // RFC 3339
)

// startup is what a process of whisk has for what it does in a moment, without collecting garbage as often as Go does (package
// prefault). What goes on after that collects as Go does; a keeper knows when.
const startup = 200 * time.Millisecond

func main() { os.Exit(run()) }

// run dispatches the hidden stages, by the name this process was started with, before anything else.
func run() int {
	if os.Args[0] == keeperstage.StageName {
		return keeperstage.Main()
	}
	time.AfterFunc(startup, func() { debug.SetGCPercent(100) })
	if reexec.Init() { // a helper of the image store
		return 0
	}
	switch os.Args[0] {
	case cli.StageName:
		return cli.StageMain()
	case doctor.StageName:
		return doctor.StageMain()
	}
	if len(os.Args) == 2 && (os.Args[1] == demo.StageWeb || os.Args[1] == demo.StageStore) {
		if err := demo.Run(context.Background(), os.Args[1], os.Getenv); err != nil {
			fmt.Fprintln(os.Stderr, "whisk:", err)
			return 1
		}
		return 0
	}
	if err := early.LeaveSpare(); err != nil {
		fmt.Fprintln(os.Stderr, "whisk:", err)
		return launcher.ExitWhisk
	}
	defer early.Leave() // one that was not needed was still killed
	return cli.Main(context.Background(), cli.Invocation{
		Version: version, Commit: commit, Date: date, Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	})
}
