"""The local cluster: what it plans, and how it starts, watches and stops its members."""

import errno
import io
import json
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from tests.cluster_fixture import free_ports
from twstock.access import Admin
from twstock.cluster import DEATHS_MAX, Directory, LocalCluster, Options, up, url_of
from twstock.config import Address, Limits, default_cluster, parse
from twstock.errors import ConfigError, TwstockError
from twstock.members import KILL_MIN_S, STOP_S, Members, why_taken
from twstock.plan import Flags, member_names, plan, tiers, to_text, unready
from twstock.process import EXIT_NOT_NOW, EXIT_REFUSED, EXIT_UNWRITTEN, EXIT_USAGE

NEW = "0123456789abcdef"
WIDE = b"name,price,quantity\n" + b"".join(b"%0245d,1,1\n" % number for number in range(10_000))
"""More stocks than fit into a message."""


def planned(written=None, has_data=False, **flags):
    """The plan of some flags for ``/data``."""
    old = None if written is None else parse(written, Path("/data"))
    return plan(Flags(Path("/data"), **flags), old, has_data, NEW)


class TestPlan:
    """Flags win over the file; what no flag names stays."""

    def test_the_first_start_has_the_defaults_and_a_new_id(self):
        """One front-end, one catalog, three orders, on the documented ports."""
        cluster = planned()
        assert cluster.cluster_id == NEW
        assert cluster.data == Path("/data")
        assert str(cluster.fronts[0].http) == "127.0.0.1:8080"
        assert [str(r.grpc) for r in cluster.orders] == [f"127.0.0.1:{50052 + k}" for k in range(3)]

    def test_a_file_keeps_its_id_limits_and_addresses(self):
        """The same flags again mean the same cluster, and none mean the file."""
        first = planned(http=Address("127.0.0.1", 9000), base_port=9100, cache_size=7)
        edited = to_text(replace(first, limits=replace(first.limits, segment_bytes=4194304)))
        again = planned(edited, has_data=True)
        assert again.cluster_id == NEW
        assert again.limits == Limits(cache_size=7, segment_bytes=4194304)
        assert (again.fronts, again.orders) == (first.fronts, first.orders)

    def test_the_administrator_s_token_stays_where_a_flag_has_put_it(self):
        """The next start needs no flag; with another one, the file names another token file."""
        assert planned().admin == Admin()
        first = planned(admin_token_file=Path("/etc/token"))
        again = planned(to_text(first), has_data=True)
        assert again.admin == Admin(Path("/etc/token"))
        other = planned(to_text(first), has_data=True, admin_token_file=Path("/etc/other"))
        assert other.admin == Admin(Path("/etc/other"))

    def test_flags_move_the_ports(self):
        """``--http`` moves the front-ends alone, ``--base-port`` everything behind them."""
        first = planned()
        moved = planned(to_text(first), True, http=Address("127.0.0.1", 9000), fronts=2)
        assert [str(f.http) for f in moved.fronts] == ["127.0.0.1:9000", "127.0.0.1:9001"]
        assert moved.orders == first.orders
        based = planned(to_text(first), True, base_port=9100)
        assert based.fronts[0].http == first.fronts[0].http
        assert based.catalogs[0].grpc.port == 9100
        assert based.fronts[0].internal.port == 9104

    @pytest.mark.parametrize("flag", ["catalogs", "orders"])
    def test_the_number_of_replicas_cannot_change(self, flag):
        """Once there is data; before that it can, and a flag with the same number is always
        fine.
        """
        written = to_text(planned())
        with pytest.raises(ConfigError, match=f"--{flag}"):
            planned(written, True, **{flag: 5})
        assert len(getattr(planned(written, False, **{flag: 5}), flag)) == 5
        planned(written, True, catalogs=1, orders=3)

    def test_ports_that_clash_are_refused(self):
        """The message names both."""
        with pytest.raises(ConfigError, match="front-1 http"):
            planned(http=Address("127.0.0.1", 50052))
        with pytest.raises(ConfigError, match="port"):
            planned(base_port=65534)

    def test_the_file_moves_with_its_directory(self, tmp_path):
        """Data, and certificates beside them, are named relative to the file, other files by
        absolute paths.
        """
        cluster = planned(catalog_csv=Path("/some/stocks.csv"))
        moved = parse(to_text(replace(cluster, tls=cluster.data / "tls")), tmp_path)
        assert moved.data == tmp_path
        assert moved.tls == tmp_path / "tls"
        elsewhere = parse(to_text(replace(cluster, tls=Path("/some"))), tmp_path)
        assert elsewhere.tls == Path("/some")
        assert moved.catalog_csv == Path("/some/stocks.csv")


