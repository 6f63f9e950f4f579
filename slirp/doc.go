// Package slirp is a user-mode network: a router namespace with a subnet, an address of each family for every sandbox,
// names, published ports, and a way out that passes one place. It needs no privilege on the host, no device file and no
// helper program. It is given network namespaces that somebody else made, in the user namespace of which the caller is
// root, and runs in the host's own network namespace, from which it dials and listens.
//
//	 sandbox          router namespace                        host's network namespace
//	┌───────┐  veth  ┌──────────────────────────────┐
//	│ eth0 ─┼────────┼─ app200 ┐                    │       ┌─────────────────────────┐
//	└───────┘        │         ├ routes ─ up ═ far ─┼─ AF_ ─┼▶ gate ─ decide ─┬─ TCP ──┼─▶ dials
//	┌───────┐        │         │              veth  │ PACKET│                 ├─ UDP ──┼─▶ sends
//	│ eth0 ─┼────────┼─ app201 ┘                    │       │                 └─ ping ─┼─▶ pings
//	└───────┘        │  lo: gateway ◀─ DNS ─────────┼───────┼─ nameServer ────────────┼─▶ the host's resolver
//	                 │              ◀─ connect ─────┼───────┼─ Published ◀────────────┼── listens
//	                 └──────────────────────────────┘       └─────────────────────────┘
//
// TCP is in that picture for its first packet only. kernelTCP leaves connections to the kernel, and loops join the halves;
// netstack, gVisor's stack, takes its place where the kernel cannot.
//
// What goes from app to app never leaves the kernel. What leaves the network is a flow, decided on by decide and nothing
// else, and dialled from the host, so that a change of the host's networks needs nothing here.
//
// Sockets are made on a thread that lives in the router namespace (thread) and used from anywhere. Where something can be
// decided without the kernel, it is a function from values to values: decide, routerPlan, parsePacket, portPlan,
// ChoosePrefixes, nameServer.answer, filterAnswer, sniff.
package slirp
