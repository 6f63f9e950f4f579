#!/bin/sh
# install.sh: puts whisk into your home directory, without root.
#
#   sh install.sh [--version X.Y.Z] [--prefix DIR]
#   sh install.sh --uninstall [--prefix DIR]
#
# It fetches the archive for this machine and SHA256SUMS, compares, and copies the program to ~/.local/bin, the manual page
# and completions below ~/.local/share. WHISK_BASE_URL is where the files are, a folder or a URL, in place of the
# release's page. --uninstall takes away what was installed; images, volumes and sandboxes stay.
set -eu

main() {
	prefix=${HOME:?}/.local version='' uninstall=
	while [ $# -gt 0 ]; do
		case $1 in
		--version | --prefix)
			if [ $# -lt 2 ] || [ -z "$2" ]; then
				fail "$1 needs a value"
			fi
			case $1 in --version) version=${2#v} ;; *) prefix=$2 ;; esac
			shift 2
			;;
		--uninstall) uninstall=yes && shift ;;
		-h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0" && exit 0 ;;
		*) fail "unknown argument: $1" ;;
		esac
	done
	case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
	if [ -n "$uninstall" ]; then
		remove
		return
	fi
	[ "$(uname -s)" = Linux ] || fail "whisk needs Linux, this is $(uname -s)"
	case $(uname -m) in
	x86_64) arch=amd64 ;;
	aarch64) arch=arm64 ;;
	riscv64) arch=riscv64 ;;
	*) fail "there is no archive for $(uname -m); build from source: make install" ;;
	esac
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	releases=https://github.com/whisk-sandbox/whisk/releases
	base=${WHISK_BASE_URL:-}
	if [ -z "$base" ]; then
		base=$releases/latest/download
		[ -z "$version" ] || base=$releases/download/v$version
	fi
	base=${base%/}

	fetch SHA256SUMS
	# One archive for this machine is in the list, or the one of the version that was asked for.
	archive=$(sed -n "s/^[0-9a-f]\{64\}  \(whisk_[^ \/]*_linux_$arch\.tar\.gz\)\$/\1/p" "$work/SHA256SUMS")
	[ -z "$version" ] || archive=$(printf '%s\n' "$archive" | grep -Fx "whisk_${version}_linux_$arch.tar.gz" || true)
	case $archive in
	'') fail "$base/SHA256SUMS names no archive for linux/$arch${version:+ of version $version}" ;;
	*[!A-Za-z0-9._+~-]*) fail "$base/SHA256SUMS names more than one archive for linux/$arch; say which: --version" ;;
	esac
	fetch "$archive"
	want=$(grep -F "  $archive" "$work/SHA256SUMS" | cut -d' ' -f1)
	got=$(sha256sum "$work/$archive" | cut -d' ' -f1)
	[ "$want" = "$got" ] || fail "$archive is not what SHA256SUMS says ($got, not $want): nothing was installed"
	tar -xzf "$work/$archive" -C "$work" --strip-components=1 --no-same-owner
	"$work/whisk" version >/dev/null || fail "$archive does not run on this machine: nothing was installed"

	put whisk "$prefix/bin/whisk" 755
	put man/whisk.1 "$prefix/share/man/man1/whisk.1" 644
	put completions/whisk.bash "$prefix/share/bash-completion/completions/whisk" 644
	put completions/_whisk "$prefix/share/zsh/site-functions/_whisk" 644
	put completions/whisk.fish "$prefix/share/fish/vendor_completions.d/whisk.fish" 644
	"$prefix/bin/whisk" version
	echo "installed $prefix/bin/whisk"
	case :$PATH: in
	*":$prefix/bin:"*) ;;
	*) echo "hint: your PATH lacks it: export PATH=\"$prefix/bin:\$PATH\"" ;;
	esac
	echo "hint: whisk demo"
}

fail() {
	echo "install.sh: $1" >&2
	exit 1
}

# fetch NAME: into $work.
fetch() {
	case $base in
	/* | ./* | ../*) cp "$base/$1" "$work/$1" || fail "$base has no $1" ;;
	*)
		if command -v curl >/dev/null; then
			curl -fsSL --retry 2 -o "$work/$1" "$base/$1"
		elif command -v wget >/dev/null; then
			wget -q -O "$work/$1" "$base/$1"
		else
			fail "neither curl nor wget is here"
		fi || fail "cannot fetch $base/$1"
		;;
	esac
}

# put FILE PATH MODE: a program that runs keeps its file; the new one takes the name.
put() {
	mkdir -p "$(dirname "$2")"
	cp "$work/$1" "$2.new"
	chmod "$3" "$2.new"
	mv -f "$2.new" "$2"
}

remove() {
	if [ ! -e "$prefix/bin/whisk" ]; then
		fail "no whisk in $prefix/bin"
	fi
	rm -f "$prefix/bin/whisk" "$prefix/share/man/man1/whisk.1" "$prefix/share/bash-completion/completions/whisk" \
		"$prefix/share/zsh/site-functions/_whisk" "$prefix/share/fish/vendor_completions.d/whisk.fish"
	echo "removed $prefix/bin/whisk, its manual page and completions"
	echo "hint: images, volumes and sandboxes are still in ${XDG_DATA_HOME:-$HOME/.local/share}/whisk"
}

main "$@" # at the end, so that half a script does nothing
