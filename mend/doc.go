// Package mend holds the words for what a machine lacks: the command that mends it, as each distribution wants it
// typed. It is given os-release(5) and the names of things; it promises one line that a person can paste. All rooms
// that meet the machine take their remedies from here, so that an error and `whisk doctor` say the same.
package mend
