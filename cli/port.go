package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/keeper"
)

type portCmd struct {
	listFlags
	Add     []string `sep:"none" placeholder:"[IP:]HOST:APP" help:"Publish a further port of the sandbox while it runs, as with run -p."`
	Rm      []string `sep:"none" placeholder:"[IP:]HOST[:APP]" help:"Publish a port of this machine no longer; add /udp for UDP."`
	File    string   `placeholder:"FILE" help:"The project's whisk.toml."`
	Sandbox string   `arg:"" placeholder:"SANDBOX" help:"The sandbox."`
	Port    string   `arg:"" optional:"" placeholder:"[PORT[/PROTOCOL]]" help:"Port in the sandbox; only its host address is printed."`
}

// Help is what kong shows below the flags.
func (*portCmd) Help() string {
	return `What --add and --rm change holds until the sandbox is removed, also when it is
started again. Where both are given, --rm comes first.

Examples:
  whisk port web
  curl "http://$(whisk port web 80)/"
  whisk port web --rm 8080 --add 9090:80`
}

func (p *portCmd) run(ctx context.Context, c *call) error {
	change, err := p.change()
	if err != nil {
		return err
	}
	records, err := c.records([]string{p.Sandbox}, p.File)
	if err != nil {
		return err
	}
	r := records[0]
	if change != nil {
		return p.apply(ctx, c, r, *change)
	}
	ports := r.Ports
	if p.Port != "" {
		if ports = portsNamed(ports, p.Port); len(ports) == 0 {
			return usage("whisk port "+displayName(r), "sandbox %q has no published port %q", displayName(r), p.Port)
		}
	}
	return p.show(c, ports)
}

// change reads --add and --rm; nil if there are none.
func (p *portCmd) change() (*keeper.PortsRequest, error) {
	if len(p.Add) == 0 && len(p.Rm) == 0 {
		return nil, nil
	}
	if p.Port != "" {
		return nil, usage("leave it out", "--add and --rm say which port is meant: %q is one too many", p.Port)
	}
	var r keeper.PortsRequest
	for _, s := range p.Add {
		port, err := config.ParsePort(s)
		if err != nil {
			return nil, flagFault("--add", err)
		}
		r.Add = append(r.Add, port)
	}
	for _, s := range p.Rm {
		which, err := config.ParsePortSelector(s)
		if err != nil {
			return nil, flagFault("--rm", err)
		}
		r.Remove = append(r.Remove, which)
	}
	return &r, nil
}

// apply changes what is published, and shows what has come to be.
func (p *portCmd) apply(ctx context.Context, c *call, r *launcher.Record, change keeper.PortsRequest) error {
	client, err := c.keeperOf(ctx, r)
	if err != nil {
		return err
	}
	defer client.Close()
	var added []launcher.PublishedPort
	err = client.Ports(ctx, r.ID, change, func(ev keeper.Event) {
		if ev.Type == keeper.EventPublished {
			added = append(added, ev.Ports...)
		}
	})
	if err != nil && len(added) == 0 {
		return err
	}
	if serr := p.show(c, added); err == nil {
		err = serr
	}
	return err
}

// show prints ports, one a line.
func (p *portCmd) show(c *call, ports []launcher.PublishedPort) error {
	if p.json() {
		if ports == nil {
			ports = []launcher.PublishedPort{}
		}
		return writeJSON(c.out, ports)
	}
	for _, pub := range ports {
		line := hostPort(pub.HostIP, fmt.Sprint(pub.HostPort))
		if p.Port == "" {
			line = fmt.Sprintf("%d/%s -> %s", pub.AppPort, pub.Protocol, line)
		}
		if _, err := fmt.Fprintln(c.out, line); err != nil {
			return err
		}
	}
	return nil
}

// portsNamed picks the ports that "80", "80/tcp" or "80/udp" means. Without a protocol it is tcp, as docker has it.
func portsNamed(ports []launcher.PublishedPort, name string) []launcher.PublishedPort {
	number, protocol, ok := strings.Cut(name, "/")
	if !ok {
		protocol = "tcp"
	}
	var named []launcher.PublishedPort
	for _, p := range ports {
		if fmt.Sprint(p.AppPort) == number && p.Protocol == protocol {
			named = append(named, p)
		}
	}
	return named
}
