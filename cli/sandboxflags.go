package cli

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
)

// sandboxFlags describe a new sandbox in the words of docker-run(1) and podman-run(1).
type sandboxFlags struct {
	Name       string   `placeholder:"NAME" help:"Name of the sandbox; without it whisk makes one up."`
	Entrypoint *string  `placeholder:"COMMAND" help:"Program that takes the place of the image's entry point; empty for none."`
	Env        []string `short:"e" sep:"none" placeholder:"KEY[=VALUE]" help:"Set an environment variable; a key alone takes its value from here, and where it is not set, the image's away."`
	EnvFile    []string `sep:"none" placeholder:"FILE" help:"Read environment variables from a file."`
	User       string   `short:"u" placeholder:"USER[:GROUP]" help:"User, by name or number, that the command runs as."`
	Workdir    string   `short:"w" placeholder:"PATH" help:"Working directory in the sandbox."`
	Label      []string `short:"l" sep:"none" placeholder:"KEY[=VALUE]" help:"Attach a word of your own."`
	Platform   string   `placeholder:"OS/ARCH" help:"Platform of the image."`
	Pull       string   `enum:"missing,always,never" default:"missing" placeholder:"WHEN" help:"Fetch the image: missing, always or never."`

	Publish      []string `group:"Network" short:"p" sep:"none" placeholder:"[IP:]HOST:APP" help:"Forward a host port, or a range, to the app; add /udp for UDP. Host port 0 picks a free one."`
	PublishAll   bool     `group:"Network" short:"P" help:"Forward a free host port to each port that the image exposes."`
	Network      string   `group:"Network" placeholder:"NAME" help:"Network to join, or none for loopback only; without it, or with bridge, the sandbox has one of its own."`
	NetworkAlias []string `group:"Network" sep:"none" placeholder:"NAME" help:"Further name for the sandbox on its network."`
	Link         []string `group:"Network" sep:"none" placeholder:"NAME" help:"Reach another sandbox of the network by that name, where one of the two is isolated."`
	Hostname     string   `group:"Network" short:"h" placeholder:"NAME" help:"Host name in the sandbox."`
	AddHost      []string `group:"Network" sep:"none" placeholder:"NAME:IP" help:"Add a line to /etc/hosts; host-gateway stands for this machine."`
	Egress       []string `group:"Network" sep:"none" placeholder:"POLICY" help:"What the sandbox may reach beyond its network: all, internet, none, or rules such as api.example.com:443 and 10.0.0.0/8. Without it, what its network allows, or all."`
	HostPort     []string `group:"Network" sep:"none" placeholder:"PORT" help:"Let the sandbox reach a port of this machine's loopback, as host.whisk.internal."`

	Volume   []string `group:"Files" short:"v" sep:"none" placeholder:"SOURCE:PATH[:ro]" help:"Mount a path of this machine or a volume."`
	Mount    []string `group:"Files" sep:"none" placeholder:"KEY=VALUE,…" help:"Mount, spelled out: type=bind|volume|tmpfs,source=…,target=…"`
	Tmpfs    []string `group:"Files" sep:"none" placeholder:"PATH[:OPTIONS]" help:"Mount memory as a file system; options are size=, mode=, ro and exec, without which nothing in it is executed."`
	Home     string   `group:"Files" placeholder:"ro|rw" help:"Mount your home directory at its own path, read-only or writable, with keys and passwords hidden."`
	ReadOnly bool     `group:"Files" help:"Make the root file system read-only."`

	CapAdd      []string `group:"Rights and limits" sep:"none" placeholder:"CAPABILITY" help:"Add a capability, or ALL."`
	CapDrop     []string `group:"Rights and limits" sep:"none" placeholder:"CAPABILITY" help:"Drop a capability, or ALL."`
	SecurityOpt []string `group:"Rights and limits" sep:"none" placeholder:"OPTION" help:"no-new-privileges=false, seccomp=unconfined, seccomp=FILE or landlock=unconfined."`
	Seccomp     string   `group:"Rights and limits" placeholder:"FILE" help:"Profile of system calls, in Docker's or the OCI's JSON; unconfined for none."`
	OOMScoreAdj *int     `name:"oom-score-adj" group:"Rights and limits" placeholder:"NUMBER" help:"How soon the kernel ends the app when memory runs out: -1000 to 1000."`
	Memory      string   `group:"Rights and limits" short:"m" placeholder:"SIZE" help:"Limit memory: bytes, or with b, k, m or g."`
	CPUs        string   `name:"cpus" group:"Rights and limits" placeholder:"NUMBER" help:"Limit processor time to so many processors."`
	PidsLimit   int64    `group:"Rights and limits" placeholder:"NUMBER" help:"Limit the number of processes; -1 for no limit."`
	MemorySwap  string   `group:"Rights and limits" placeholder:"SIZE" help:"Limit memory and swap together; -1 for no limit of swap. Without it, twice the memory limit."`
	BlkioWeight string   `group:"Rights and limits" placeholder:"NUMBER" help:"Share of the disks' time beside other sandboxes: 10 to 1000."`
	deviceRateFlags
	Ulimit []string `group:"Rights and limits" sep:"none" placeholder:"NAME=SOFT[:HARD]" help:"Set a resource limit."`
	machineFlags

	Init        bool   `group:"Life" default:"true" help:"Let whisk's init be process 1; --init=false for the app itself."`
	StopSignal  string `group:"Life" placeholder:"SIGNAL" help:"Signal that stops the app."`
	StopTimeout string `group:"Life" placeholder:"SECONDS" help:"How long stop waits before it kills; -1 for ever."`
	Restart     string `group:"Life" placeholder:"POLICY" help:"Start the app again when it ends, in the background: no, on-failure[:N], always or unless-stopped."`
	Remove      bool   `name:"rm" group:"Life" help:"Forget the sandbox when it has ended."`
}

