package demo

import (
	"net/netip"
	"strconv"

	"github.com/whisk-sandbox/whisk/config"
)

// Image is the reference of the built-in image that the two apps run from. It holds whisk's binary as /whisk.
const Image = "demo"

// appPort is where both apps listen in their sandbox. It is above 1023, so that it would serve without rights, too.
const appPort = 8080

// dataDir is where the store finds its volume.
const dataDir = "/data"

// Project returns the two apps as a whisk.toml would describe them: web, published on port of 127.0.0.1 (0: a free
// one), and store, which keeps the visit counter in the volume of the given name. Neither can reach anything
// outside the project's network. The project has no file: File and Dir are empty.
func Project(volumeName string, port uint16) *config.Project {
	own := "PORT=" + strconv.Itoa(appPort)
	health := ":" + strconv.Itoa(appPort) + "/health"
	return &config.Project{
		Name:   "demo",
		Egress: "none",
		Apps: []config.App{
			{
				Name:       "web",
				Image:      Image,
				Entrypoint: []string{"/whisk"},
				Command:    []string{StageWeb},
				Env:        []string{own, "STORE=http://store:" + strconv.Itoa(appPort)},
				Ports: []config.Port{{
					HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Host: port, App: appPort, Count: 1, Protocol: "tcp",
				}},
				ReadOnly:  true,
				DependsOn: []string{"store"},
				Ready:     &config.Ready{HTTP: health},
			},
			{
				Name:       "store",
				Image:      Image,
				Entrypoint: []string{"/whisk"},
				Command:    []string{StageStore},
				Env:        []string{own},
				Mounts:     []config.Mount{{Kind: config.MountVolume, Source: volumeName, Target: dataDir}},
				ReadOnly:   true,
				Ready:      &config.Ready{HTTP: health},
			},
		},
		Volumes: []config.Volume{{Name: volumeName}},
	}
}
