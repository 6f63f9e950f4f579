// Package imports holds no code, only the test that keeps whisk's rooms apart: which of them may import which, and
// which packages none of them may. The drawing it enforces:
//
//	main ──▶ cli ──▶ doctor ──▶ launcher ──▶ image, slirp, userns
//	          └───▶ demo         (everyone ──▶ config, mend)
//
// Arrows that go the other way, or between two rooms of the right-hand side, would make a room useless without
// the others: slirp is to be tested with two bare network namespaces and no sandbox.
package imports
