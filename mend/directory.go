package mend

import "fmt"

// InstallGetsubids is the line that installs getsubids(1), through which a directory service is asked.
func (d Distro) InstallGetsubids() string { return d.Install(Getsubids) }

// DirectoryRange tells how a directory service comes to have a range for a user; source is its name in nsswitch.conf(5).
// usermod(8) would write it into files that nobody reads.
func (d Distro) DirectoryRange(source, user string, count uint64) string {
	ask := fmt.Sprintf("have whoever keeps the directory give %s a range of %d ids", user, count)
	if source == "sss" {
		ask += " (FreeIPA: ipa subid-generate --owner=" + Quote(user) + ")"
	}
	return ask + "; it is there when this shows it: getsubids " + Quote(user)
}

// DirectoryAnswer tells how to find out why a directory service does not answer.
func (d Distro) DirectoryAnswer(source, user string) string {
	if source == "sss" {
		return "see what it says: getsubids " + Quote(user) + "; where SSSD is down: " + d.Root("systemctl restart sssd")
	}
	return "see what it says: getsubids " + Quote(user)
}
