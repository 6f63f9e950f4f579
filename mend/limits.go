package mend

// descriptors is the hard limit of open files that systemd gives by itself.
const descriptors = "524288"

// Descriptors is the line that gives a user's logins more open files, and the file that it belongs into: of pam_limits(8), or on
// Alpine, which has no PAM, of OpenRC, whose services the logins come from.
func (d Distro) Descriptors(user string) (file, line string) {
	if d.Family == Alpine {
		return "/etc/rc.conf", `rc_ulimit="-n ` + descriptors + `"`
	}
	return "/etc/security/limits.conf", user + " hard nofile " + descriptors
}
