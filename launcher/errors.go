package launcher

import "errors"

// Exit codes of whisk itself, as docker-run(1) and podman-run(1) define them.
const (
	ExitWhisk         = 125 // whisk failed
	ExitNotExecutable = 126 // the command was found and could not be executed
	ExitNotFound      = 127 // the command was not found
)

// Error is a fault that a person can act on. It crosses the control socket as JSON.
type Error struct {
	Message string   `json:"message"`          // one line, lower case: what was wrong and where
	Hint    string   `json:"hint,omitempty"`   // one line: what to type
	Exit    int      `json:"exit"`             // ExitWhisk, ExitNotExecutable or ExitNotFound
	Kind    string   `json:"kind,omitempty"`   // one of the Kind constants where a caller decides on it
	Images  []Wanted `json:"images,omitempty"` // KindImageMissing: what to pull
}

// Wanted is an image that an app asks for.
type Wanted struct {
	Image    string `json:"image"`
	Platform string `json:"platform,omitempty"` // empty: this machine's
}

// Kinds of errors that callers decide on.
const (
	KindImageMissing = "image-missing" // Images lists what to pull
	KindNotFound     = "not-found"     // no such sandbox
	KindOlderRuns    = "older-runs"    // sandboxes of an earlier whisk must be stopped first
	KindWithheld     = "withheld"      // the container or service around whisk refuses what a sandbox is built with
	KindLeaving      = "leaving"       // the keeper is on its way out: connect again
)

// Error implements error.
func (e *Error) Error() string { return e.Message }

// AsError turns any error into an *Error with ExitWhisk, keeping the hint of one that has a Hint method.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		if err == error(e) {
			return e
		}
		wrapped := *e
		wrapped.Message = err.Error()
		return &wrapped
	}
	e := &Error{Message: err.Error(), Exit: ExitWhisk}
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		e.Hint = h.Hint()
	}
	return e
}
