// Package keeper is the process that holds one network and looks after the sandboxes on it, and the client that
// commands use to speak to it.
//
// A command finds a keeper by its network's name: the folder networks/NAME below the runtime directory holds
// `lock`, which the keeper locks with flock(2) for as long as it lives, and `control.sock`, a unix socket (mode
// 0600, peers of another uid refused) that speaks HTTP with JSON bodies. Requests that start something in the
// foreground carry descriptors (SCM_RIGHTS, unix(7)) with their first byte. Replies to long requests are a
// stream of events, one JSON document a line; the last is "done" or "error".
//
//	command                                   keeper
//	─────── POST /v1/run {spec} + fds ──────▶  mounts, network, process 1
//	◀────── {"type":"started",…}
//	◀────── {"type":"exited","code":0}         then takes the namespaces down, and leaves when nothing is left
//
// A foreground sandbox lives no longer than the connection that asked for it, so a killed command leaves nothing.
package keeper
