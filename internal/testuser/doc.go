// Package testuser lets tests that need a real kernel run as an ordinary user even where the suite was started by
// root, as CI containers do: whisk must never lean on rights that its users do not have.
//
// A package's TestMain hands itself over:
//
//	func TestMain(m *testing.M) { os.Exit(testuser.Main(m)) }
//
// A package whose tests start hidden stages of whisk dispatches those first: a stage is root in its own user
// namespace, and must not be taken for a suite that root started.
//
// Started by root, the tests run in a copy of the binary as the user "whisktest":
//
//	go test (root) ── TestMain ── make the user once, copy the binary ──▶ test binary (whisktest) ── TestMain ── m.Run
//	                  pass signals on, bring profiles back, exit with its code
package testuser
