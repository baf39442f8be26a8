#!/usr/bin/env bash
# Builds the wheel and tries it in a clean environment, with the runtime requirements alone.
set -euo pipefail

python=${PYTHON:-python3}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tree=$(dirname "$here")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    printf 'wheel_check.sh: %s\n' "$1" >&2
    exit 1
}

# contains FILE LINE-PATTERN WHAT
contains() { grep -q -- "$2" "$1" || fail "$3"; }

mkdir "$work/source"
cp -R "$tree"/{setup.py,pyproject.toml,README.md,LICENSE,twstock,twisted} "$work/source"
"$python" -m venv "$work/environment"
bin=$work/environment/bin
pip=("$bin/python" -m pip --disable-pip-version-check install --quiet
    --constraint "$tree/requirements.txt")
"${pip[@]}" setuptools wheel
"$bin/python" -m pip --disable-pip-version-check wheel --quiet --no-deps --no-build-isolation \
    --wheel-dir "$work" "$work/source"
"${pip[@]}" "$work"/twstock-*.whl

cd "$work"
"$bin/python" -m zipfile --list "$work"/twstock-*.whl >names
for name in twstock/catalog.csv twstock/py.typed twstock/pb/order_pb2.py twstock/web/tap.py \
    twstock/web/static/index.html twstock/web/static/vendor/uplot-1.6.32/uPlot.esm.js \
    twstock/web/feed/feed.py twstock/web/http/site.py twstock/web/upstream/leader.py \
    twstock/client/client.py \
    twisted/plugins/twstock_plugins.py; do
    contains names "^$name " "the wheel lacks $name"
done
if grep -q -e '^tests/' -e '^twisted/__init__.py ' -e '^twisted/plugins/__init__.py ' names; then
    fail "the wheel has files that belong to others"
fi

# What is installed is pinned, all of it. PyPI takes a_b, a-b and A-B for one name.
normalised() { tr '[:upper:]_' '[:lower:]-' | LC_ALL=C sort; }
"$bin/python" -m pip --disable-pip-version-check freeze --exclude twstock | normalised >installed
normalised <"$tree/requirements.txt" >pinned
unpinned=$(LC_ALL=C comm -23 installed pinned)
[[ -z $unpinned ]] || fail "not pinned by requirements.txt: $unpinned"
"$bin/python" -m pip --disable-pip-version-check check >/dev/null || fail "pip check fails"

"$bin/twistd" --help >help
for plugin in stock-frontend stock-catalog stock-order stock-cluster; do
    contains help "^ *$plugin " "twistd does not list $plugin"
    "$bin/twistd" "$plugin" --help >/dev/null || fail "twistd $plugin --help fails"
done
"$bin/twstock" --help >/dev/null || fail "twstock --help fails"
[[ $("$bin/twstock" up --help) == *--base-port* ]] || fail "twstock up --help fails"
printf 'wheel: %s runs with its runtime requirements alone\n' "$(basename "$work"/twstock-*.whl)"
