#!/bin/sh
# Makes /data redis's own and drops to its user, as the well-known image does.
set -e
case ${1:-} in -* | *.conf) set -- redis-server "$@" ;; esac
if [ "${1:-}" = redis-server ] && [ "$(id -u)" = 0 ]; then
	find . \! -user redis -exec chown redis '{}' +
	exec setpriv --reuid redis --regid redis --init-groups "$0" "$@"
fi
if [ "${1:-}" = redis-server ]; then
	umask 0077
	set -- "$@" --bind '* -::*' --protected-mode no
fi
exec "$@"
