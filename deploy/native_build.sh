#!/usr/bin/env bash
# Installs twstock on this machine, or into a directory tree for an image. Run it again to
# upgrade. `native_build.sh --help` lists the options.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: native_build.sh [OPTION]...

Installs twstock from this source tree: OS packages (apt or dnf), a virtual environment with
the wheel and its pinned requirements, the systemd units, and an example cluster.toml if there
is none. Needs root unless --root is given. Running it again upgrades; data is never touched.

  --prefix DIR    where twstock goes, in a directory of its own (default: /opt/twstock)
  --root DIR      install into the tree under DIR and leave this machine alone
  --python FILE   the Python to use (default: the newest python3 in /usr/bin, 3.11 or later)
  --no-systemd    install no units
  --no-packages   install no OS packages
  --help          show this

Exit status: 0 done, 1 something failed, 2 wrong usage.
TEXT
}

wrong_usage() {
    printf 'native_build.sh: %s\nTry native_build.sh --help.\n' "$1" >&2
    exit 2
}

fail() {
    printf 'native_build.sh: %s\n' "$1" >&2
    exit 1
}

say() { printf 'native_build.sh: %s\n' "$1"; }

# --- options ---------------------------------------------------------------------------------

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source_tree=$(dirname "$here")
prefix=/opt/twstock
root=""
python=""
with_systemd=yes
with_packages=yes

while (($#)); do
    option=$1
    shift
    case $option in
        --prefix | --root | --python)
            (($#)) || wrong_usage "$option needs a value"
            value=$1
            shift
            [[ $value == /* ]] || wrong_usage "$option: expected an absolute path, got '$value'"
            [[ $value != *[[:space:]\|\&\\]* ]] ||
                wrong_usage "$option: no spaces, '|', '&' or '\\' in a path, got '$value'"
            case $option in
                --prefix) prefix=${value%/} ;;
                --root) root=${value%/} ;;
                --python) python=$value ;;
            esac
            ;;
        --no-systemd) with_systemd=no ;;
        --no-packages) with_packages=no ;;
        --help)
            usage
            exit 0
            ;;
        *) wrong_usage "unknown option '$option'" ;;
    esac
done
[[ -n $prefix ]] || wrong_usage "--prefix: / is no place for an environment"
if [[ -z $root && $EUID -ne 0 ]]; then
    fail "needs root; with --root DIR it installs into a tree of your own"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# --- the parts -------------------------------------------------------------------------------

install_packages() {
    if command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends \
            ca-certificates python3 python3-venv util-linux >/dev/null
        say "Debian packages: python3, python3-venv, ca-certificates, util-linux"
    elif command -v dnf >/dev/null; then
        # Amazon Linux 2023: its python3 is 3.9.
        dnf install -y -q ca-certificates python3.11 python3.11-pip util-linux
        say "packages: python3.11, python3.11-pip, ca-certificates, util-linux"
    else
        fail "neither apt-get nor dnf is here; install Python 3.11 and use --no-packages"
    fi
}

# Whoever means /usr/local by "where programs go" must not lose what is there, and a Python that
# is there is not ours to install into.
refuse_used_prefix() {
    [[ ! -e $environment || -f $environment/pyvenv.cfg ]] && return
    [[ -d $environment && -z $(ls -A "$environment") ]] ||
        fail "$environment is neither empty nor a virtual environment; give twstock a directory of its own, for example --prefix ${prefix%/}/twstock"
}

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# The system's own Python comes first: one in somebody's home cannot be reached by a service.
find_python() {
    local candidate
    for candidate in /usr/bin/python3.{14,13,12,11} /usr/bin/python3 python3; do
        if is_recent "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    fail "found no Python from 3.11 on; name one with --python"
}

build_wheel() {
    local tree=$work/source
    mkdir "$tree"
    cp -R "$source_tree"/{setup.py,pyproject.toml,README.md,LICENSE,twstock,twisted} "$tree"
    "$environment/bin/python" -m pip wheel --quiet --no-deps --no-build-isolation \
        --wheel-dir "$work" "$tree"
}

# pip knows only where files are now; what the scripts have to name is where they will be.
settle_in_prefix() {
    local file
    for file in "$environment"/bin/*; do
        if [[ -f $file && ! -L $file ]]; then
            sed -i "s|$root$prefix|$prefix|g" "$file"
        fi
    done
    sed -i "s|$root$prefix|$prefix|g" "$environment/pyvenv.cfg"
}

install_environment() {
    say "installing into $root$prefix with $python"
    if ! is_recent "$environment/bin/python"; then
        local clear=()
        [[ ! -f $environment/pyvenv.cfg ]] || clear=(--clear)
        mkdir -p "$environment"
        "$python" -m venv "${clear[@]}" "$environment" ||
            fail "$python has no venv; on Debian: python3-venv"
    fi
    local pip=("$environment/bin/python" -m pip --disable-pip-version-check install --quiet
        --no-compile --no-warn-script-location --constraint "$source_tree/requirements.txt")
    "${pip[@]}" setuptools wheel
    build_wheel
    local wheel=("$work"/twstock-*.whl)
    "${pip[@]}" "${wheel[0]}[grpc]"
    # The same version may have other contents: a wheel from a working tree always goes in.
    "${pip[@]}" --no-deps --force-reinstall "$work"/twstock-*.whl
    # Tracebacks name the final place, not the tree under --root.
    local strip=()
    [[ -z $root ]] || strip=(-s "$root")
    "$environment/bin/python" -m compileall -q -j 0 "${strip[@]}" "$environment/lib" ||
        say "some modules could not be compiled; they will be when they are imported"
    # Members may not write here: the list of plugins has to be complete now.
    "$environment/bin/python" "$environment/bin/twistd" --help >"$work/help"
    local plugin
    for plugin in stock-frontend stock-catalog stock-order stock-cluster; do
        grep -q "^ *$plugin" "$work/help" || fail "twistd does not list $plugin"
    done
    if [[ -n $root ]]; then
        settle_in_prefix
    fi
    say "installed twstock $("$environment/bin/python" -c 'import twstock; print(twstock.__version__)')"
}

install_config() {
    local file=$root/etc/twstock/cluster.toml
    if [[ -e $file ]]; then
        say "kept $file"
    else
        install -D -m 0644 "$here/cluster.example.toml" "$file"
        say "wrote $file: one machine, three order replicas; edit it first if that is not yours"
    fi
    "$environment/bin/python" - "$file" <<'PYTHON' || fail "$file cannot be used as it is"
import sys
from pathlib import Path
from twstock.config import read
from twstock.errors import ConfigError
try:
    read(Path(sys.argv[1]))
except ConfigError as error:
    sys.exit(str(error))
PYTHON
}

install_units() {
    local unit
    for unit in "$here"/systemd/*; do
        sed "s|/opt/twstock/|$prefix/|g" "$unit" >"$work/unit"
        install -D -m 0644 "$work/unit" "$root/etc/systemd/system/${unit##*/}"
    done
    say "installed the units stock-{frontend,catalog,order}@.service, stock-frontend@.socket and twstock.target"
    if [[ -z $root && -d /run/systemd/system ]]; then
        systemctl daemon-reload
    fi
}

tell_next() {
    printf '\nNext:\n'
    if [[ $with_systemd == no ]]; then
        printf '  %s --config /etc/twstock/cluster.toml --name order-1    # and so on\n' \
            "$prefix/bin/twistd -n --pidfile= stock-order"
        return
    fi
    cat <<TEXT
  # once, with the members of this machine by their numbers in /etc/twstock/cluster.toml
  systemctl enable --now twstock.target stock-catalog@1 stock-order@{1,2,3} stock-frontend@1
  $prefix/bin/twstock status
  # after an upgrade, one member at a time, each when the one before is back (lag 0)
  systemctl restart stock-order@1
TEXT
}

# --- what happens ----------------------------------------------------------------------------

environment=$root$prefix
refuse_used_prefix
if [[ $with_packages == yes && -z $root ]]; then
    install_packages
fi
python=${python:-$(find_python)}
is_recent "$python" || fail "$python is no Python from 3.11 on"
home=$("$python" -c 'import sys; print(sys.base_prefix)')
if [[ $with_systemd == yes && $home == @(/root|/home)/* ]]; then
    say "warning: $python lives in $home, which the units cannot see (ProtectHome)"
fi
install_environment
install_config
if [[ $with_systemd == yes ]]; then
    install_units
fi
tell_next
