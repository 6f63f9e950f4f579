package launcher

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// identity is who a command runs as inside the sandbox.
type identity struct {
	uid, gid int
	groups   []int
	home     string
}

// maxDatabase bounds /etc/passwd and /etc/group of an image: they are strangers' files.
const maxDatabase = 4 << 20

// lookupIdentity resolves USER[:GROUP] in the root's user database. max is the highest id that the map has.
func lookupIdentity(r root, spec string, max int) (*identity, error) {
	who, err := findIdentity(r, spec, max)
	if err != nil && !wall.Up("checks of users") {
		return &identity{home: "/"}, nil
	}
	return who, err
}

// findIdentity is lookupIdentity, whose error nothing takes the place of.
func findIdentity(r root, spec string, max int) (*identity, error) {
	open := func(name string) (io.ReadCloser, error) {
		f, err := r.open(name, unix.O_RDONLY|unix.O_NONBLOCK)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				return io.NopCloser(eof{}), nil
			}
			return nil, err
		}
		if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
			f.Close()
			return nil, fmt.Errorf("%s in the image is not a file", name)
		}
		return f, nil
	}
	passwd, err := open("/etc/passwd")
	if err != nil {
		return nil, err
	}
	defer passwd.Close()
	group, err := open("/etc/group")
	if err != nil {
		return nil, err
	}
	defer group.Close()
	for _, c := range spec {
		if c < ' ' || c == 0x7f {
			return nil, &Error{Message: fmt.Sprintf("user %q contains a control character", spec), Exit: ExitWhisk}
		}
	}
	if strings.Count(spec, ":") > 1 { // the library takes 0:0:0 as 0:0
		return nil, &Error{Message: fmt.Sprintf("user %q is not USER or USER:GROUP", spec), Hint: "name a user of the image, or a number", Exit: ExitWhisk}
	}
	u, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, io.LimitReader(passwd, maxDatabase), io.LimitReader(group, maxDatabase))
	if err != nil {
		return nil, &Error{Message: fmt.Sprintf("cannot run as user %q: %v", spec, err), Hint: "name a user of the image, or a number", Exit: ExitWhisk}
	}
	for _, id := range append([]int{u.Uid, u.Gid}, u.Sgids...) {
		if id < 0 || id > max {
			return nil, &Error{Message: fmt.Sprintf("cannot run as user %q: id %d is not mapped in this user namespace", spec, id), Hint: "use an id between 0 and 65536", Exit: ExitWhisk}
		}
	}
	return &identity{uid: u.Uid, gid: u.Gid, groups: u.Sgids, home: u.Home}, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }
