package attacks

// A Verdict is how an attack ended, in the words of docs/security.md. A test whose attack ends in another way fails, so that
// the verdict of a kind of test is that of all its attacks.
type Verdict string

// The verdicts.
const (
	Held     Verdict = "held; succeeds without the wall"
	Confined Verdict = "held; succeeds outside of the wall"
	Closed   Verdict = "refused, with the reason; starts where nothing is lacking"
	Degraded Verdict = "goes on without, and says so"
)

// A Kind is one of the scripts' commands that try an attack: "COMMAND NAME …".
type Kind struct {
	Verdict Verdict
	By      string // what holds the attack; empty: the command's second argument
	Usage   string
	Args    int // the least number of arguments
}

// Kinds are those commands.
func Kinds() map[string]Kind {
	return map[string]Kind{
		"attack":   {Verdict: Held, Usage: "NAME WALL CMD ARG...", Args: 3},
		"confined": {Verdict: Confined, Usage: "NAME WALL START OTHERWISE CMD ARG...", Args: 5},
		"closes":   {Verdict: Closed, By: "no start without what it needs", Usage: "NAME N REGEXP LACKING -- CMD ARG...", Args: 6},
		"degrades": {Verdict: Degraded, By: "what is said of a machine that lacks something", Usage: "NAME REGEXP CMD ARG...", Args: 3},
	}
}
