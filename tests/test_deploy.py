"""What is in ``deploy/``: scripts, units, and the example configuration."""

import configparser
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from twstock.config import default_cluster, parse
from twstock.plan import member_names, to_text
from twstock.rpc.health import CHECKS_MAX
from twstock.rpc.server import THREADS_SPARE
from twstock.web.http import sockets
from twstock.web.tap import pool_sizes

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
BUILD = DEPLOY / "native_build.sh"
CRASHES = DEPLOY / "simulate_crashes.sh"
SCRIPTS = [BUILD, CRASHES, ROOT / ".ci/run", ROOT / ".ci/wheel_check.sh"]
UNITS = sorted((DEPLOY / "systemd").iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
BUILD_S = 600


def needs(tool):
    """Skip, and say why, where a tool of the operating system is missing; CI installs it."""
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


def run(*command, limit_s=60):
    """Run a command to its end, its two outputs apart."""
    words = list(map(str, command))
    return subprocess.run(words, capture_output=True, text=True, timeout=limit_s, check=False)


def directives(unit):
    """The last value of every directive of a unit's [Service]."""
    parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    parser.optionxform = str
    parser.read(unit)
    return dict(parser["Service"])


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """A tree into which native_build.sh has installed everything, beside systemd's targets."""
    root = tmp_path_factory.mktemp("root")
    done = run(BUILD, "--root", root, limit_s=BUILD_S)
    assert done.returncode == 0, done.stderr
    targets = root / "usr/lib/systemd/system"
    targets.mkdir(parents=True)
    for directory in (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system")):
        for target in directory.glob("*.target"):
            shutil.copy(target, targets)
    return root, done.stdout


@needs("shellcheck")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_pass_shellcheck(script):
    """Every script can be run, stops at the first error, and shellcheck has nothing to say."""
    text = script.read_text()
    assert os.access(script, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert "shellcheck disable" not in text
    done = run("shellcheck", script)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        (BUILD, ["--prefix"], "--prefix needs a value"),
        (BUILD, ["--prefix", "relative"], "expected an absolute path"),
        (BUILD, ["--prefix", "/"], "/ is no place"),
        (BUILD, ["--root", "/tmp/a b"], "no spaces"),
        (BUILD, ["--nonsense"], "unknown option '--nonsense'"),
        (BUILD, ["extra"], "unknown option 'extra'"),
        (CRASHES, ["--url"], "--url needs a value"),
        (CRASHES, ["--pause", "soon"], "expected seconds"),
        (CRASHES, ["--orders", "-1"], "expected a number"),
        (CRASHES, ["--nonsense"], "unknown option '--nonsense'"),
        (CRASHES, ["0"], "expected the id of an order replica"),
        (CRASHES, ["order-1"], "expected the id of an order replica"),
    ],
)
def test_wrong_usage_is_told_and_has_exit_status_2(script, arguments, words):
    """A script that is asked for what it cannot do names the word at fault and does nothing."""
    done = run(script, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


@pytest.mark.parametrize("script", [BUILD, CRASHES], ids=lambda path: path.name)
def test_help_names_every_option(script):
    """``--help`` tells every option that the script takes."""
    done = run(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for line in script.read_text().splitlines():
        words = line.strip().removesuffix(")").split(" | ")
        if all(word.startswith("--") and " " not in word for word in words):
            assert all(word in done.stdout for word in words)


def test_simulate_crashes_tells_that_it_cannot_reach_the_cluster():
    """Without a cluster nothing is killed and the exit status is 3."""
    done = run(CRASHES, "--url", "http://127.0.0.1:9", "1")
    assert done.returncode == 3
    assert "cannot reach the cluster" in done.stderr


def with_data(place):
    """The default cluster's cluster.toml, with its data somewhere else."""
    return to_text(default_cluster()).replace('data = "."', f'data = "{place}"')


@pytest.fixture
def drill(tmp_path):
    """simulate_crashes.sh beside commands that only play a cluster of one replica, order-1: what
    it kills is a process that sleeps, and what it starts only says so.
    """
    (tmp_path / "deploy").mkdir()
    script = shutil.copy(CRASHES, tmp_path / "deploy")
    status = tmp_path / "status"
    row = '{{"data": {{"services": [{{"service": "order", "id": 1, "pid": {}, "alive": true, '
    row += '"role": "follower", "lag": 0}}]}}}}'
    sleeping = [sys.executable, "-c", "import time; time.sleep(100)", "stock-order"]
    with subprocess.Popen([*sleeping, "--name", "order-1", "end"]) as victim:
        status.write_text(row.format(victim.pid))
        commands = {
            "python": f'exec {sys.executable} "$@"',
            "twstock": f"if [ $1 = status ]; then cat {status}; fi",
            "twistd": f"echo started: $*; echo '{row.format(1)}' >{status}",
        }
        bin_ = tmp_path / ".venv/bin"
        bin_.mkdir(parents=True)
        for name, words in commands.items():
            (bin_ / name).write_text(f"#!/bin/sh\n{words}\n")
            (bin_ / name).chmod(0o755)
        yield script
        victim.kill()


def test_simulate_crashes_starts_a_replica_where_its_data_is(tmp_path, drill):
    """--data is where cluster.toml is, which tells the rest."""
    etc, data = tmp_path / "etc", tmp_path / "lib/order-1"
    for directory in (etc, data):
        directory.mkdir(parents=True)
    (etc / "cluster.toml").write_text(with_data(data.parent))
    done = run(drill, "--data", etc, "--pause", "0", "--orders", "1", "1")
    assert (done.returncode, done.stderr) == (0, "")
    words = f"--config {etc}/cluster.toml --name order-1"
    started = f"started: -n --pidfile= stock-order {words}\n"
    assert (data / "service.log").read_text() == started
    assert f", its log is {data}/service.log\n" in done.stdout


def test_simulate_crashes_kills_nothing_when_one_of_the_replicas_is_unknown(drill):
    """That is wrong usage, even if the replicas named before it exist."""
    done = run(drill, "1", "9")
    assert (done.returncode, done.stdout) == (2, "")
    assert "has no order-9" in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no DIR/cluster.toml: say with --data where it is"),
        (
            with_data("elsewhere"),
            "DIR/elsewhere/order-1, where DIR/cluster.toml says it is, is not",
        ),
    ],
)
def test_simulate_crashes_tells_why_it_starts_no_replica(tmp_path, drill, text, words):
    """Nobody restarts what it killed, and --data does not lead to the data of that replica."""
    if text is not None:
        (tmp_path / "cluster.toml").write_text(text)
    done = run(drill, "--data", tmp_path, "--pause", "0", "--orders", "1", "1")
    assert done.returncode == 1
    assert "nobody restarts order-1" in done.stderr
    assert words.replace("DIR", str(tmp_path)) in done.stderr


@pytest.mark.parametrize("kept", ["share/precious.txt", "bin/python"])
def test_what_is_no_environment_is_left_alone(tmp_path, kept):
    """A prefix that others use is neither emptied nor installed into, whatever Python is there."""
    file = tmp_path / "usr/local" / kept
    file.parent.mkdir(parents=True)
    file.symlink_to(sys.executable)
    done = run(BUILD, "--root", tmp_path, "--prefix", "/usr/local", limit_s=BUILD_S)
    assert (done.returncode, done.stdout) == (1, "")
    assert "neither empty nor a virtual environment" in done.stderr
    assert "--prefix /usr/local/twstock" in done.stderr
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == [file]


@pytest.mark.parametrize(("made", "arguments"), [(False, "-m venv"), (True, "-m venv --clear")])
def test_only_an_environment_is_emptied(tmp_path, made, arguments):
    """An empty directory is used as it is; an environment without a Python is made anew."""
    environment = tmp_path / "opt/twstock"
    environment.mkdir(parents=True)
    if made:
        (environment / "pyvenv.cfg").touch()
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *venv*) echo "asked: $*"; exit 1 ;; esac\n')
    python.chmod(0o755)
    done = run(BUILD, "--root", tmp_path, "--python", python)
    assert done.returncode == 1
    assert f"asked: {arguments} {environment}\n" in done.stdout


