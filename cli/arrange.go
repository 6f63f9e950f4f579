package cli

import (
	"strings"

	"github.com/alecthomas/kong"
)

// arrange puts a command's arguments in the one order and form that kong reads as docker and podman read theirs:
// every flag long and with its value attached, flags before the rest. It differs from kong alone in these:
//
//	-p=80:80, -it=false   a value behind an equals sign, after short flags too
//	--env -x, -e --rm     a flag that takes a value takes the next argument, whatever it looks like
//	web -t 3 db           flags between arguments
//	IMAGE --rm            all behind the first argument of a command that passes arguments on belongs to the app
//
// Flags that the command does not have are left as they are: kong words the error. help tells that help was asked for.
func arrange(node *kong.Node, args []string) (ordered []string, help bool) {
	flags := flagsOf(node)
	passes := len(node.Positional) > 0 && node.Positional[len(node.Positional)-1].Passthrough
	var words []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--" && !passes:
			words = append(words, args[i+1:]...)
			i = len(args)
		case arg == "--":
		case arg == "--help":
			return nil, true
		case strings.HasPrefix(arg, "--"):
			name, _, hasValue := strings.Cut(arg[2:], "=")
			flag := flags["--"+name]
			if flag != nil && !flag.IsBool() && !hasValue && i+1 < len(args) {
				i++
				arg += "=" + args[i]
			}
			ordered = append(ordered, arg)
		case len(arg) > 1 && arg[0] == '-':
			long, takesNext, wantsHelp := spread(flags, arg[1:])
			if wantsHelp {
				return nil, true
			}
			if takesNext && i+1 < len(args) {
				i++
				long[len(long)-1] += "=" + args[i]
			}
			ordered = append(ordered, long...)
		case passes:
			return append(append(ordered, arg), args[i+1:]...), false
		default:
			words = append(words, arg)
		}
	}
	if len(words) > 0 && !passes {
		ordered = append(append(ordered, "--"), words...)
	}
	return ordered, false
}

// spread writes a cluster of short flags ("it", "p8080:80", "e=A=b") as long ones. takesNext says that the last of
// them still lacks its value.
func spread(flags map[string]*kong.Flag, cluster string) (long []string, takesNext, help bool) {
	for i, r := range cluster {
		flag := flags["-"+string(r)]
		rest := cluster[i+len(string(r)):]
		switch {
		case flag == nil && r == 'h':
			return nil, false, true
		case flag == nil:
			// The first that is unknown is what kong is to complain about.
			return append(long, "-"+string(r)), false, false
		case strings.HasPrefix(rest, "="):
			return append(long, "--"+flag.Name+rest), false, false
		case flag.IsBool():
			long = append(long, "--"+flag.Name)
		case rest != "":
			return append(long, "--"+flag.Name+"="+rest), false, false
		default:
			return append(long, "--"+flag.Name), true, false
		}
	}
	return long, false, false
}

// flagsOf finds a command's flags by what is typed.
func flagsOf(node *kong.Node) map[string]*kong.Flag {
	flags := make(map[string]*kong.Flag, 2*len(node.Flags))
	for _, f := range node.Flags {
		flags["--"+f.Name] = f
		if f.Short != 0 {
			flags["-"+string(f.Short)] = f
		}
		for _, alias := range f.Aliases {
			flags["--"+alias] = f
		}
	}
	return flags
}