// surroundings is what flags refer to beyond themselves.
type surroundings struct {
	dir, home string
	lookup    config.Lookup
	readFile  func(name string) ([]byte, error)
	egress    string // what the user's config.toml says; may be empty
}

func (c *call) surroundings() surroundings {
	return surroundings{dir: c.dir, home: c.getenv("HOME"), lookup: os.LookupEnv, readFile: os.ReadFile}
}

// spec turns the flags into what is asked of a keeper. argv is the image and the command.
func (f *sandboxFlags) spec(id string, argv []string, s surroundings) (*launcher.Spec, error) {
	if len(argv) == 0 {
		return nil, usage("whisk run --help", "an image is missing")
	}
	spec := &launcher.Spec{
		Version: launcher.SpecVersion, ID: id, Name: f.Name, Network: id, Remove: f.Remove, Aliases: f.NetworkAlias,
		App: config.App{Image: argv[0], User: f.User, Workdir: f.Workdir, Hostname: f.Hostname, ReadOnly: f.ReadOnly},
	}
	for _, fill := range []func(*launcher.Spec, surroundings) error{f.command(argv[1:]), f.environment, f.network, f.egress, f.files, f.rights, f.limits, f.life} {
		if err := fill(spec, s); err != nil {
			return nil, err
		}
	}
	return spec, nil
}

func (f *sandboxFlags) command(args []string) func(*launcher.Spec, surroundings) error {
	return func(spec *launcher.Spec, _ surroundings) error {
		if len(args) > 0 {
			spec.App.Command = args
		}
		if f.Entrypoint != nil {
			spec.App.Entrypoint = []string{}
			if *f.Entrypoint != "" {
				spec.App.Entrypoint = []string{*f.Entrypoint}
			}
		}
		if f.Name != "" {
			if err := config.ValidName(f.Name); err != nil {
				return flagFault("--name", err)
			}
		}
		if f.Platform != "" {
			platform, err := config.ParsePlatform(f.Platform)
			if err != nil {
				return flagFault("--platform", err)
			}
			spec.App.Platform = platform
		}
		if f.Workdir != "" && !filepath.IsAbs(f.Workdir) {
			return usage("", "--workdir: %q is not an absolute path", f.Workdir)
		}
		return nil
	}
}

func (f *sandboxFlags) environment(spec *launcher.Spec, s surroundings) error {
	env, err := environment(f.EnvFile, f.Env, s)
	if err != nil {
		return err
	}
	spec.App.Env = env
	for _, label := range f.Label {
		key, value, err := config.ParseLabel(label)
		if err != nil {
			return flagFault("--label", err)
		}
		if spec.App.Labels == nil {
			spec.App.Labels = map[string]string{}
		}
		spec.App.Labels[key] = value
	}
	return nil
}

// environment reads --env-file and then --env, whose entries win, as docker does.
func environment(files, entries []string, s surroundings) ([]string, error) {
	var env []string
	for _, name := range files {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(s.dir, path)
		}
		data, err := s.readFile(path)
		if err != nil {
			return nil, flagFault("--env-file", err)
		}
		lines, err := config.ParseEnvLines(name, data, s.lookup)
		if err != nil {
			return nil, err
		}
		env = append(env, lines...)
	}
	for _, e := range entries {
		entry, err := config.ParseEnv(e, s.lookup)
		if err != nil {
			return nil, flagFault("--env", err)
		}
		env = append(env, entry)
	}
	return env, nil
}

