// Command agent runs inside the virtual machine of whisk's test, as root, and does what the test asks for.
//
// Requests and replies are JSON documents, one a line, on a virtio-serial port (name: whisk). A request's script
// is run by sh, as root in the agent's service or as dev in a login session of its own.
//
// As "agent lan ADDRESS" it is the local network's one server: of names, which all stand for its address, and of a page.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// port is where udev links the port that qemu calls "whisk".
const port = "/dev/virtio-ports/whisk"

// Request asks for a script to be run.
type Request struct {
	ID      int     `json:"id"`
	As      string  `json:"as"`      // root or dev
	Script  string  `json:"script"`  // for sh
	Seconds float64 `json:"seconds"` // after these it is killed
}

// Reply says how a script ended.
type Reply struct {
	ID     int    `json:"id"`
	Exit   int    `json:"exit"` // -1: did not start, or was killed by a signal
	Output string `json:"output"`
	Error  string `json:"error,omitempty"`
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "lan" {
		fmt.Fprintln(os.Stderr, "agent:", serveLAN(os.Args[2]))
		os.Exit(1)
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

func serve() error {
	f, err := os.OpenFile(port, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("opening the port: %w", err)
	}
	defer f.Close()
	out := json.NewEncoder(f)
	if err := out.Encode(Reply{Output: "ready"}); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			time.Sleep(100 * time.Millisecond) // nobody at the other end: virtio-serial reads as at its end
			continue
		}
		var r Request
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("reading a request: %w", err)
		}
		if err := out.Encode(run(r)); err != nil {
			return fmt.Errorf("replying: %w", err)
		}
	}
}

// run writes the script to a file: su(1) passes one argument on, through another shell.
func run(r Request) Reply {
	reply := Reply{ID: r.ID, Exit: -1}
	name := fmt.Sprintf("/tmp/step-%d.sh", r.ID)
	if err := os.WriteFile(name, []byte(r.Script), 0o644); err != nil {
		reply.Error = err.Error()
		return reply
	}
	defer os.Remove(name)
	args := []string{"/bin/sh", name}
	if r.As == "dev" {
		args = []string{"/bin/su", "-l", "dev", "-c", "exec sh " + name}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.Seconds*float64(time.Second)))
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = time.Second // a sandbox in the background may hold the output open
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	reply.Output = output.String()
	switch {
	case ctx.Err() != nil:
		reply.Error = fmt.Sprintf("took longer than %.0f s", r.Seconds)
	case errors.Is(err, exec.ErrWaitDelay):
		reply.Exit = 0
	case cmd.ProcessState != nil:
		reply.Exit = cmd.ProcessState.ExitCode()
	default:
		reply.Error = err.Error()
	}
	return reply
}
