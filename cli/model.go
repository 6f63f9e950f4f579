package cli

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// The groups that help shows commands in, in this order.
const (
	groupSandboxes = "Sandboxes"
	groupProject   = "Projects"
	groupImages    = "Images"
	groupWhisk     = "Whisk"
)

// entry is one command of the command line.
type entry struct {
	name  string
	group string
	help  string
	make  func() any // a new value of the command's type
}

// commands lists all of them in the order help shows them.
func commands() []entry {
	return []entry{
		{"run", groupSandboxes, "Run a command in a new sandbox.", func() any { return new(runCmd) }},
		{"exec", groupSandboxes, "Run a further command in a running sandbox.", func() any { return new(execCmd) }},
		{"cp", groupSandboxes, "Copy files into and out of a sandbox.", func() any { return new(cpCmd) }},
		{"ps", groupSandboxes, "List sandboxes.", func() any { return new(psCmd) }},
		{"logs", groupSandboxes, "Show what apps have written.", func() any { return new(logsCmd) }},
		{"stop", groupSandboxes, "Stop sandboxes.", func() any { return new(stopCmd) }},
		{"start", groupSandboxes, "Start stopped sandboxes.", func() any { return new(startCmd) }},
		{"restart", groupSandboxes, "Stop sandboxes and start them again.", func() any { return new(restartCmd) }},
		{"rm", groupSandboxes, "Remove sandboxes.", func() any { return new(rmCmd) }},
		{"inspect", groupSandboxes, "Show all that whisk knows of sandboxes and images, as JSON.", func() any { return new(inspectCmd) }},
		{"port", groupSandboxes, "Show and change the published ports of a sandbox.", func() any { return new(portCmd) }},
		{"stats", groupSandboxes, "Show what sandboxes use.", func() any { return new(statsCmd) }},
		{"update", groupSandboxes, "Change the limits of running sandboxes.", func() any { return new(updateCmd) }},
		{"network", groupSandboxes, "Manage networks.", func() any { return new(networkCmd) }},
		{"up", groupProject, "Start the apps of whisk.toml.", func() any { return new(upCmd) }},
		{"down", groupProject, "Stop and remove the apps of whisk.toml.", func() any { return new(downCmd) }},
		{"egress", groupProject, "Show and learn what sandboxes reach outside.", func() any { return new(egressCmd) }},
		{"init", groupProject, "Write a whisk.toml to start from.", func() any { return new(initCmd) }},
		{"demo", groupProject, "Start a project of two apps that needs no image and no network.", func() any { return new(demoCmd) }},
		{"pull", groupImages, "Fetch images from registries.", func() any { return new(pullCmd) }},
		{"images", groupImages, "List images.", func() any { return new(imagesCmd) }},
		{"rmi", groupImages, "Remove images.", func() any { return new(rmiCmd) }},
		{"tag", groupImages, "Give an image a further name.", func() any { return new(tagCmd) }},
		{"load", groupImages, "Read images from an archive or layout.", func() any { return new(loadCmd) }},
		{"save", groupImages, "Write images to an archive or layout.", func() any { return new(saveCmd) }},
		{"volume", groupImages, "Manage volumes.", func() any { return new(volumeCmd) }},
		{"doctor", groupWhisk, "Examine this machine, and say what mends it.", func() any { return new(doctorCmd) }},
		{"version", groupWhisk, "Show the version.", func() any { return new(versionCmd) }},
		{"uninstall", groupWhisk, "Remove whisk, and what it keeps.", func() any { return new(uninstallCmd) }},
	}
}

// root is the grammar above the commands. --help and --version are handled before it is built (see parse), and
// stand here for help, completions and man pages.
type root struct {
	Help    bool `help:"Show help."`
	Version bool `help:"Show the version."`
}

// Model is the parser of the whole command line, for completions, man pages and the reference.
func Model() (*kong.Kong, error) { return model(commands()) }

func model(entries []entry, options ...kong.Option) (*kong.Kong, error) {
	options = append(options, kong.Name("whisk"), kong.NoDefaultHelp(),
		kong.Description("Run apps from container images as yourself: no root, no daemon."))
	for _, e := range entries {
		options = append(options, kong.DynamicCommand(e.name, e.help, e.group, e.make()))
	}
	k, err := kong.New(&root{}, options...)
	if err != nil {
		return nil, fmt.Errorf("build command line: %w", err)
	}
	return k, nil
}

