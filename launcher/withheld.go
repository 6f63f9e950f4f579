package launcher

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/mend"
)

// withheld words the kernel's answer to a step that every sandbox is built with. A refusal is that of whatever whisk itself
// runs in, a container or a service, and says what loosens it; any other answer is the error as it stands.
func withheld(what string, err error) error {
	for _, no := range []unix.Errno{unix.EPERM, unix.EACCES, unix.ENOSYS} {
		if errors.Is(err, no) {
			container := mend.Container(os.DirFS("/"), os.Getenv("KUBERNETES_SERVICE_HOST") != "") != ""
			return &Error{Message: fmt.Sprintf("%s: %v", what, err), Hint: mend.More(mend.Loosen(container)), Kind: KindWithheld, Exit: ExitWhisk}
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}
