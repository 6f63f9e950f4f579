package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/whisk-sandbox/whisk/launcher"
)

type portCmd struct {
	listFlags
	File    string `placeholder:"FILE" help:"The project's whisk.toml."`
	Sandbox string `arg:"" placeholder:"SANDBOX" help:"The sandbox."`
	Port    string `arg:"" optional:"" placeholder:"[PORT[/PROTOCOL]]" help:"Port in the sandbox; only its host address is printed."`
}

// Help is what kong shows below the flags.
func (*portCmd) Help() string {
	return `Examples:
  whisk port web
  curl "http://$(whisk port web 80)/"`
}

func (p *portCmd) run(_ context.Context, c *call) error {
	records, err := c.records([]string{p.Sandbox}, p.File)
	if err != nil {
		return err
	}
	r := records[0]
	ports := r.Ports
	if p.Port != "" {
		if ports = portsNamed(ports, p.Port); len(ports) == 0 {
			return usage("whisk port "+displayName(r), "sandbox %q has no published port %q", displayName(r), p.Port)
		}
	}
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