// parse finds the command that args call and fills in its flags, those not given from settings. It returns either the
// command or the help that was asked for.
func parse(args []string, settings kong.Resolver) (cmd command, help string, err error) {
	all := commands()
	if len(args) == 0 || args[0] == "--help" || args[0] == "-h" || args[0] == "help" && len(args) == 1 {
		return nil, overview(all), nil
	}
	if args[0] == "help" {
		args = append(args[1:len(args):len(args)], "--help")
	}
	if args[0] == "--version" {
		args = []string{"version"}
	}
	var called []entry
	for _, e := range all {
		if e.name == args[0] {
			called = []entry{e}
		}
	}
	if called == nil {
		return nil, "", unknownCommand(all, args[0])
	}
	if cmd, ok := parseThin(called[0], args[1:], settings); ok {
		return cmd, "", nil
	}
	return parseWhole(called, args, settings)
}

// parseWhole is parse with the whole model of the command that is called.
func parseWhole(called []entry, args []string, settings kong.Resolver) (cmd command, help string, err error) {
	k, err := model(called, kong.Resolvers(settings))
	if err != nil {
		return nil, "", err
	}
	node, depth := k.Model.Children[0], 1
	for len(node.Children) > 0 {
		child := childOf(node, args[depth:])
		if child == nil {
			break
		}
		node, depth = child, depth+1
	}
	if len(node.Children) > 0 && depth < len(args) && !strings.HasPrefix(args[depth], "-") {
		return nil, "", usage(commandPath(node)+" --help", "unknown command %q", node.Name+" "+args[depth])
	}
	ordered, wantsHelp := arrange(node, args[depth:])
	if wantsHelp || len(node.Children) > 0 && depth == len(args) {
		return nil, helpFor(node), nil
	}
	ctx, err := k.Parse(append(args[:depth:depth], ordered...))
	if err != nil {
		return nil, "", parseFault(node, err)
	}
	cmd, ok := ctx.Selected().Target.Addr().Interface().(command)
	if !ok {
		return nil, "", fmt.Errorf("build command line: %s is not a command", ctx.Command())
	}
	return cmd, "", nil
}

func childOf(node *kong.Node, args []string) *kong.Node {
	if len(args) == 0 {
		return nil
	}
	for _, child := range node.Children {
		if child.Name == args[0] {
			return child
		}
	}
	return nil
}

// unknownCommand lets kong's model of all commands look for what was meant.
func unknownCommand(all []entry, name string) error {
	if strings.HasPrefix(name, "-") {
		return usage("whisk --help", "unknown flag %s", name)
	}
	k, err := model(all)
	if err != nil {
		return err
	}
	message, hint := fmt.Sprintf("unknown command %q", name), "whisk --help"
	if _, err := k.Parse([]string{name}); err != nil {
		if _, meant, ok := strings.Cut(err.Error(), ", did you mean "); ok {
			hint = "did you mean " + meant
		}
	}
	return usage(hint, "%s", message)
}

// parseFault words kong's error as whisk's: one line, and what was meant as the hint.
func parseFault(node *kong.Node, err error) error {
	message, meant, _ := strings.Cut(err.Error(), ", did you mean ")
	hint := commandPath(node) + " --help"
	// Every one-letter flag is near every other: what is said of those helps nobody.
	if meant != "" && !strings.HasPrefix(message, "unknown flag -") || strings.HasPrefix(message, "unknown flag --") && meant != "" {
		hint = "did you mean " + meant
	}
	flag, isFlag := "", false
	if flag, _, isFlag = strings.Cut(message, `: expected `); isFlag && strings.HasSuffix(message, `got "EOL" (<EOL>)`) {
		return usage(hint, "%s: a value is missing", flag)
	}
	if name, ok := strings.CutPrefix(message, `expected "<`); ok {
		name, _, _ = strings.Cut(name, ">")
		return usage(hint, "a%s %s is missing", article(name), name)
	}
	return usage(hint, "%s", message)
}

// article is the n of "an image".
func article(noun string) string {
	if strings.ContainsAny(noun[:min(1, len(noun))], "aeiou") {
		return "n"
	}
	return ""
}

// commandPath is a command as it is typed: "whisk volume rm".
func commandPath(node *kong.Node) string {
	if node.Parent == nil || node.Type != kong.CommandNode {
		return "whisk"
	}
	return commandPath(node.Parent) + " " + node.Name
}
