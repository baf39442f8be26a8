#!/usr/bin/env bash
# Runs the console's tests in headless Chromium: `run.sh [test | screenshots]`. What they need
# from npm is installed beside them; Chromium and Node.js have to be on the machine.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

readonly NODE_MIN=18
readonly LIMIT_S=1500

fail() {
    printf 'run.sh: %s\n' "$1" >&2
    exit 1
}

# Each command with the Debian package that has it.
readonly WANTED=("${CHROMIUM:-chromium}:chromium" node:nodejs npm:npm)

missing=()
for pair in "${WANTED[@]}"; do
    command -v "${pair%:*}" >/dev/null || missing+=("${pair##*:}")
done
((${#missing[@]} == 0)) || fail "missing: install Debian's ${missing[*]} (apt-get install)"
CHROMIUM=$(command -v "${CHROMIUM:-chromium}")
export CHROMIUM
[[ $(node --print 'parseInt(process.versions.node)') -ge $NODE_MIN ]] ||
    fail "Node.js $NODE_MIN or later is needed"

# As the lock file has it, and again only when that has changed.
cmp -s package-lock.json node_modules/.installed || {
    npm ci --no-audit --no-fund --loglevel=error
    cp package-lock.json node_modules/.installed
}

case ${1:-test} in
test)
    npm run --silent lint
    timeout --kill-after=10 "$LIMIT_S" node --test models.test.js feed.test.js submission.test.js console.test.js
    ;;
screenshots) node screenshots.js ;;
*) fail "expected test or screenshots" ;;
esac
