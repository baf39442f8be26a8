#!/usr/bin/env bash
# Kills (-9) order replicas of a running cluster, trading before, during and after, waits until
# they are back and caught up, and compares all logs. `simulate_crashes.sh --help` tells more.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: simulate_crashes.sh [OPTION]... [ID]...

Kills each order replica ID of a running cluster with signal 9, one after the other, and waits
until it is back and has caught up; without an ID, the leader. `twstock up` and systemd restart
what dies; a replica that nobody restarts within 5 seconds is started here, in the background.
Trades go on all the while. At the end `twstock verify` compares the logs of all replicas with
each other and with the catalog; its exit status is this script's. Only processes of this
machine that `twstock status` names as these replicas are killed.

  --url URL        a front-end (default: $TWSTOCK_URL or http://127.0.0.1:8080)
  --data DIR       where the cluster's cluster.toml is, which tells where its members have
                   their data, for a replica that has to be started here (default: var)
  --pause SECONDS  how long to wait after a kill before looking (default: 1)
  --orders N       how many trades before, during and after each crash (default: 10)
  --together       kill all the IDs at once
  --help           show this

Exit status: 0 all equal, 1 not equal or a replica did not come back, 2 wrong usage,
3 the cluster cannot be reached.
TEXT
}

wrong_usage() {
    printf 'simulate_crashes.sh: %s\nTry simulate_crashes.sh --help.\n' "$1" >&2
    exit 2
}

fail() {
    printf 'simulate_crashes.sh: %s\n' "$2" >&2
    exit "$1"
}

say() { printf '%s\n' "$1"; }

# --- options ---------------------------------------------------------------------------------

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
url=${TWSTOCK_URL:-http://127.0.0.1:8080}
data=var
pause=1
orders=10
together=no
ids=()
pid=- alive=- role=- lag=-
readonly RESTART_S=5 RETURN_S=30 STOCK=GameStart

while (($#)); do
    option=$1
    shift
    case $option in
        --url | --data | --pause | --orders)
            (($#)) || wrong_usage "$option needs a value"
            value=$1
            shift
            case $option in
                --url) url=$value ;;
                --data) data=$value ;;
                --pause)
                    [[ $value =~ ^[0-9]+(\.[0-9]+)?$ ]] ||
                        wrong_usage "--pause: expected seconds, got '$value'"
                    pause=$value
                    ;;
                --orders)
                    [[ $value =~ ^[0-9]{1,6}$ ]] ||
                        wrong_usage "--orders: expected a number, got '$value'"
                    orders=$((10#$value))
                    ;;
            esac
            ;;
        --together) together=yes ;;
        --help)
            usage
            exit 0
            ;;
        -*) wrong_usage "unknown option '$option'" ;;
        *)
            [[ $option =~ ^[1-9][0-9]{0,5}$ ]] ||
                wrong_usage "expected the id of an order replica, got '$option'"
            ids+=("$option")
            ;;
    esac
done

# --- the cluster -----------------------------------------------------------------------------

find_twstock() {
    local candidate
    for candidate in "$here/../.venv/bin/twstock" /opt/twstock/bin/twstock; do
        if [[ -x $candidate ]]; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    command -v twstock || fail 3 "there is no twstock command; run 'make install'"
}

twstock=$(find_twstock)
bin=$(cd "$(dirname "$twstock")" && pwd)

# One line for each order replica: id, pid, alive, role, lag; "-" for what is not known.
order_replicas() {
    local status
    status=$("$twstock" status --json --url "$url") || return
    "$bin/python" -c '
import json, sys
for row in json.loads(sys.argv[1])["data"]["services"]:
    if row["service"] == "order":
        words = (row.get(key) for key in ("id", "pid", "alive", "role", "lag"))
        print(*("-" if word is None or word == "" else word for word in words))
' "$status"
}

# Sets pid, alive, role and lag to what the status says of a replica; fails for an unknown one.
look_at() {
    local id
    while read -r id pid alive role lag; do
        if [[ $id == "$1" ]]; then
            return 0
        fi
    done < <(order_replicas 2>/dev/null)
    return 1
}

