package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ParseTmpfs reads a tmpfs as docker's --tmpfs does: a target, then after a colon size=, mode= (octal), ro or rw,
// exec or noexec. As docker's, it is noexec without a word of it; nosuid and nodev change nothing: a tmpfs is both anyway.
func ParseTmpfs(s string) (Mount, error) {
	m, err := parseTmpfs(s)
	if err != nil {
		return Mount{}, fmt.Errorf("tmpfs %q: %w", clip(s), err)
	}
	return m, nil
}

func parseTmpfs(s string) (Mount, error) {
	if hasControl(s) {
		return Mount{}, errControl
	}
	target, options, hasOptions := strings.Cut(s, ":")
	m := Mount{Kind: MountTmpfs, NoExec: true}
	var err error
	if m.Target, err = mountTarget(target); err != nil || !hasOptions {
		return m, err
	}
	given := map[string]bool{}
	for option := range strings.SplitSeq(options, ",") {
		key, value, hasValue := strings.Cut(option, "=")
		if given[key] {
			return m, fmt.Errorf("%s is given twice", key)
		}
		given[key] = true
		switch {
		case key == "size" && hasValue:
			m.Size, err = tmpfsSize(value)
		case key == "mode" && hasValue:
			m.Mode, err = tmpfsMode(value)
		case option == "ro" || option == "rw":
			m.ReadOnly = option == "ro"
		case option == "exec" || option == "noexec":
			m.NoExec = option == "noexec"
		case option == "nosuid" || option == "nodev":
		default:
			err = fmt.Errorf("unknown option %q; want size=64m, mode=1777, ro, rw or noexec", clip(option))
		}
		if err != nil {
			return m, err
		}
	}
	switch {
	case given["ro"] && given["rw"]:
		return m, errors.New("it is both ro and rw")
	case given["exec"] && given["noexec"]:
		return m, errors.New("it is both exec and noexec")
	}
	return m, nil
}

func tmpfsSize(s string) (int64, error) {
	n, err := ParseSize(s)
	if err == nil && n == 0 {
		return 0, errors.New("size 0 holds nothing; leave it away for half of the memory")
	}
	return n, err
}

// tmpfsMode reads permission bits with setuid, setgid and sticky, chmod(1)'s octal form.
func tmpfsMode(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 8, 12)
	if err != nil || n == 0 || s[0] == '+' {
		return 0, fmt.Errorf("mode %q is not an octal number from 1 to 7777, such as 1777 or 0700", clip(s))
	}
	return uint32(n), nil
}
