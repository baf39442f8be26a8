"""The units under a real systemd, on a machine of their own: what operators are told is done here.

``native_build.sh`` installs into a guest of this machine (``tests/guest.py``), which then runs the
cluster of the example.
"""

import json
import shlex
from pathlib import Path

import pytest

from tests.cluster_fixture import wait_until
from tests.guest import CannotBootError, CommandError, Guest, obstacle

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(why := obstacle()), reason=why or "-"),
]
DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
TWSTOCK = "/opt/twstock/bin/twstock"
MEMBERS = ("stock-catalog@1", "stock-order@1", "stock-order@2", "stock-order@3", "stock-frontend@1")
URL = "http://127.0.0.1:8080"
BUY = """-X POST -d '{"name": "GameStart", "type": "buy", "quantity": 1}'"""


@pytest.fixture(scope="module")
def guest(tmp_path_factory):
    """A machine that runs the example of a cluster, started as ``native_build.sh`` says at its
    end.
    """
    directory = tmp_path_factory.mktemp("guest") / "layer"
    directory.mkdir()
    with Guest(directory) as made:
        made.outside(DEPLOY / "native_build.sh", "--root", made.root, "--no-packages")
        try:
            made.boot()
        except CannotBootError as error:
            pytest.skip(f"this machine boots no guest: {error}")
        made(f"systemctl enable --now twstock.target {' '.join(MEMBERS)}")
        whole(made)
        yield made


def whole(guest):
    """Wait until every member is alive, and every follower has what its leader has."""

    def lagging():
        try:
            rows = json.loads(guest(f"{TWSTOCK} status --json"))["data"]["services"]
        except CommandError as error:
            return str(error)
        return [row for row in rows if not row["alive"] or row.get("lag")]

    wait_until(lambda: lagging() == [], "all members", 30)


def shown(guest, unit, name):
    """A property of a unit."""
    return guest(f"systemctl show --value --property={name} {unit}").strip()


def leader(guest):
    """The unit of the order leader."""
    rows = json.loads(guest(f"{TWSTOCK} status --json"))["data"]["services"]
    [number] = [r["id"] for r in rows if r["service"] == "order" and r["role"] == "leader"]
    return f"stock-order@{number}"


def traded(guest, count=1):
    """Make so many trades, one after the other; returns their numbers."""
    answers = guest(f"for i in $(seq {count}); do curl -sS -m 9 {BUY} {URL}/orders; echo; done")
    return [json.loads(line)["data"]["transaction_number"] for line in answers.splitlines()]


def verified(guest):
    """Whether all replicas have the same orders, and these account for all stocks."""
    return "12 stocks: what the orders make them" in guest(f"{TWSTOCK} verify")


