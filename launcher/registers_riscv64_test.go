package launcher

import "testing"

// interrupt makes of a call that is set up one that a kernel before 6.5 has interrupted.
func interrupt(r *registers, _ *idNotice) {
	r.Pc += uint64(len(syscallWord))
	r.A0 = ^uint64(-restartCall - 1)
}

// TestInterruptedCallOfLaterKernels: since 6.5 it is set up anew when it is seen.
func TestInterruptedCallOfLaterKernels(t *testing.T) {
	n := &idNotice{number: 7, args: [6]uint64{1}}
	var r registers
	r.setCall(64, 7, n.args)
	if at, ok := r.interrupted(n); !ok || at != 64 {
		t.Errorf("interrupted at %d, %v, want 64", at, ok)
	}
}
