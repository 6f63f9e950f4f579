package launcher

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/whisk-sandbox/whisk/config"
)

// maxExposed bounds what an image can make whisk listen on; each port is a descriptor.
const maxExposed = 512

// ExposedPorts are those that an image says its app listens on (image-spec config.md, "ExposedPorts") and that asked does not
// publish already, each for a free port of the host's loopback. Both are in single ports.
func ExposedPorts(exposed map[string]struct{}, asked []config.Port) ([]config.Port, error) {
	out := slices.Clone(asked)
	for _, text := range slices.Sorted(maps.Keys(exposed)) {
		number, protocol, ok := strings.Cut(text, "/")
		if !ok {
			protocol = "tcp"
		}
		some, err := config.ParsePort(number + "/" + protocol)
		if err != nil || strings.Contains(number, ":") {
			return nil, &Error{Message: fmt.Sprintf("the image exposes a port that is none: %q", text), Hint: "publish its ports one by one: -p", Exit: ExitWhisk}
		}
		for i := range max(some.Count, 1) {
			p := some
			p.Count, p.Host, p.App = 1, 0, some.App+i
			if !slices.ContainsFunc(out, func(a config.Port) bool { return a.App == p.App && a.Protocol == p.Protocol }) {
				out = append(out, p)
			}
		}
	}
	if len(out) > maxExposed {
		return nil, &Error{Message: fmt.Sprintf("the image exposes %d ports, and so many are not published at once: %d are the most", len(out), maxExposed), Hint: "publish those that you need: -p", Exit: ExitWhisk}
	}
	return out, nil
}