def rows(cluster, **changes):
    """``GET /cluster`` of a cluster that is well, the last order replica leading."""
    found = []
    for name in member_names(cluster):
        service, number = name.rsplit("-", 1)
        role = "serving" if service == "front" else "follower"
        row = {"service": service, "id": int(number), "alive": True, "role": role}
        found.append(row | changes.get(name.replace("-", "_"), {}))
    return found


LED = {"catalog_1": {"role": "leader"}, "order_3": {"role": "leader"}}


class TestUnready:
    """Which members keep the whole cluster from serving."""

    cluster = default_cluster()

    def test_all_alive_and_led(self):
        """Every member is alive and both groups have a leader."""
        assert unready(self.cluster, rows(self.cluster, **LED)) == []

    def test_what_is_missing_is_named(self):
        """A dead member, one that has not joined, one without a row, a group without a leader."""
        dead = {"alive": False, "role": None}
        assert unready(self.cluster, rows(self.cluster, **LED, order_1=dead)) == ["order-1"]
        joining = {"role": "joining"}
        assert unready(self.cluster, rows(self.cluster, **LED, order_2=joining)) == ["order-2"]
        assert "front-1" in unready(self.cluster, [])
        assert unready(self.cluster, rows(self.cluster, catalog_1={"role": "leader"})) == [
            "order leader"
        ]


class FakeProcess:
    """A process transport that records its signals."""

    def __init__(self, protocol, arguments):
        self.protocol, self.arguments = protocol, arguments
        self.signals = []

    def signalProcess(self, name):
        """Note a signal."""
        self.signals.append(name)

    def end(self, code=0, number=None):
        """End as a process does."""
        wrong = code or number
        reason = ProcessTerminated(code, number) if wrong else ProcessDone(0)
        self.protocol.processEnded(Failure(reason))


class FakeReactor(Clock):
    """A clock that spawns FakeProcesses."""

    def __init__(self):
        super().__init__()
        self.spawned = {}

    def spawnProcess(self, protocol, executable, args, env, childFDs):  # noqa: N803
        """Start one; the files of its output are open."""
        for file in childFDs.values():
            os.fstat(file)
        process = FakeProcess(protocol, args)
        self.spawned.setdefault(protocol.name, []).append(process)
        protocol.makeConnection(process)
        return process

    def live(self, name):
        """The latest process of a member."""
        return self.spawned[name][-1]


@pytest.fixture
def fake(tmp_path):
    """A reactor, members in a directory, and what they told of their deaths."""
    reactor, deaths = FakeReactor(), []
    cluster = replace(default_cluster(fronts=2), data=tmp_path)
    members = Members(reactor, cluster, lambda name, code: deaths.append((name, code)))
    members.startService()
    return reactor, members, deaths


