#!/bin/sh
# See to it that the tests find a PostgreSQL server to start: Debian's own package, installed when it is missing. The
# server that the package would make is not made: the tests start one of their own, on a free port, in a temporary folder.
set -eu

for initdb in /usr/lib/postgresql/*/bin/initdb; do
    [ ! -x "$initdb" ] || exit 0
done

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "postgres: no server here, so its tests are left out (on Debian: apt-get install postgresql)" >&2
    exit 0
fi

echo "postgres: installing postgresql" >&2
export DEBIAN_FRONTEND=noninteractive
mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] ||
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
{ apt-get -qq update && apt-get -qq install --yes --no-install-recommends postgresql; } >/dev/null </dev/null || {
    echo "postgres: apt-get could not install postgresql" >&2
    exit 1
}
