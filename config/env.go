package config

import (
	"errors"
	"fmt"
	"strings"
)

// ParseEnv reads an environment entry as docker's -e does: KEY=VALUE, or KEY alone for the value that lookup finds.
// It returns KEY=VALUE, or KEY when that stands alone and is not set, which takes away the image's own, as with docker.
func ParseEnv(s string, lookup Lookup) (entry string, err error) {
	key, value, given := strings.Cut(s, "=")
	if err := envKey(key); err != nil {
		return "", err
	}
	if !given {
		if lookup != nil {
			value, given = lookup(key)
		}
		if !given {
			return key, nil
		}
	}
	if err := envValue(key, value); err != nil {
		return "", err
	}
	return key + "=" + value, nil
}

// envKey is lenient about letters, as execve(2) is; a key with a blank is a slip of the pen.
func envKey(key string) error {
	switch {
	case key == "":
		return errors.New("environment variable without a name; want KEY=VALUE")
	case hasControl(key) || strings.ContainsAny(key, " ="):
		return fmt.Errorf("environment variable %q: a name holds no blank, = or control character", clip(key))
	}
	return nil
}

func envValue(key, value string) error {
	if strings.IndexByte(value, 0) >= 0 {
		return fmt.Errorf("environment variable %q: a value cannot hold a zero byte", clip(key))
	}
	return nil
}

// ParseLabel reads a label as docker's --label does: key=value, or key alone for an empty value.
func ParseLabel(s string) (key, value string, err error) {
	key, value, _ = strings.Cut(s, "=")
	switch {
	case key == "":
		return "", "", errors.New("label without a name; want key=value")
	case hasControl(key) || hasControl(value):
		return "", "", fmt.Errorf("label %q holds a control character or bytes that are not UTF-8", clip(key))
	}
	return key, value, nil
}
