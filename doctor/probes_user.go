package doctor

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/whisk-sandbox/whisk/remedy"
	"github.com/whisk-sandbox/whisk/userns"
)

func versions(v View) []Finding {
	name := v.system().Name
	if name == "" {
		name = "a distribution without os-release(5)"
	}
	return []Finding{ok("versions", fmt.Sprintf("whisk %s on %s, Linux %s, %s", v.Whisk, name, v.Kernel, v.Arch))}
}

// fromError is a finding in the words of the error that other commands give.
func fromError(name string, err error) Finding {
	e, is := errors.AsType[*userns.Error](err)
	if !is {
		return problem(name, err.Error(), remedy.Fix{})
	}
	f := problem(name, e.Error(), e.Fix)
	f.Cause = string(e.Cause)
	return f
}

func userNamespaces(v View) []Finding {
	const name = "user namespaces"
	if v.Refusal != nil {
		return []Finding{fromError(name, v.Machine.Explain(v.Refusal))}
	}
	if v.Inside == nil && v.Entry != "" {
		return []Finding{problem(name, "one can be made and not entered: "+v.Entry, remedy.Fix{})}
	}
	found := "can be made"
	if n := v.sysctl("user/max_user_namespaces"); n != "" {
		found += ", at most " + n
	}
	if v.sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1" {
		found += "; AppArmor restricts them and lets whisk have them"
	}
	if v.exists("run/.containerenv") || v.exists(".dockerenv") {
		found += "; inside another container"
	}
	return []Finding{ok(name, found)}
}

func subIDs(v View) []Finding {
	const name = "sub-ids"
	m, err := v.Machine.Find(v.User)
	if err != nil {
		if e, is := errors.AsType[*userns.Error](err); is && e.Cause == userns.CauseHelperPowerless {
			return []Finding{fromError("id helpers", err)}
		}
		return []Finding{fromError(name, err)}
	}
	if m.Why != nil {
		thing := name
		if m.Why.Cause == userns.CauseHelperMissing {
			thing = "id helpers"
		}
		f := note(thing, m.Why.What, m.Why.Cost, m.Why.Fix)
		f.Cause = string(m.Why.Cause)
		all := []Finding{f}
		if m.Why.Cause == userns.CauseNoRange && v.User.UID != 0 && !helpers(v) {
			// The map's plan stops at the first thing that it lacks; whoever mends the one wants to know of the other.
			f := note("id helpers", "newuidmap or newgidmap is not installed", "sub-ids, once there are some, without them", v.system().Helpers())
			f.Cause = string(userns.CauseHelperMissing)
			all = append(all, f)
		}
		return all
	}
	var ranges []string
	for _, r := range m.UIDs[1:] {
		ranges = append(ranges, fmt.Sprintf("%d-%d", r.Outside, uint64(r.Outside)+uint64(r.Size)-1))
	}
	all := []Finding{ok(name, strings.Join(ranges, ", ")+" for "+who(v.User))}
	if v.User.UID != 0 && v.Machine.Helper != nil {
		for _, helper := range []string{"newuidmap", "newgidmap"} {
			h := v.Machine.Helper(helper)
			power := "setuid root"
			if !h.Setuid {
				power = "with file capabilities"
			}
			all = append(all, ok(helper, h.Path+", "+power))
		}
	}
	return all
}

func helpers(v View) bool {
	return v.Machine.Helper != nil && v.Machine.Helper("newuidmap").Path != "" && v.Machine.Helper("newgidmap").Path != ""
}

func who(u userns.User) string {
	if u.Name != "" {
		return u.Name
	}
	return strconv.FormatUint(uint64(u.UID), 10)
}

// line is one of subuid(5).
type line struct {
	owner       string
	start, size uint64
}

// clash looks for ids that this user and another were both given: each could then reach into the other's sandboxes.
func clash(v View) []Finding {
	if v.User.UID == 0 {
		return nil
	}
	var all []Finding
	for _, file := range []string{"etc/subuid", "etc/subgid"} {
		var mine, others []line
		for l := range strings.Lines(v.read(file)) {
			f := strings.Split(strings.TrimSpace(l), ":")
			if len(f) != 3 || strings.HasPrefix(f[0], "#") {
				continue
			}
			start, err1 := strconv.ParseUint(f[1], 10, 32)
			size, err2 := strconv.ParseUint(f[2], 10, 32)
			if err1 != nil || err2 != nil {
				continue
			}
			e := line{f[0], start, size}
			if f[0] == v.User.Name || f[0] == strconv.FormatUint(uint64(v.User.UID), 10) {
				mine = append(mine, e)
			} else {
				others = append(others, e)
			}
		}
		for _, m := range mine {
			for _, o := range others {
				if from, to := max(m.start, o.start), min(m.start+m.size, o.start+o.size); from < to {
					all = append(all, note("sub-ids", fmt.Sprintf("/%s gives %d-%d to both %s and %s", file, from, to-1, m.owner, o.owner),
						fmt.Sprintf("%s can reach what your sandboxes write, and you what theirs do", o.owner),
						remedy.Fix{Line: "sudoedit /" + file + ", and give one of the two another range; images are to be pulled again after that"}))
				}
			}
		}
	}
	return all
}
