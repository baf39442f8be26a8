"""A real cluster whose members identify each other by certificates."""

import http.client
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.certified import issue, make
from tests.cluster_fixture import TWSTOCK, Cluster, wait_until

pytestmark = pytest.mark.processes
DAY_S = 86400


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, certificates):
    """Three order replicas, one front-end and one catalog, all over TLS; its directory has copies
    of the certificates, which a test may replace.
    """
    directory = tmp_path_factory.mktemp("cluster")
    shutil.copytree(certificates, directory / "tls")
    with Cluster(directory, tls=Path("tls")) as running:
        yield running


def twstock(*arguments):
    """Run a command to its end: exit status, standard output, standard error."""
    command = [*TWSTOCK, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def certificates_left(cluster):
    """For how many more seconds the certificate of each member is good, as the members say."""
    connection = http.client.HTTPConnection(*cluster.address())
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    name = "twstock_certificate_left_seconds"
    return [float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)]


def test_it_trades_fails_over_and_verifies(cluster):
    """As without TLS, a leader that is killed is replaced, and each order is executed once."""
    numbers = [cluster.trade("GameStart", 1, "buy") for _ in range(5)]
    leader = cluster.await_leader()
    cluster.signal(leader)
    numbers += [cluster.trade("GameStart", 1, "sell") for _ in range(5)]
    cluster.await_healthy()
    assert numbers == list(range(numbers[0], numbers[0] + 10))
    cluster.assert_verified()


def test_the_commands_use_the_certificate_of_tools(cluster, tmp_path, monkeypatch):
    """``verify``, ``export`` and ``backup`` find the client's certificate by cluster.toml, --tls or
    $TWSTOCK_TLS.
    """
    status, out, err = twstock("verify", "--config", str(cluster.toml))
    assert (status, err) == (0, ""), out
    named = ("--url", cluster.url, "--tls", str(cluster.directory / "tls"))
    assert twstock("verify", *named)[0] == 0
    assert twstock("export", str(tmp_path / "out"), *named)[0] == 0
    assert twstock("backup", str(tmp_path / "all.gz"), "--config", str(cluster.toml))[0] == 0
    monkeypatch.setenv("TWSTOCK_TLS", str(cluster.directory / "tls"))
    assert twstock("verify", "--url", cluster.url)[0] == 0
    monkeypatch.setenv("TWSTOCK_TLS", str(tmp_path))
    assert twstock("verify", "--config", str(cluster.toml))[0] == 0
    status, _, err = twstock("verify", "--url", cluster.url)
    assert (status, err) == (2, f"twstock: {tmp_path}/ca.pem: No such file or directory\n")


def test_a_command_without_a_certificate_reaches_nobody(cluster):
    """It ends, and says whom it could not reach and that TLS may be the reason."""
    status, out, _ = twstock("verify", "--url", cluster.url)
    assert status == 3
    assert "cannot reach order-1" in out
    assert "TLS" in out


def test_every_member_tells_how_long_its_certificate_is_good(cluster):
    """The front-end's metrics have this for each member."""
    # A member has a quarter of a second to tell.
    left = wait_until(
        lambda: len(now := certificates_left(cluster)) == 5 and now, "every member to tell"
    )
    assert all(seconds > 300 * DAY_S for seconds in left)


def test_certificates_are_renewed_while_all_run(cluster):
    """New files are used without stopping the cluster: trades go on, and each member tells for how
    long its new certificate is good.
    """
    names = ["catalog-1", "front-1", "order-1", "order-2", "order-3", "client"]
    make(cluster.directory / "tls", *names, days=30)
    cluster.signal(cluster.await_leader())
    cluster.trade("GameStart", 1, "buy")
    cluster.await_healthy()
    cluster.assert_verified()
    left = wait_until(
        lambda: len(now := certificates_left(cluster)) == 5 and now, "every member to tell"
    )
    assert all(seconds < 31 * DAY_S for seconds in left)


def test_a_member_whose_certificate_has_ended_does_not_start(cluster):
    """It says why, and the others go on. With a good certificate it starts."""
    issue(cluster.directory / "tls", "order-1", days=-1)
    cluster.signal("order-1")
    log = cluster.directory / "order-1" / "service.log"
    wait_until(
        lambda: "order-1.pem: certificate has expired" in log.read_text(), "order-1 to refuse"
    )
    cluster.trade("GameStart", 1, "buy")
    make(cluster.directory / "tls", "order-1")
    cluster.await_healthy()
    cluster.assert_verified()