// egress reads --egress, whose values may each be a list, and --host-port.
func (f *sandboxFlags) egress(spec *launcher.Spec, s surroundings) error {
	switch {
	case len(f.Egress) > 0:
		e, err := config.ParseEgress(strings.Join(f.Egress, ","))
		if err != nil {
			return flagFault("--egress", err)
		}
		spec.Egress = e.String()
	case spec.Network == spec.ID || spec.Network == "none":
		spec.Egress = cmp.Or(s.egress, string(config.EgressAll))
	}
	if spec.Network == "none" && len(f.HostPort) > 0 {
		return usage("leave out one of the two", "--host-port: a sandbox with --network none reaches no port")
	}
	for _, p := range f.HostPort {
		port, err := config.ParseHostPort(p)
		if err != nil {
			return flagFault("--host-port", err)
		}
		spec.App.HostPorts = append(spec.App.HostPorts, port)
	}
	return nil
}

func (f *sandboxFlags) network(spec *launcher.Spec, _ surroundings) error {
	switch {
	case f.Network == "", f.Network == "private", f.Network == "bridge": // docker's word for the network one gets
	case f.Network == "host", strings.Contains(f.Network, ":"):
		return usage("leave --network out, and publish ports with -p", "--network: %q is not offered: every sandbox has its own address", f.Network)
	default:
		if err := config.ValidName(f.Network); err != nil {
			return flagFault("--network", err)
		}
		spec.Network = f.Network
	}
	for _, p := range f.Publish {
		port, err := config.ParsePort(p)
		if err != nil {
			return flagFault("--publish", err)
		}
		spec.App.Ports = append(spec.App.Ports, port)
	}
	spec.PublishAll = f.PublishAll
	if spec.Network == "none" && (len(f.Publish) > 0 || f.PublishAll) {
		return usage("leave out one of the two", "--publish: a sandbox with --network none has no port to reach")
	}
	for _, alias := range f.NetworkAlias {
		if err := config.ValidHostname(alias); err != nil {
			return flagFault("--network-alias", err)
		}
	}
	if len(f.Link) > 0 && (spec.Network == spec.ID || spec.Network == "none") {
		return usage("add --network NAME", "--link: a sandbox on a network of its own has nobody to reach")
	}
	for _, name := range f.Link {
		if err := config.ValidHostname(name); err != nil {
			return flagFault("--link", err)
		}
		spec.App.Links = append(spec.App.Links, name)
	}
	if f.Hostname != "" {
		if err := config.ValidHostname(f.Hostname); err != nil {
			return flagFault("--hostname", err)
		}
	}
	for _, h := range f.AddHost {
		host, err := config.ParseHost(h)
		if err != nil {
			return flagFault("--add-host", err)
		}
		spec.App.ExtraHosts = append(spec.App.ExtraHosts, host)
	}
	return nil
}

func (f *sandboxFlags) files(spec *launcher.Spec, s surroundings) error {
	add := func(flag string, values []string, parse func(string) (config.Mount, error)) error {
		for _, v := range values {
			m, err := parse(v)
			if err != nil {
				return flagFault(flag, err)
			}
			spec.App.Mounts = append(spec.App.Mounts, m)
		}
		return nil
	}
	if err := add("--volume", f.Volume, func(v string) (config.Mount, error) { return config.ParseMount(v, s.dir, s.home) }); err != nil {
		return err
	}
	if err := add("--mount", f.Mount, func(v string) (config.Mount, error) { return config.ParseMountFlag(v, s.dir, s.home) }); err != nil {
		return err
	}
	if f.Home != "" {
		home, err := config.ParseHome(f.Home)
		if err != nil {
			return flagFault("--home", err)
		}
		spec.App.Home = home
	}
	return add("--tmpfs", f.Tmpfs, config.ParseTmpfs)
}

func (f *sandboxFlags) rights(spec *launcher.Spec, s surroundings) error {
	for _, list := range []struct {
		flag   string
		values []string
		to     *[]string
	}{{"--cap-add", f.CapAdd, &spec.App.CapAdd}, {"--cap-drop", f.CapDrop, &spec.App.CapDrop}} {
		for _, v := range list.values {
			name, err := config.ParseCap(v)
			if err != nil {
				return flagFault(list.flag, err)
			}
			*list.to = append(*list.to, name)
		}
	}
	for _, option := range f.SecurityOpt {
		if err := securityOption(spec, option, s); err != nil {
			return err
		}
	}
	if f.Seccomp != "" {
		if err := seccompProfile(spec, "--seccomp", f.Seccomp, s); err != nil {
			return err
		}
	}
	if err := f.machineFlags.apply(spec); err != nil {
		return err
	}
	if n := f.OOMScoreAdj; n != nil && (*n < -1000 || *n > 1000) {
		return usage("", "--oom-score-adj: %d is not between -1000 and 1000", *n)
	}
	spec.OOMScore = f.OOMScoreAdj
	return nil
}