class TestMembers:
    """Processes are restarted when they die, and stopped tier by tier."""

    def test_every_member_is_a_twistd_of_its_own(self, fake, tmp_path):
        """It is started with the plugin, the file and the name of that member."""
        reactor, _, _ = fake
        assert set(reactor.spawned) == set(member_names(default_cluster(fronts=2)))
        words = reactor.live("order-2").arguments
        tail = ["stock-order", "--config", str(tmp_path / "cluster.toml"), "--name", "order-2"]
        assert words[-7:] == ["-n", "--pidfile=", *tail]

    def test_one_that_lived_is_restarted_at_once(self, fake):
        """A process that has lived for long enough is no reason to wait."""
        reactor, members, deaths = fake
        reactor.advance(members.threshold)
        reactor.live("order-3").end(number=signal.SIGKILL)
        reactor.advance(0)
        assert len(reactor.spawned["order-3"]) == 2
        assert deaths == [("order-3", -9)]

    def test_one_that_keeps_dying_waits_longer_and_longer(self, fake):
        """Up to ``maxRestartDelay``."""
        reactor, members, _ = fake
        delays = []
        for _ in range(7):
            reactor.live("front-1").end(code=1)
            began = reactor.seconds()
            count = len(reactor.spawned["front-1"])
            while len(reactor.spawned["front-1"]) == count:
                reactor.advance(0.1)
            delays.append(round(reactor.seconds() - began, 1))
        assert delays == sorted(delays)
        assert delays[0] == pytest.approx(0.1)
        assert delays[-1] == pytest.approx(members.maxRestartDelay, abs=0.2)

    def test_without_restart_the_dead_stay_dead(self, tmp_path):
        """With ``--no-restart`` a process that died is not started again, and stopping does not
        wait for it.
        """
        reactor, deaths = FakeReactor(), []
        cluster = replace(default_cluster(), data=tmp_path)
        members = Members(reactor, cluster, lambda *told: deaths.append(told), restart=False)
        members.startService()
        reactor.live("order-1").end(code=3)
        reactor.advance(10)
        assert len(reactor.spawned["order-1"]) == 1
        assert deaths == [("order-1", 3)]
        stopped = members.stopService()
        for tier in tiers(cluster).values():
            for name in tier:
                if name != "order-1":
                    reactor.live(name).end()
        assert stopped.called

    def test_stopping_drains_tier_by_tier(self, fake):
        """Front-ends first, then orders, then the catalog; nothing is restarted."""
        reactor, members, deaths = fake
        stopped = members.stopService()
        signals = {name: reactor.live(name).signals for name in reactor.spawned}
        assert signals["front-1"] == signals["front-2"] == ["TERM"]
        assert signals["order-1"] == signals["catalog-1"] == []
        reactor.live("front-1").end()
        reactor.live("front-2").end()
        assert signals["order-1"] == signals["order-3"] == ["TERM"]
        assert signals["catalog-1"] == []
        for k in (1, 2, 3):
            reactor.live(f"order-{k}").end()
        assert signals["catalog-1"] == ["TERM"]
        reactor.live("catalog-1").end()
        assert stopped.called
        assert deaths == []
        assert reactor.getDelayedCalls() == []

    def test_what_does_not_stop_is_killed(self, fake):
        """All tiers together get ``STOP_S``, but each later one ``KILL_MIN_S`` at least."""
        reactor, members, _ = fake
        members.stopService()
        reactor.advance(STOP_S)
        assert reactor.live("front-1").signals == ["TERM", "KILL"]
        reactor.live("front-1").end(number=9)
        reactor.live("front-2").end(number=9)
        reactor.advance(KILL_MIN_S)
        assert reactor.live("order-1").signals == ["TERM", "KILL"]

    def test_a_stop_forgets_planned_restarts(self, fake):
        """A member that died a moment ago does not come back."""
        reactor, members, _ = fake
        reactor.live("front-1").end(code=1)
        members.stopService()
        reactor.live("front-2").end()
        reactor.advance(0.5)
        assert len(reactor.spawned["front-1"]) == 1

    def test_a_log_that_grew_too_long_is_put_aside(self, fake, tmp_path, monkeypatch):
        """That is done when its member is restarted. One old log is kept."""
        reactor, members, _ = fake
        monkeypatch.setattr("twstock.members.LOG_BYTES_MAX", 3)
        (tmp_path / "order-1/service.log").write_text("long")
        reactor.advance(members.threshold)
        reactor.live("order-1").end(code=1)
        reactor.advance(0)
        assert (tmp_path / "order-1/service.log.1").read_text() == "long"
        assert members.tail("order-1") == ""

    def test_a_log_that_cannot_be_opened_is_named(self, fake, tmp_path):
        """The error stands in the place of the last lines of the log."""
        _, members, _ = fake
        (tmp_path / "order-1/service.log").unlink()
        (tmp_path / "order-1/service.log").mkdir()
        assert members.tail("order-1") == f"{tmp_path}/order-1/service.log: Is a directory"

    def test_what_keeps_a_member_from_starting_is_told_and_not_an_old_log(
        self, fake, tmp_path, monkeypatch
    ):
        """On a read-only disk, for example, an old log can be read, but it says nothing about why
        the new process does not start.
        """
        reactor, members, deaths = fake
        log = tmp_path / "order-1/service.log"
        log.write_text("all is well\n")
        system_open = Path.open

        def opened(path, mode="r", *arguments, **words):
            if path == log and mode == "ab":
                raise OSError(errno.EROFS, "Read-only file system", str(path))
            return system_open(path, mode, *arguments, **words)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", opened)
            reactor.advance(members.threshold)
            reactor.live("order-1").end(code=3)
            reactor.advance(0)
            assert deaths == [("order-1", 3), ("order-1", 1)]
            assert members.tail("order-1") == f"{log}: Read-only file system"
        reactor.advance(members.maxRestartDelay)
        assert members.tail("order-1") == ""


