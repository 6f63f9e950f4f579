package main

import (
	"fmt"
	"slices"
	"strings"
)

// The three scripts are the model written out, so that a Tab costs no start of whisk. They share one way: the words
// before the cursor are walked to find the command, and what is not a command or a flag of it is left to the shell's
// own completion of files.

// bash returns a script for bash-completion(1)'s folder; it needs bash alone.
func bash(root command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# bash completion for %[1]s: source it, or put it in ~/.local/share/bash-completion/completions/%[1]s\n\n", root.name)
	fmt.Fprintf(&b, "_%s() {\n", root.name)
	b.WriteString("    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} at='' words='' i\n")
	b.WriteString("    COMPREPLY=()\n")
	b.WriteString("    for ((i = 1; i < COMP_CWORD; i++)); do\n")
	b.WriteString("        case \"$at ${COMP_WORDS[i]}\" in\n")
	fmt.Fprintf(&b, "        %s) at+=\" ${COMP_WORDS[i]}\" ;;\n", paths(root))
	b.WriteString("        esac\n    done\n")
	b.WriteString("    case \"$at $prev\" in\n")
	for _, c := range root.all() {
		for _, f := range c.flags {
			if len(f.values) > 0 {
				fmt.Fprintf(&b, "    %s)\n        words=%s ;;\n", flagPatterns(c, f), quote(strings.Join(f.values, " ")))
			}
		}
	}
	b.WriteString("    *)\n        case \"$at\" in\n")
	for _, c := range root.all() {
		var words []string
		for _, sub := range c.subs {
			words = append(words, sub.name)
		}
		for _, f := range c.flags {
			words = append(words, f.words()...)
		}
		fmt.Fprintf(&b, "        %s) words=%s ;;\n", quote(c.path), quote(strings.Join(words, " ")))
	}
	b.WriteString("        esac ;;\n    esac\n")
	b.WriteString("    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n}\n\n")
	fmt.Fprintf(&b, "complete -o default -F _%[1]s %[1]s\n", root.name)
	return b.String()
}

// zsh returns an autoloaded function, _whisk, for a folder of $fpath.
func zsh(root command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#compdef %s\n\n", root.name)
	b.WriteString("local at='' word\nlocal -a commands flags\n")
	b.WriteString("for word in ${words[2,CURRENT-1]}; do\n    case \"$at $word\" in\n")
	fmt.Fprintf(&b, "    (%s) at+=\" $word\" ;;\n    esac\ndone\n", paths(root))
	b.WriteString("case \"$at ${words[CURRENT-1]}\" in\n")
	for _, c := range root.all() {
		for _, f := range c.flags {
			if len(f.values) > 0 {
				fmt.Fprintf(&b, "(%s) compadd -- %s; return ;;\n", flagPatterns(c, f), quoteAll(f.values))
			}
		}
	}
	b.WriteString("esac\ncase \"$at\" in\n")
	for _, c := range root.all() {
		fmt.Fprintf(&b, "(%s)\n", quote(c.path))
		for _, sub := range c.subs {
			fmt.Fprintf(&b, "    commands+=(%s)\n", quote(described(sub.name, sub.help)))
		}
		for _, f := range c.flags {
			for _, w := range f.words() {
				fmt.Fprintf(&b, "    flags+=(%s)\n", quote(described(w, f.help)))
			}
		}
		b.WriteString("    ;;\n")
	}
	b.WriteString("esac\n")
	b.WriteString("if [[ $PREFIX == -* ]]; then\n    _describe -o option flags\n")
	b.WriteString("elif (( $#commands )); then\n    _describe command commands\nelse\n    _files\nfi\n")
	return b.String()
}

// described is the form that zsh's _describe reads: a colon ends the word.
func described(word, help string) string {
	return strings.ReplaceAll(word, ":", `\:`) + ":" + strings.ReplaceAll(help, ":", `\:`)
}

// fish returns a script for ~/.config/fish/completions.
func fish(root command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# fish completion for %s\n\n", root.name)
	fmt.Fprintf(&b, "function __%s_at\n    set -l at ''\n    for word in (commandline -opc)[2..]\n        switch \"$at $word\"\n", root.name)
	var all []string
	for _, c := range root.all()[1:] {
		all = append(all, quote(c.path))
	}
	fmt.Fprintf(&b, "            case %s\n                set at \"$at $word\"\n        end\n    end\n", strings.Join(all, " "))
	b.WriteString("    test \"$at\" = \"$argv[1]\"\nend\n\n")
	for _, c := range root.all() {
		at := quote(fmt.Sprintf("__%s_at %s", root.name, quote(c.path)))
		for _, sub := range c.subs {
			fmt.Fprintf(&b, "complete -c %s -n %s -f -a %s -d %s\n", root.name, at, quote(sub.name), quote(sub.help))
		}
		for _, f := range c.flags {
			fmt.Fprintf(&b, "complete -c %s -n %s -l %s", root.name, at, f.long)
			if f.short != 0 {
				fmt.Fprintf(&b, " -s %c", f.short)
			}
			switch {
			case len(f.values) > 0:
				fmt.Fprintf(&b, " -x -a %s", quote(strings.Join(f.values, " ")))
			case f.value:
				b.WriteString(" -r")
			}
			fmt.Fprintf(&b, " -d %s\n", quote(f.help))
		}
	}
	return b.String()
}

// paths is a shell pattern that any command's path matches.
func paths(root command) string {
	var all []string
	for _, c := range root.all()[1:] {
		all = append(all, quote(c.path))
	}
	return strings.Join(all, "|")
}

func flagPatterns(c command, f option) string {
	var all []string
	for _, w := range f.words() {
		all = append(all, quote(c.path+" "+w))
	}
	return strings.Join(all, "|")
}

// quote makes one word of s, for sh and fish alike as long as s holds no backslash before a quote.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func quoteAll(words []string) string {
	quoted := slices.Clone(words)
	for i, w := range quoted {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, " ")
}