is_back() { look_at "$1" && [[ $alive == True && $pid != "$2" && $pid != - ]]; }

has_caught_up() { is_back "$1" "$2" && [[ $role == @(leader|follower) && $lag == 0 ]]; }

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < until)) || return 1
        sleep 0.2
    done
}

# Buys and sells in turn, so that the stock lasts. While there is no leader, orders fail.
trade() {
    local k side done=0
    for ((k = 0; k < orders; k++)); do
        side=buy
        ((k % 2 == 0)) || side=sell
        if "$twstock" "$side" "$STOCK" 1 --url "$url" >/dev/null 2>&1; then
            done=$((done + 1))
        fi
    done
    say "$1: $done of $orders orders were placed"
}

kill_replica() {
    local words=""
    if [[ -r /proc/$2/cmdline ]]; then
        words=$(tr '\0' ' ' <"/proc/$2/cmdline")
    fi
    [[ $words == *stock-order*--name\ order-$1\ * ]] ||
        fail 1 "process $2 is not order-$1 on this machine; nothing was killed"
    kill -KILL "$2"
    say "killed order-$1 (process $2)"
}

# The directory of an order replica, which need not be beside the cluster.toml that names it.
directory_of() {
    "$bin/python" -c '
import sys
from pathlib import Path
from twstock.config import read
from twstock.errors import TwstockError
try:
    print(read(Path(sys.argv[1])).data_of("order", int(sys.argv[2])))
except TwstockError as error:
    sys.exit(str(error))
' "$1" "$2"
}

start_replica() {
    local toml=$data/cluster.toml directory log
    [[ -f $toml ]] ||
        fail 1 "nobody restarts order-$1, and there is no $toml: say with --data where it is"
    directory=$(directory_of "$toml" "$1") || fail 1 "nobody restarts order-$1"
    [[ -d $directory ]] ||
        fail 1 "nobody restarts order-$1, and $directory, where $toml says it is, is not there"
    log=$directory/service.log
    setsid "$bin/twistd" -n --pidfile= stock-order \
        --config "$toml" --name "order-$1" >>"$log" 2>&1 </dev/null &
    say "nobody restarts order-$1: started it as process $!, its log is $log"
}

await_return() {
    wait_for "$RETURN_S" has_caught_up "$1" "$2" ||
        fail 1 "order-$1 is not back after $RETURN_S seconds (alive: $alive, role: $role, lag: $lag)"
    say "order-$1 is back as process $pid, $role, caught up"
}

# crash ID...: kills these replicas at once and brings them back.
crash() {
    local id victim victims=()
    for id in "$@"; do
        look_at "$id" || fail 3 "the cluster at $url has no order-$id"
        [[ $alive == True ]] || fail 1 "order-$id is not alive to begin with"
        victims+=("$id $pid")
    done
    trade "before"
    for victim in "${victims[@]}"; do
        kill_replica "${victim% *}" "${victim#* }"
    done
    trade "without ${*/#/order-}"
    sleep "$pause"
    for victim in "${victims[@]}"; do
        wait_for "$RESTART_S" is_back "${victim% *}" "${victim#* }" || start_replica "${victim% *}"
    done
    for victim in "${victims[@]}"; do
        await_return "${victim% *}" "${victim#* }"
    done
    trade "after"
}

# --- what happens ----------------------------------------------------------------------------

replicas=$(order_replicas) || fail 3 "cannot reach the cluster at $url"
if ((${#ids[@]} == 0)); then
    while read -r id _ alive role _; do
        if [[ $role == leader && $alive == True ]]; then
            ids=("$id")
        fi
    done <<<"$replicas"
    ((${#ids[@]})) || fail 3 "no order replica leads; name the ones to kill"
fi
for id in "${ids[@]}"; do # before any is killed
    grep -q "^$id " <<<"$replicas" || wrong_usage "the cluster at $url has no order-$id"
done
if [[ $together == yes ]]; then
    crash "${ids[@]}"
else
    for id in "${ids[@]}"; do
        crash "$id"
    done
fi
exec "$twstock" verify --url "$url"
