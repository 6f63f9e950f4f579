package keeper

import (
	"time"

	"github.com/whisk-sandbox/whisk/launcher"
)

// Event is one line of a keeper's reply.
type Event struct {
	Type  string          `json:"type"`            // one of the Event constants
	App   string          `json:"app,omitempty"`   // the app's name, in a project
	ID    string          `json:"id,omitempty"`    // the sandbox
	Exec  string          `json:"exec,omitempty"`  // the further command, for SignalExec
	Text  string          `json:"text,omitempty"`  // for a person
	Code  int             `json:"code,omitempty"`  // EventExited: the exit code
	IPv4  string          `json:"ipv4,omitempty"`  // up's EventStarted: the address of the sandbox; empty: it has none
	Error *launcher.Error `json:"error,omitempty"` // EventError
	// Ports are set with EventPublished, EventUnpublished and up's EventStarted.
	Ports []launcher.PublishedPort `json:"ports,omitempty"`
	// Network is set with EventNetwork.
	Network *NetworkInfo `json:"network,omitempty"`
}

// The types of events.
const (
	EventStarted     = "started"     // the app runs
	EventWaiting     = "waiting"     // an app waits for others to be ready; Text says which
	EventReady       = "ready"       // the app is ready
	EventExited      = "exited"      // the app has ended; Code is set
	EventStopped     = "stopped"     // stop or down has ended the app
	EventRemoved     = "removed"     // the sandbox is forgotten
	EventWarning     = "warning"     // Text says what was given up; said once
	EventKept        = "kept"        // up: the app runs already, unchanged
	EventNetwork     = "network"     // what the network is like
	EventPublished   = "published"   // Ports are published now
	EventUnpublished = "unpublished" // Ports are no longer
	EventError       = "error"       // the request has failed; last event
	EventDone        = "done"        // the request has been carried out; last event
)

// UpRequest asks for the sandboxes of a project.
type UpRequest struct {
	// Specs are in dependency order or not: the keeper sorts by DependsOn.
	Specs []launcher.Spec `json:"specs"`
	// Attach keeps the request open until all of them have ended or the connection does; the latter stops them.
	// Without it the reply ends when all are ready, and a connection that ends before stops what it started.
	Attach bool `json:"attach"`
	// Recreate starts apps anew that run already and whose spec has not changed; changed ones always are.
	Recreate bool `json:"recreate,omitempty"`
}

// DownRequest asks a keeper to end sandboxes. It is carried out even if the client goes away.
type DownRequest struct {
	IDs []string `json:"ids,omitempty"` // empty: all
	// Coming keeps those of IDs that are not there yet from ever starting: an up that is under way may be about to.
	Coming bool `json:"coming,omitempty"`
	// Timeout replaces each sandbox's own stop timeout; nil keeps it, and a negative one never ends.
	Timeout *time.Duration `json:"timeout,omitempty"`
	Remove  bool           `json:"remove"`  // forget them afterwards
	Volumes bool           `json:"volumes"` // and remove their anonymous volumes, which stay otherwise
}