@pytest.mark.timeout(BUILD_S)
def test_the_staged_tree_names_no_place_of_this_machine(staged):
    """What is installed under --root works where it will be, and names nothing else."""
    root, output = staged
    bin_ = root / "opt/twstock/bin"
    for name in ("twistd", "twstock", "pip"):
        first = (bin_ / name).read_text().splitlines()[0]
        assert first.startswith("#!/opt/twstock/bin/python")
    for file in [*bin_.iterdir(), root / "opt/twstock/pyvenv.cfg"]:
        if file.is_file() and not file.is_symlink():
            assert str(root) not in file.read_text()
    assert "systemctl enable --now twstock.target" in output


@pytest.mark.timeout(BUILD_S)
def test_the_staged_environment_has_the_plugins_and_no_tools(staged):
    """The environment runs every plugin, and holds what services need, nothing for developers."""
    root, _ = staged
    python = root / "opt/twstock/bin/python"
    frozen = run(python, "-m", "pip", "freeze", "--exclude", "twstock").stdout.lower().split()
    pinned = (ROOT / "requirements.txt").read_text().lower().replace("_", "-").split()
    assert {line.replace("_", "-") for line in frozen} <= set(pinned)
    assert not any(line.startswith(("pytest", "mypy", "ruff")) for line in frozen)
    listed = run(python, root / "opt/twstock/bin/twistd", "--help").stdout
    for plugin in ("stock-frontend", "stock-catalog", "stock-order", "stock-cluster"):
        assert f" {plugin} " in listed


