package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ParseSize reads a number of bytes: digits with an optional fraction and an optional unit b, k, m, g, t or p in
// either case, also written kb or KiB. Units are powers of 1024 in all three spellings, as docker reads them.
func ParseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "bBiIkKmMgGtTpP ")
	unit := strings.ToLower(strings.TrimLeft(s[len(digits):], " "))
	shift, ok := 0, true
	switch unit {
	case "", "b":
	default:
		shift = 10 * (strings.IndexByte("kmgtp", unit[0]) + 1)
		rest := unit[1:]
		ok = shift > 0 && (rest == "" || rest == "b" || rest == "ib")
	}
	if !ok || !isDecimal(digits) {
		return 0, fmt.Errorf("size %q is not a number of bytes, such as 512m or 1.5g", clip(s))
	}
	if whole, err := strconv.ParseUint(digits, 10, 63); err == nil && whole <= math.MaxInt64>>shift {
		return int64(whole) << shift, nil
	}
	f, err := strconv.ParseFloat(digits, 64)
	f *= float64(uint64(1) << shift)
	if err != nil || f >= math.MaxInt64 {
		return 0, fmt.Errorf("size %q is too large", clip(s))
	}
	return int64(f), nil
}

// SizeText writes a number of bytes as ParseSize reads it, in the largest unit that leaves no fraction: 64m.
func SizeText(n int64) string {
	unit := 0
	for unit < len("kmgtp") && n != 0 && n%1024 == 0 {
		n, unit = n/1024, unit+1
	}
	if unit == 0 {
		return strconv.FormatInt(n, 10)
	}
	return strconv.FormatInt(n, 10) + "kmgtp"[unit-1:unit]
}

// minMemory is docker's least memory limit: below it a sandbox's init alone is killed.
const minMemory = 6 << 20

// ParseMemory reads a memory limit: a size of at least 6m, or 0 for none.
func ParseMemory(s string) (int64, error) {
	n, err := ParseSize(s)
	if err != nil {
		return 0, err
	}
	if n != 0 && n < minMemory {
		return 0, fmt.Errorf("memory limit %q is below 6m, too little for anything to start", clip(s))
	}
	return n, nil
}

// ParseMemorySwap reads a limit of memory and swap together, as docker has it: a size, 0 for twice the memory limit, or -1 for
// no limit of swap.
func ParseMemorySwap(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	return ParseSize(s)
}

// CheckMemorySwap refuses a limit of memory and swap together that leaves out the memory.
func CheckMemorySwap(memory, swap int64) error {
	switch {
	case swap > 0 && memory == 0:
		return errors.New("a limit of memory and swap together needs a memory limit, too")
	case swap > 0 && swap < memory:
		return fmt.Errorf("a limit of memory and swap together of %s is below the memory limit of %s", SizeText(swap), SizeText(memory))
	}
	return nil
}

// ParseCPUs reads a number of processors: a decimal number such as 1.5, or 0 for no limit.
func ParseCPUs(s string) (float64, error) {
	if !isDecimal(s) {
		return 0, fmt.Errorf("cpus %q is not a number, such as 1.5", clip(s))
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f > 1<<16 {
		return 0, fmt.Errorf("cpus %q is too large", clip(s))
	}
	if f != 0 && f < 0.01 {
		return 0, errors.New("cpus is below 0.01, the least that a control group can hold an app to")
	}
	return f, nil
}

// isDecimal reports whether s is digits with at most one dot among or before them; strconv also knows hexadecimal, inf and more.
func isDecimal(s string) bool {
	whole, fraction, _ := strings.Cut(s, ".")
	return whole+fraction != "" && strings.Trim(whole+fraction, "0123456789") == ""
}