class Unread(io.StringIO):
    """What nobody reads any more."""

    def write(self, text):
        """As a pipe without a reader."""
        raise BrokenPipeError


class Started:
    """A LocalCluster on a fake reactor; ``answers`` is what its front-ends say."""

    def __init__(self, path, errors=None, output=None, **flags):
        port = free_ports(10)
        http = Address("127.0.0.1", port)
        self.flags = Flags(path, http=http, base_port=port + 2, **flags)
        self.reactor, self.failures = FakeReactor(), []
        self.output, self.errors = output or io.StringIO(), errors or io.StringIO()
        self.answers, self.waiting = None, []
        self.cluster = LocalCluster(
            self.reactor,
            self.flags,
            self.ask,
            self.give_up,
            output=self.output,
            errors=self.errors,
        )

    def give_up(self, message, code=EXIT_NOT_NOW):
        """What the process would end with."""
        self.failures.append(message)
        self.code = code

    async def ask(self, url):
        """Nobody listens while there are no answers."""
        if self.answers is None:
            raise ConnectionRefusedError
        status, services = self.answers
        data = {"services": services} if url.endswith("/cluster") else {"reasons": ["it waits"]}
        return status, json.dumps({"data": data}).encode()

    def stop(self):
        """Stop, every process ending as soon as it is asked."""
        stopped = self.cluster.stopService()
        for _ in range(3):
            for processes in self.reactor.spawned.values():
                for process in processes:
                    if process.signals == ["TERM"]:
                        process.signals.append("ended")
                        process.end()
        assert stopped.called


@pytest.fixture
def started(tmp_path):
    """A local cluster that was started."""
    case = Started(tmp_path / "data")
    case.cluster.startService()
    yield case
    if case.cluster.running:
        case.stop()


def started_again(directory, *others):
    """A cluster of which these members, and two order replicas, have taken part before."""
    for name in ("order-1", "order-3", *others):
        (directory / name).mkdir()
        (directory / name / "meta").touch()
    (directory / "cluster.toml").write_text(to_text(default_cluster()))
    started = Started(directory)
    started.cluster.startService()
    return started


