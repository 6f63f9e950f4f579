package config

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The real-time signals that the C library leaves to programs; signal(7).
const (
	sigRTMin = 34
	sigRTMax = 64
)

// ParseSignal reads a signal: a name in any case, with or without SIG, RTMIN+n, RTMAX-n, or a number from 1 to 64. It
// returns the name with SIG, and the number on this machine.
func ParseSignal(s string) (string, int, error) {
	fail := func() (string, int, error) {
		return "", 0, fmt.Errorf("signal %q: want a name such as TERM or SIGQUIT, or a number from 1 to %d", clip(s), sigRTMax)
	}
	if n, err := strconv.ParseUint(s, 10, 16); err == nil {
		if n < 1 || n > sigRTMax {
			return fail()
		}
		return signalName(int(n)), int(n), nil
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	switch name {
	case "SIGIOT":
		name = "SIGABRT"
	case "SIGCLD":
		name = "SIGCHLD"
	case "SIGPOLL":
		name = "SIGIO"
	}
	if n := unix.SignalNum(name); n != 0 {
		return name, int(n), nil
	}
	if n := realTime(name); n != 0 {
		return signalName(n), n, nil
	}
	return fail()
}

// realTime returns the number of SIGRTMIN, SIGRTMIN+n, SIGRTMAX or SIGRTMAX-n, or 0.
func realTime(name string) int {
	base, digits, sign := sigRTMin, "", 1
	if rest, ok := strings.CutPrefix(name, "SIGRTMIN"); ok {
		digits, ok = strings.CutPrefix(rest, "+")
		if !ok && rest != "" {
			return 0
		}
	} else if rest, ok := strings.CutPrefix(name, "SIGRTMAX"); ok {
		base, sign = sigRTMax, -1
		digits, ok = strings.CutPrefix(rest, "-")
		if !ok && rest != "" {
			return 0
		}
	} else {
		return 0
	}
	if name == "SIGRTMIN" || name == "SIGRTMAX" {
		return base
	}
	n, err := strconv.ParseUint(digits, 10, 8)
	if number := base + sign*int(n); err == nil && number >= sigRTMin && number <= sigRTMax {
		return number
	}
	return 0
}

// signalName returns the name of a number from 1 to 64. 32 and 33, which the C library keeps for itself, have only their number.
func signalName(n int) string {
	switch name := unix.SignalName(unix.Signal(n)); {
	case name != "":
		return name
	case n == sigRTMin:
		return "SIGRTMIN"
	case n == sigRTMax:
		return "SIGRTMAX"
	case n > sigRTMin && n <= (sigRTMin+sigRTMax)/2:
		return "SIGRTMIN+" + strconv.Itoa(n-sigRTMin)
	case n > sigRTMin:
		return "SIGRTMAX-" + strconv.Itoa(sigRTMax-n)
	}
	return strconv.Itoa(n)
}
