#!/bin/sh
# See to it that tests/browser finds Chromium and its driver: Debian's own packages, installed when they are missing.
set -eu

missing=""
command -v chromium >/dev/null || missing="chromium"
command -v chromedriver >/dev/null || missing="$missing chromium-driver"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "browser: no$missing here, so tests/browser is left out (on Debian: apt-get install $missing)" >&2
    exit 0
fi

echo "browser: installing $missing" >&2
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 (words on purpose)
{ apt-get -qq update && apt-get -qq install --yes --no-install-recommends $missing; } >/dev/null </dev/null || {
    echo "browser: apt-get could not install $missing" >&2
    exit 1
}
