// Package terminal lends the caller's terminal to an app that runs on a pty of its sandbox.
//
// It is given the master of that pty and the caller's own input and output. It promises that every byte the app
// wrote is written out before Close returns, that the pty always has the size of the caller's terminal, and that
// the caller's terminal is left as it was found.
//
//	caller's terminal, raw ──▶ detach keys? ──▶ master ──▶ app
//	caller's output        ◀─────────────────── master ◀── app
//	SIGWINCH               ──▶ TIOCGWINSZ ────▶ TIOCSWINSZ
//
// The two ways are copied by a goroutine each, so that an app that does not read its input still has its output
// shown, and a caller's output that is stopped (ctrl-s) does not keep the detach keys from working. Both wait in
// poll(2) together with a pipe that Close hangs up: no read is ever left behind to eat the caller's next line.
package terminal
