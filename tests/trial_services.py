"""What trial runs: the plugins make services, the services start and stop in their order.

Synchronous on purpose; everything that waits is tested with pytest.
"""

# ruff: noqa: PT009, PT027 - trial reports its own assertions best

import tempfile
from pathlib import Path

from twisted.application.service import IServiceMaker, MultiService, Service
from twisted.internet.defer import Deferred
from twisted.plugin import getPlugins
from twisted.python.reflect import namedAny
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from twstock.config import default_cluster
from twstock.errors import StorageError
from twstock.process import Stages
from twstock.tomltext import render

TAPS = ("stock-frontend", "stock-catalog", "stock-order", "stock-cluster")


class Plugins(SynchronousTestCase):
    """``twistd`` finds the four services by name."""

    def makers(self):
        """Our service makers by name."""
        return {m.tapname: m for m in getPlugins(IServiceMaker) if m.tapname in TAPS}

    def test_every_plugin_is_found(self):
        """All four are there, with words for ``twistd --help``."""
        makers = self.makers()
        self.assertEqual(set(makers), set(TAPS))
        for maker in makers.values():
            self.assertIn("twstock", maker.description)

    def test_every_plugin_makes_a_service(self):
        """Each tap's makeService is a callable of that module, its Options can be made."""
        for maker in self.makers().values():
            tap = namedAny(maker.module)
            self.assertTrue(callable(tap.makeService))
            self.assertTrue(callable(maker.options))

    def test_a_name_of_another_tier_is_refused(self):
        """``stock-order --name catalog-1`` is a mistake, and so is a member that is not there."""
        config = Path(tempfile.mkdtemp(dir=self.mktemp_parent())) / "cluster.toml"
        config.write_text(render(default_cluster()))
        for tier, wrong in (
            ("order", "catalog-1"),
            ("order", "order-9"),
            ("catalog", "catalog-x"),
            ("frontend", "front-2"),
        ):
            maker = self.makers()[f"stock-{tier}"]
            named = ["--config", str(config), "--name", wrong]
            self.assertRaises(UsageError, maker.options().parseOptions, named)

    def test_a_missing_configuration_is_refused(self):
        """A file that is named has to be there."""
        maker = self.makers()["stock-order"]
        missing = ["--config", "/nowhere/cluster.toml"]
        self.assertRaises(UsageError, maker.options().parseOptions, missing)

    def mktemp_parent(self):
        """A directory of this test."""
        path = Path(self.mktemp())
        path.mkdir(parents=True)
        return path


class ClusterOptions(SynchronousTestCase):
    """The flags of ``twstock up``."""

    def parse(self, *arguments):
        """The checked flags."""
        options = namedAny("twstock.cluster").Options()
        options.parseOptions(list(arguments))
        return options.flags

    def test_flags_are_read(self):
        """Each value arrives in its type."""
        flags = self.parse("--http", "127.0.0.1:81", "--fronts", "2", "--no-restart")
        self.assertEqual((flags.http.port, flags.fronts, flags.restart), (81, 2, False))

    def test_a_bad_value_names_its_flag(self):
        """The message tells which flag is wrong."""
        for flag, value in (
            ("--http", "here"),
            ("--base-port", "0"),
            ("--base-port", "9" * 5000),
            ("--fronts", "none"),
            ("--catalogs", "-1"),
            ("--orders", "1.5"),
            ("--catalog-csv", "/nowhere.csv"),
            ("--cache-size", "big"),
        ):
            error = self.assertRaises(UsageError, self.parse, flag, value)
            self.assertIn(flag, str(error))


class Recorder(Service):
    """Writes down when it is started and stopped."""

    def __init__(self, name, journal, stopping=None):
        self.name_of_stage, self.journal, self.stopping = name, journal, stopping

    def startService(self):
        """Note the start."""
        super().startService()
        self.journal.append(f"{self.name_of_stage} starts")

    def stopService(self):
        """Note the stop, which may take its time."""
        super().stopService()
        self.journal.append(f"{self.name_of_stage} stops")
        return self.stopping


class Refusing(Service):
    """Cannot start."""

    def startService(self):
        """Refuse."""
        raise StorageError("entries 3 to 4 are lost")


class Order(SynchronousTestCase):
    """A service's stages start one after the other and stop in reverse."""

    def test_stages_stop_in_reverse_each_after_the_other(self):
        """The one that started last has finished before the first one stops."""
        journal, slow = [], Deferred()
        stages = Stages([Recorder("disk", journal), Recorder("server", journal, slow)], self.fail)
        parent = MultiService()
        stages.setServiceParent(parent)
        parent.startService()
        stopped = parent.stopService()
        self.assertEqual(journal, ["disk starts", "server starts", "server stops"])
        self.assertNoResult(stopped)
        slow.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(journal[-1], "disk stops")

    def test_a_stage_that_refuses_is_told_about(self):
        """The operator gets the words, and only what runs is stopped."""
        journal, refusals = [], []
        stages = Stages([Recorder("pool", journal), Refusing()], refusals.append)
        stages.startService()
        self.assertEqual(refusals, ["entries 3 to 4 are lost"])
        self.successResultOf(stages.stopService())
        self.assertEqual(journal, ["pool starts", "pool stops"])
