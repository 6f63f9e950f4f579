// Package remedy holds the words for what mends a machine: the exact command to type on the distribution that this is,
// and the same as lines of a script for root. It is given os-release(5) and decides nothing else: what is wrong is found
// in userns and doctor, which share these words so that an error and `whisk doctor` say the same.
package remedy

// More is the command that says everything there is to say about the machine.
const More = "whisk doctor"

// Hint ends an error's hint with the way to all the rest.
func Hint(line string) string {
	if line == "" {
		return More
	}
	return line + "; more: " + More
}
