package slirp

import (
	"testing"
)

// TestTheKernelCarriesTCP guards against falling back in silence: this machine has what the fast path needs.
func TestTheKernelCarriesTCP(t *testing.T) {
	inet := internet(t)
	n := newNetwork(t)
	app, _ := newSandbox(t, n, "web")
	for _, a := range []string{inetV4, inetV6} {
		c := app.mustDial("tcp", at(a, portOf(inet.echoTCP("tcp", at(a, 0)))))
		roundTrip(t, c, []byte("x"))
	}
	if _, ok := n.gate.tcp.carrier.(*kernelTCP); !ok {
		t.Fatalf("TCP is carried by %T, want the kernel", n.gate.tcp.carrier)
	}
}
