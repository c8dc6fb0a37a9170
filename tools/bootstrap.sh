#!/bin/sh
# Fill .venv from uv.lock on a machine that has no more than a Python >= 3.11.
#
#   [PYTHON=python3.12] tools/bootstrap.sh [options of "uv sync"]
#
# uv lives in .venv-tools, apart from what it installs.
set -eu
cd "$(dirname "$0")/.."

give_up() {
    echo "bootstrap: $*" >&2
    exit 1
}

# The interpreter's own path, past shims and links, or failure when it is missing or too old.
suitable() {
    "$1" -c 'import sys; sys.version_info < (3, 11) and sys.exit(1); print(sys.executable)' 2>/dev/null
}

find_python() {
    for name in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
        suitable "$name" && return
    done
    give_up "no Python 3.11 or newer here; install one, or name it: make PYTHON=/path/to/python3.11"
}

make_venv() {
    rm -rf .venv-tools
    "$python" -m venv .venv-tools >/dev/null 2>&1
}

# Debian keeps a part of venv (ensurepip) in a package of its own, and its pip refuses to install outside of a venv.
add_venv_package() {
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
        give_up "$python cannot make a virtual environment; install its venv part (on Debian: apt-get install $package)"
    echo "bootstrap: installing $package" >&2
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -qq update && apt-get -qq install --yes --no-install-recommends "$package"; } >&2 </dev/null ||
        give_up "apt-get could not install $package"
}

python=$(find_python)
pinned=$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' tools/uv.txt)

case "$(.venv-tools/bin/uv --version 2>/dev/null)" in
"uv $pinned"*) ;;
*)
    make_venv || { add_venv_package && make_venv; } || give_up "$python -m venv .venv-tools fails; try it by hand"
    .venv-tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tools/uv.txt
    ;;
esac

echo "bootstrap: uv sync $* (into .venv, with $python)" >&2

# uv trusts the authorities that it brings. Where Debian keeps the machine's own, those count, as they do for apt.
[ ! -s /etc/ssl/certs/ca-certificates.crt ] || export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}"
# An environment that the caller has activated is none of our business; neither are Pythons from elsewhere.
unset VIRTUAL_ENV UV_PROJECT_ENVIRONMENT
export UV_PYTHON_DOWNLOADS=never
exec .venv-tools/bin/uv sync --quiet --frozen --python "$python" "$@"