@pytest.mark.timeout(BUILD_S)
def test_a_second_run_keeps_the_configuration(staged):
    """An upgrade replaces the program and leaves cluster.toml alone, which services want without
    systemd, too.
    """
    root, _ = staged
    config = root / "etc/twstock/cluster.toml"
    text = config.read_text().replace('"example"', '"mine"')
    config.write_text(text)
    done = run(BUILD, "--root", root, "--no-systemd", limit_s=BUILD_S)
    assert done.returncode == 0, done.stderr
    assert config.read_text() == text
    assert f"kept {config}" in done.stdout


@pytest.mark.timeout(BUILD_S)
@needs("systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_has_nothing_to_say_about_a_unit(staged, unit):
    """Where the project is installed, systemd accepts each unit without a warning."""
    root, _ = staged
    name = unit.name.replace("@.", "@1.")
    done = run("systemd-analyze", "verify", "--man=no", f"--root={root}", name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.timeout(BUILD_S)
@needs("systemd-analyze")
@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_a_service_is_hardly_exposed(staged, unit):
    """By systemd's measure, what a taken-over service could reach stays under 1.5 of 10."""
    root, _ = staged
    name = unit.name.replace("@.", "@1.")
    arguments = ("--offline=yes", "--threshold=15", "--no-pager", f"--root={root}", name)
    done = run("systemd-analyze", "security", *arguments)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_a_service_reads_its_secrets_from_credentials_alone(unit):
    """The configuration is a credential, and nothing secret is put into the environment."""
    service = directives(unit)
    assert service["LoadCredential"] == "cluster.toml:/etc/twstock/cluster.toml"
    assert "--config %d/cluster.toml" in service["ExecStart"]
    assert service["Environment"].split() == [
        "PYTHONDONTWRITEBYTECODE=1",
        "PYTHONFAULTHANDLER=1",
        "GRPC_VERBOSITY=ERROR",
        "TWSTOCK_LOG_FORMAT=json",
    ]


def test_the_socket_listens_where_the_example_has_its_front_end():
    """Systemd passes the listener of cluster.example.toml under the name that is looked for."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str
    parser.read(DEPLOY / "systemd/stock-frontend@.socket")
    example = parse((DEPLOY / "cluster.example.toml").read_text())
    assert parser["Socket"]["ListenStream"] == str(example.fronts[0].http)
    assert parser["Socket"]["FileDescriptorName"] == sockets.NAME
    assert "Accept" not in parser["Socket"]


def test_a_service_may_have_every_thread_that_its_limits_allow():
    """TasksMax leaves room for the threads of gRPC's server beside the pools."""
    limits = default_cluster().limits
    threads = limits.rpc_threads + limits.rpc_streams_max + limits.rpc_watches_max
    threads += CHECKS_MAX + THREADS_SPARE
    for name in ("order", "catalog"):
        service = directives(DEPLOY / f"systemd/stock-{name}@.service")
        assert int(service["TasksMax"]) >= threads + 64


def test_a_front_end_may_have_a_thread_for_every_call():
    """Calls block a thread each: without room for them, lookups and orders would fail."""
    sizes = pool_sizes(default_cluster(fronts=1, catalogs=3, orders=3))
    service = directives(DEPLOY / "systemd/stock-frontend@.service")
    assert int(service["TasksMax"]) >= sum(sizes.values()) + 64


def test_the_units_differ_in_their_tier_alone():
    """Order and catalog replicas run under the same rules."""
    order, catalog = (
        directives(DEPLOY / f"systemd/stock-{name}@.service") for name in ("order", "catalog")
    )
    assert {k: v.replace("catalog", "order") for k, v in catalog.items()} == order


def test_the_example_configuration_is_the_default_cluster_in_its_place():
    """cluster.example.toml is the default cluster with its data where systemd puts it."""
    example = parse((DEPLOY / "cluster.example.toml").read_text(), Path("/etc/twstock"))
    assert example == default_cluster(Path("/var/lib/twstock"), "example")


def test_cloud_init_enables_the_members_of_the_example():
    """The machine of cloud-init.yaml runs every member of the example, and native_build.sh."""
    text = (DEPLOY / "cloud-init.yaml").read_text()
    assert text.startswith("#cloud-config\n")
    example = tomllib.loads((DEPLOY / "cluster.example.toml").read_text())
    cluster = parse((DEPLOY / "cluster.example.toml").read_text())
    assert len(member_names(cluster)) == sum(len(example[t]) for t in ("front", "catalog", "order"))
    for name in member_names(cluster):
        assert f"stock-{name.replace('front', 'frontend').replace('-', '@')}" in text
    assert "deploy/native_build.sh" in text