class TestLocalCluster:
    """From start to ready to stop."""

    def test_it_is_ready_when_all_serve(self, started):
        """It says so once, when every member is alive and both groups have a leader."""
        started.reactor.advance(0.1)
        config = default_cluster()
        started.answers = 503, rows(config, **LED)
        started.reactor.advance(0.1)
        started.answers = 200, rows(config, catalog_1={"role": "leader"})
        started.reactor.advance(0.1)
        assert started.output.getvalue() == ""
        started.answers = 200, rows(config, **LED)
        started.reactor.pump([0.1] * 5)
        assert started.output.getvalue() == f"ready http://{started.flags.http}\n"
        assert started.cluster.ready

    def test_a_full_standard_output_is_told_by_its_name(self, tmp_path):
        """Otherwise "no space left" would be taken for the disk of the data."""
        with open("/dev/full", "w") as full:
            started = Started(tmp_path, output=full)
            started.cluster.startService()
            started.answers = 200, rows(default_cluster(), **LED)
            started.reactor.pump([0.1] * 5)
            assert started.failures == ["standard output: No space left on device"]
            assert started.code == EXIT_UNWRITTEN
            started.stop()
            with pytest.raises(OSError, match="No space"):
                full.close()  # it tries once more to write what it could not

    def test_it_says_what_it_waits_for(self, started):
        """It says so every ten seconds, with a front-end's own reasons once that answers."""
        started.reactor.pump([0.1] * 110)
        assert started.errors.getvalue() == "twstock: still waiting for front-1\n"
        started.answers = 503, rows(default_cluster(), **LED)
        started.reactor.pump([0.1] * 101)
        assert started.errors.getvalue().endswith("still waiting for front-1: it waits\n")

    def test_the_file_is_written_and_kept(self, started):
        """It has a random id for this cluster, which the next start takes from it."""
        text = (started.flags.data / "cluster.toml").read_text()
        first = parse(text, started.flags.data)
        assert len(first.cluster_id) == 32
        started.stop()
        again = Started(started.flags.data)
        again.cluster.startService()
        text = (started.flags.data / "cluster.toml").read_text()
        assert parse(text, started.flags.data).cluster_id == first.cluster_id
        assert parse(text, started.flags.data).fronts[0].http == again.flags.http
        again.stop()

    def test_a_second_one_on_the_same_data_is_refused(self, started):
        """The message names the process that has it."""
        second = Started(started.flags.data)
        second.cluster.startService()
        assert second.failures == [
            f"{started.flags.data} is in use by the cluster of process {os.getpid()}"
        ]
        assert second.reactor.spawned == {}

    def test_a_member_that_keeps_dying_at_the_first_start_ends_all(self, started):
        """After ``DEATHS_MAX`` attempts, with the end of its log."""
        log = started.flags.data / "order-2/service.log"
        for _ in range(DEATHS_MAX):
            assert started.failures == []
            log.write_text(log.read_text() + "entries 3 to 4 are lost\n")
            started.reactor.live("order-2").end(code=1)
            started.reactor.advance(2)
        assert len(started.failures) == 1
        assert started.failures[0].startswith("order-2 does not start; its log ends:\n")
        assert "entries 3 to 4 are lost" in started.failures[0]

    def test_a_replica_that_refuses_to_start_leaves_the_others_at_work(self, tmp_path):
        """The others are a majority and have taken part before. The one that refuses is not started
        again, which would change nothing.
        """
        started = started_again(tmp_path)
        started.reactor.live("order-2").end(code=EXIT_REFUSED)
        started.reactor.advance(10)
        assert len(started.reactor.spawned["order-2"]) == 1
        assert "order-2 ended with exit status 78\n" in started.errors.getvalue()
        assert "all are started again. order-2 does not" in started.errors.getvalue()
        gone = {"alive": False, "role": None}
        started.answers = (200, rows(default_cluster(), **LED, order_2=gone))
        started.reactor.advance(1)
        assert started.output.getvalue().startswith("ready ")
        started.reactor.live("order-1").end(code=EXIT_REFUSED)
        assert started.failures == []
        assert "until all are started again. order-1 does not" in started.errors.getvalue()
        started.stop()

    def test_a_replica_that_cannot_start_now_leaves_the_others_at_work(self, tmp_path):
        """It is started again and again, for example until its disk has room, and the cluster is
        ready without it.
        """
        started = started_again(tmp_path)
        for _ in range(2 * DEATHS_MAX):
            started.reactor.live("order-2").end(code=EXIT_NOT_NOW)
            started.reactor.advance(2)
        assert (started.failures, len(started.reactor.spawned["order-2"])) == ([], 7)
        assert started.errors.getvalue().count("until it starts. order-2 does not start; its") == 1
        gone = {"alive": False, "role": None}
        started.answers = (200, rows(default_cluster(), **LED, order_2=gone))
        started.reactor.advance(1)
        assert started.output.getvalue().startswith("ready ")
        started.stop()

    def test_a_replica_that_could_start_at_last_is_counted_again(self, tmp_path):
        """Then another one may be missing in its place, and has all its attempts."""
        started = started_again(tmp_path, "order-2")
        for name in ("order-1", "order-2"):
            down = {name.replace("-", "_"): {"alive": False, "role": None}}
            started.answers = (503, rows(default_cluster(), **LED, **down))
            for _ in range(DEATHS_MAX):
                started.reactor.live(name).end(code=EXIT_NOT_NOW)
                started.reactor.advance(2)
            started.answers = (503, rows(default_cluster(), **LED))
            started.reactor.advance(1)
        assert started.failures == []
        assert started.errors.getvalue().count("until it starts. ") == 2
        started.stop()

    @pytest.mark.parametrize("name", ["order-2", "catalog-1", "front-1"])
    def test_a_refusal_at_the_first_start_ends_all(self, started, name):
        """A new group needs all of its members, so the start ends at once, with the end of that
        log.
        """
        started.reactor.live(name).end(code=EXIT_REFUSED)
        assert started.failures[0].startswith(f"{name} does not start; its log ends:\n")

    def test_half_of_a_group_is_no_majority(self, tmp_path):
        """Of two replicas both are needed, so a refusal ends all."""
        (tmp_path / "order-2").mkdir()
        (tmp_path / "order-2" / "meta").touch()
        (tmp_path / "cluster.toml").write_text(to_text(default_cluster(orders=2)))
        case = Started(tmp_path, orders=2)
        case.cluster.startService()
        case.reactor.live("order-1").end(code=EXIT_REFUSED)
        assert case.failures[0].startswith("order-1 does not start")
        case.stop()

    def test_what_cannot_be_planned_is_wrong_usage(self, tmp_path):
        """Here the base port leaves too few ports above it."""
        case = Started(tmp_path)
        case.cluster._flags = replace(case.flags, base_port=65534)
        case.cluster.startService()
        assert (case.code, len(case.failures)) == (EXIT_USAGE, 1)
        assert "base-port" in case.failures[0]
        case.stop()

    def test_data_that_is_no_directory_is_named_without_a_traceback(self, tmp_path):
        """The error has the system's words."""
        file = tmp_path / "file"
        file.touch()
        case = Started(file)
        case.cluster.startService()
        assert case.failures == [f"{file}: File exists"]
        case.stop()

    def test_a_form_of_log_that_there_is_not_is_wrong_usage(self, tmp_path, monkeypatch):
        """It is noticed before any member is started."""
        monkeypatch.setenv("TWSTOCK_LOG_FORMAT", "xml")
        case = Started(tmp_path)
        case.cluster.startService()
        assert (case.code, case.reactor.spawned) == (EXIT_USAGE, {})
        assert case.failures == ["TWSTOCK_LOG_FORMAT: expected text or json, got 'xml'"]
        case.stop()

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"nonsense = 1", "nonsense: unknown key"),
            (b"\xff", "'utf-8' codec can't decode byte"),
            (None, "Is a directory"),
        ],
    )
    def test_a_file_of_the_cluster_that_cannot_be_used_is_named(self, tmp_path, content, why):
        """The error has the path and what is wrong, without a traceback."""
        file = tmp_path / "cluster.toml"
        if content is None:
            file.mkdir()
        else:
            file.write_bytes(content)
        case = Started(tmp_path)
        case.cluster.startService()
        assert case.code == EXIT_USAGE
        assert case.failures[0].startswith(f"{file}: {why}")
        case.stop()

    def test_a_token_that_is_missing_is_wrong_usage(self, tmp_path):
        """It is noticed before any member is started."""
        text = to_text(replace(default_cluster(), admin=Admin(tmp_path / "token")))
        (tmp_path / "cluster.toml").write_text(text)
        case = Started(tmp_path)
        case.cluster.startService()
        assert (case.code, case.reactor.spawned) == (EXIT_USAGE, {})
        assert case.failures == [f"{tmp_path}/token: No such file or directory"]
        case.stop()

    def test_a_certificate_that_is_missing_is_wrong_usage(self, tmp_path, certificates):
        """It is noticed before any member is started; with all certificates members are started."""
        for tls, starts in ((tmp_path, False), (certificates, True)):
            text = to_text(replace(default_cluster(), tls=tls))
            (tmp_path / "cluster.toml").write_text(text)
            case = Started(tmp_path)
            case.cluster.startService()
            assert bool(case.reactor.spawned) is starts
            if not starts:
                assert case.code == EXIT_USAGE
                assert case.failures[0].startswith(f"{tmp_path}/ca.pem: No such file")
            case.stop()

    def test_a_group_of_even_size_is_told_of(self, tmp_path):
        """It starts, with a warning that one member of it adds nothing."""
        case = Started(tmp_path, orders=2)
        case.cluster.startService()
        assert "2 order replicas bear the loss of no more than 1 do" in case.errors.getvalue()
        assert "catalog replicas" not in case.errors.getvalue()
        case.stop()

    def test_a_member_that_dies_after_the_start_ends_nothing(self, started):
        """It is restarted as often as it takes."""
        started.cluster.ready = True
        for _ in range(10):
            started.reactor.live("order-2").end(code=70)
            started.reactor.advance(2)
        assert started.failures == []
        assert "order-2 ended with exit status 70; it is started again" in started.errors.getvalue()

    def test_without_restart_one_death_is_enough(self, tmp_path):
        """A start that can no longer succeed ends."""
        case = Started(tmp_path, restart=False)
        case.cluster.startService()
        case.reactor.live("order-1").end(code=1)
        assert len(case.failures) == 1
        case.stop()

    def test_it_goes_on_though_nobody_reads_what_it_says(self, tmp_path):
        """As in ``twstock up --logs 2>&1 | head``. It still gives up where it would otherwise."""
        case = Started(tmp_path, Unread(), logs=True)
        case.cluster.startService()
        (tmp_path / "order-1/service.log").write_text("a line\n")
        case.reactor.advance(1)
        case.reactor.live("order-1").end(code=70)
        case.reactor.advance(1)
        assert (case.failures, len(case.reactor.spawned["order-1"])) == ([], 2)
        case.reactor.live("order-2").end(code=EXIT_REFUSED)
        assert case.failures[0].startswith("order-2 does not start")
        case.stop()

    def test_a_taken_port_is_named(self, tmp_path):
        """It is waited for as long as a restart needs; then the start fails, and no member was
        started.
        """
        case = Started(tmp_path)
        with socket.create_server(("127.0.0.1", case.flags.base_port)):
            case.cluster.startService()
            case.reactor.pump([0.1] * 35)
        [message] = case.failures
        assert message.startswith(f"catalog-1 cannot listen on 127.0.0.1:{case.flags.base_port}: ")
        assert case.reactor.spawned == {}
        case.stop()

    def test_a_stop_while_starting(self, tmp_path):
        """No timer and no error is left behind."""
        case = Started(tmp_path)
        case.cluster.startService()
        case.stop()
        assert case.failures == []
        assert case.reactor.getDelayedCalls() == []

    def test_data_without_its_file_is_refused(self, tmp_path):
        """A new cluster_id would turn all of it into the data of another cluster."""
        (tmp_path / "order-1").mkdir()
        (tmp_path / "order-1/meta").touch()
        with pytest.raises(ConfigError, match="missing"):
            Directory(tmp_path).settle(Flags(tmp_path))

    def test_logs_alone_are_no_data(self, tmp_path):
        """What ``up`` itself writes before there is data does not count."""
        (tmp_path / "order-1").mkdir()
        (tmp_path / "order-1/service.log").touch()
        Directory(tmp_path).settle(Flags(tmp_path))

    def test_a_directory_can_be_held_again(self, tmp_path):
        """When it is released, another one can hold it."""
        first, second = Directory(tmp_path), Directory(tmp_path)
        first.hold()
        with pytest.raises(TwstockError, match="in use"):
            second.hold()
        first.release()
        second.hold()
        second.release()


