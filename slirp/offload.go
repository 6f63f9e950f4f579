package slirp

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/ethtool.h.
const (
	featureName = 32 // ETH_GSTRING_LEN
	featureSet  = 4  // ETH_SS_FEATURES
)

// noDatagramOffload has the kernel cut large UDP sends (UDP_SEGMENT, as QUIC uses) before they enter a link. Packet
// sockets pass them on uncut, and those of kernels before 6.2 cannot describe them and lose them. It runs in the link's
// namespace; the calls are ethtool(8)'s.
func noDatagramOffload(link string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket for ethtool: %w", err)
	}
	defer unix.Close(fd)

	// struct ethtool_gstrings with room for the names of all features; kernel 6.12 has 64.
	const maxFeatures = 256
	names := struct {
		cmd, set, length uint32
		data             [maxFeatures][featureName]byte
	}{cmd: unix.ETHTOOL_GSTRINGS, set: featureSet}
	info := struct {
		cmd, reserved uint32
		mask          uint64
		count         uint32
	}{cmd: unix.ETHTOOL_GSSET_INFO, mask: 1 << featureSet}
	if err := ethtool(fd, link, unsafe.Pointer(&info)); err != nil {
		return err
	}
	if info.count > maxFeatures {
		return fmt.Errorf("kernel has %d link features, more than %d", info.count, maxFeatures)
	}
	names.length = info.count
	if err := ethtool(fd, link, unsafe.Pointer(&names)); err != nil {
		return err
	}
	for i := range info.count {
		if unix.ByteSliceToString(names.data[i][:]) != "tx-udp-segmentation" {
			continue
		}
		// struct ethtool_sfeatures; one block for each 32 features, and the kernel insists on the exact number.
		set := struct {
			cmd, size uint32
			blocks    [maxFeatures / 32]struct{ valid, requested uint32 }
		}{cmd: unix.ETHTOOL_SFEATURES, size: (info.count + 31) / 32}
		set.blocks[i/32].valid = 1 << (i % 32)
		return ethtool(fd, link, unsafe.Pointer(&set))
	}
	return nil // a kernel without the feature
}

func ethtool(fd int, link string, data unsafe.Pointer) error {
	ifr := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // the rest of the kernel's union
	}{data: data}
	copy(ifr.name[:unix.IFNAMSIZ-1], link)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr))); errno != 0 {
		return fmt.Errorf("setting offloads of link %q: %w", link, errno)
	}
	return nil
}