def test_a_member_may_do_next_to_nothing(guest):
    """Each member runs as a user other than root, without capabilities, with a filter of system
    calls; only its user can read its data.
    """
    for unit in MEMBERS:
        status = guest(f"cat /proc/{shown(guest, unit, 'MainPID')}/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
        assert int(fields["CapEff"], 16) == 0
        assert "0" not in fields["Uid"].split()
    assert guest("stat -c %a /var/lib/private/twstock/order-1") == "700\n"


def test_who_is_killed_or_hangs_is_started_again(guest):
    """A leader that is killed is started again while trades go on without a gap; a member that
    hangs is started again by its watchdog.
    """
    before = traded(guest)
    killed = leader(guest)
    guest(f"systemctl kill --signal=KILL {killed}")
    assert traded(guest, 20) == [before[-1] + 1 + k for k in range(20)]
    whole(guest)
    hung = min({f"stock-order@{k}" for k in (1, 2, 3)} - {killed, leader(guest)})
    restarts = int(shown(guest, hung, "NRestarts"))
    guest(f"systemctl kill --signal=STOP {hung}")
    wait_until(lambda: int(shown(guest, hung, "NRestarts")) > restarts, "the watchdog", 20)
    whole(guest)
    assert verified(guest)


def test_a_front_end_is_started_again_and_nobody_is_refused(guest):
    """Systemd holds its listener, so each request is answered through a restart and through a
    kill.
    """
    guest(
        "systemctl stop stock-frontend@1; systemctl enable --now stock-frontend@1.socket;"
        "systemctl start stock-frontend@1"
    )
    codes = guest(
        f"(sleep 0.5; systemctl restart stock-frontend@1; sleep 0.5;"
        f" systemctl kill --signal=KILL stock-frontend@1) & "
        f"end=$((SECONDS + 4)); while ((SECONDS < end)); do"
        f" curl -sS -m 9 -o /dev/null -w '%{{http_code}}\\n' {URL}/stocks/AAPL; done; wait"
    )
    assert set(codes.split()) == {"200"}
    assert int(shown(guest, "stock-frontend@1", "NRestarts")) == 1


def test_a_wiped_member_is_left_alone_until_it_rejoins(guest):
    """A wiped member exits with 78, as starting it again is of no use, and systemd does not. After
    ``twstock rejoin`` it starts.
    """
    wiped = next(f"stock-order@{k}" for k in (1, 2, 3) if leader(guest) != f"stock-order@{k}")
    number, name = wiped[-1], wiped.replace("stock-", "").replace("@", "-")
    wipe = f"find /var/lib/private/twstock/{name} -mindepth 1 -delete"
    with pytest.raises(CommandError):
        guest(f"systemctl stop {wiped}; {wipe}; systemctl start {wiped}")
    assert shown(guest, wiped, "ExecMainStatus") == "78"
    assert shown(guest, wiped, "ActiveState") == "failed"
    assert "knows this member by another incarnation" in guest(f"journalctl -o cat -u {wiped}")
    guest(
        f"{wipe}; {TWSTOCK} rejoin order-{number} --config /etc/twstock/cluster.toml"
        f" --to /var/lib/twstock/{name}; systemctl start {wiped}"
    )
    whole(guest)
    assert verified(guest)


def test_certificates_and_the_token_are_credentials(guest):
    """The keys and the token are files of root, and each member gets its own as credentials, as
    operations.md and admin.md say. Then the cluster runs with TLS and takes the token.
    """
    names = "catalog-1 order-1 order-2 order-3 front-1 client"
    etc = guest.root / "etc/twstock"
    guest("systemctl stop twstock.target")
    guest.outside(DEPLOY / "certificates.sh", guest.root / "srv/ca", *names.split())
    guest(
        "cd /etc/twstock; cp /srv/ca/*.pem /srv/ca/*.key .; rm -f ca.key;"
        "(umask 077; head -c 24 /dev/urandom | base64 > admin-token);"
        "sed -i '/^data/a tls = \".\"' cluster.toml;"
        "printf '\\n[admin]\\ntoken_file = \"admin-token\"\\n' >> cluster.toml"
    )
    for unit, member in (("order", "order"), ("catalog", "catalog"), ("frontend", "front")):
        files = ["ca.pem", f"{member}-%i.pem", f"{member}-%i.key"]
        files += ["admin-token"] * (unit == "frontend")
        lines = ["[Service]", *(f"LoadCredential={file}:/etc/twstock/{file}" for file in files)]
        place = f"/etc/systemd/system/stock-{unit}@.service.d"
        guest(f"mkdir {place}; printf '%s\\n' {shlex.join(lines)} > {place}/override.conf")
    guest("systemctl daemon-reload; systemctl start twstock.target")
    whole(guest)
    traded(guest)
    with pytest.raises(CommandError, match="perhaps it uses TLS"):
        guest(f"{TWSTOCK} verify --url {URL}")
    assert "12 stocks" in guest(
        f"{TWSTOCK} verify --config {etc.relative_to(guest.root)}/cluster.toml"
    )
    guest(f"{TWSTOCK} admin price GameStart 17.25 --token-file /etc/twstock/admin-token")
    assert json.loads(guest(f"curl -sS {URL}/stocks/GameStart"))["data"]["price"] == 17.25