def test_bad_flags_exit_2(capsys):
    """The error names the flag; a word that is no flag is wrong as well."""
    assert up(["--fronts", "0"]) == 2
    assert "--fronts" in capsys.readouterr().err
    assert up(["--no-such-flag"]) == 2
    assert up(["word"]) == 2


def test_wildcards_are_asked_on_loopback():
    """A wildcard address can be listened on, but not always connected to."""
    assert url_of(Address("0.0.0.0", 80)) == "http://127.0.0.1:80"
    assert url_of(Address("::", 80)) == "http://[::1]:80"
    assert url_of(Address("10.0.0.1", 80)) == "http://10.0.0.1:80"


def test_an_address_of_another_machine_cannot_be_used():
    """The system's words say why."""
    assert "assign" in why_taken(Address("192.0.2.1", 8080))


@pytest.mark.parametrize("content", [b"", b"name,price,quantity\nX,1.234,5\n", WIDE, None])
def test_a_catalog_file_is_read_before_anything_is_started(tmp_path, content):
    """If it is bad, the error names the flag and the file."""
    path = tmp_path / "bad.csv"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"--catalog-csv: .*bad\.csv"):
        Options().parseOptions(["--catalog-csv", str(path)])


@pytest.mark.parametrize("flag", ["data", "catalog-csv", "admin-token-file"])
def test_a_link_to_itself_is_no_path(tmp_path, flag):
    """The error names the flag, also for what would be behind such a link. Pathlib raises for it or
    leaves it as it is, depending on the version of Python.
    """
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (loop, loop / "file"):
        with pytest.raises(UsageError, match=rf"--{flag}: {path}: symbolic links"):
            Options().parseOptions([f"--{flag}", str(path)])


def test_the_help_tells_what_a_new_cluster_has():
    """The default of each flag that sets a number or an address."""
    new, (_, *flags) = default_cluster(), str(Options()).split("      --")
    words = {flag.partition("=")[0]: flag for flag in flags}
    assert f"[{new.fronts[0].http}]" in words["http"]
    assert f"[{new.catalogs[0].grpc.port}]" in words["base-port"]
    for tier in ("fronts", "catalogs", "orders"):
        assert f"[{len(getattr(new, tier))}]" in words[tier]
    assert f"[{new.limits.cache_size}]" in words["cache-size"]


def test_a_word_that_is_no_option_is_named():
    """``twstock up restored`` is not ``twstock up --data restored``."""
    with pytest.raises(UsageError, match="unexpected: 'restored'"):
        Options().parseOptions(["restored"])


def test_options_have_the_documented_defaults():
    """The data is in ``var``; everything else is as the file has it."""
    options = Options()
    options.parseOptions([])
    assert options.flags == Flags(Path("var").resolve())