// securityOption reads one --security-opt. Docker separates key and value by = and, formerly, by a colon.
func securityOption(spec *launcher.Spec, option string, s surroundings) error {
	key, value := option, ""
	if i := strings.IndexAny(option, "=:"); i >= 0 {
		key, value = option[:i], option[i+1:]
	}
	switch {
	case key == "no-new-privileges" && (value == "" || value == "true"):
		spec.NewPrivileges = false
	case key == "no-new-privileges" && value == "false":
		spec.NewPrivileges = true
	case key == "landlock" && value == "unconfined":
		spec.NoLandlock = true
	case key == "seccomp" && value != "":
		return seccompProfile(spec, "--security-opt", value, s)
	default:
		return usage("no-new-privileges=false, seccomp=unconfined, seccomp=FILE or landlock=unconfined", "--security-opt: %q is not known", option)
	}
	return nil
}

// seccompProfile takes unconfined or the name of a file.
func seccompProfile(spec *launcher.Spec, flag, value string, s surroundings) error {
	if value == "unconfined" {
		spec.Seccomp = value
		return nil
	}
	path := value
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.dir, path)
	}
	text, err := s.readFile(path)
	if err != nil {
		return flagFault(flag+": seccomp profile", err)
	}
	spec.Seccomp = string(text)
	return nil
}

func (f *sandboxFlags) limits(spec *launcher.Spec, _ surroundings) error {
	var err error
	if f.Memory != "" {
		if spec.App.Memory, err = config.ParseMemory(f.Memory); err != nil {
			return flagFault("--memory", err)
		}
	}
	if f.MemorySwap != "" {
		if spec.App.MemorySwap, err = config.ParseMemorySwap(f.MemorySwap); err != nil {
			return flagFault("--memory-swap", err)
		}
	}
	if err := config.CheckMemorySwap(spec.App.Memory, spec.App.MemorySwap); err != nil {
		return flagFault("--memory-swap", err)
	}
	if f.CPUs != "" {
		if spec.App.CPUs, err = config.ParseCPUs(f.CPUs); err != nil {
			return flagFault("--cpus", err)
		}
	}
	if f.PidsLimit < -1 {
		return usage("-1 means no limit", "--pids-limit: %d is below -1", f.PidsLimit)
	}
	spec.App.Pids = max(f.PidsLimit, 0)
	if f.BlkioWeight != "" {
		if spec.App.BlkioWeight, err = config.ParseBlkioWeight(f.BlkioWeight); err != nil {
			return flagFault("--blkio-weight", err)
		}
	}
	if spec.App.DeviceRates, err = f.rates(); err != nil {
		return err
	}
	for _, u := range f.Ulimit {
		limit, err := config.ParseUlimit(u)
		if err != nil {
			return flagFault("--ulimit", err)
		}
		spec.App.Ulimits = append(spec.App.Ulimits, limit)
	}
	return nil
}

func (f *sandboxFlags) life(spec *launcher.Spec, _ surroundings) error {
	if !f.Init {
		spec.App.Init = new(bool)
	}
	if f.StopSignal != "" {
		name, _, err := config.ParseSignal(f.StopSignal)
		if err != nil {
			return flagFault("--stop-signal", err)
		}
		spec.App.StopSignal = name
	}
	timeout, err := stopTimeout("--stop-timeout", f.StopTimeout)
	if err != nil {
		return err
	}
	spec.App.StopTimeout = timeout
	if f.Restart != "" {
		if spec.App.Restart, err = config.ParseRestart(f.Restart); err != nil {
			return flagFault("--restart", err)
		}
		if f.Remove && spec.App.Restart.Policy != "no" {
			return usage("leave out one of the two", "--restart and --rm exclude each other")
		}
	}
	return nil
}

// stopTimeout reads a time to stop in; nil when none is given.
func stopTimeout(flag, value string) (*time.Duration, error) {
	if value == "" {
		return nil, nil
	}
	d, err := config.ParseStopTimeout(value)
	if err != nil {
		return nil, flagFault(flag, err)
	}
	return &d, nil
}

// flagFault says which flag a parser refused.
func flagFault(flag string, err error) error {
	return launcher.AsError(fmt.Errorf("%s: %w", flag, err))
}
