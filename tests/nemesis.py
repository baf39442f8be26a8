"""Everything at once on real processes: ``python -m tests.nemesis --seeds 5 --seconds 60``.

Members, each on a host of its own, are killed, stopped, cut off and slowed down at random while
clients trade, look stocks up and retry what was not answered; then everything is repaired, and the
history is checked like those of the tests. ("Nemesis" is Jepsen's word for what causes the faults.)
A seed decides the faults; their effects also depend on the machine. A failed seed's data is kept.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.network import CLIENT, CUT, Network, Wire, obstacle
from tests.scattered import ScatteredCluster
from tests.traders import trading

FRONTS, CATALOGS, ORDERS = 2, 3, 3
HOSTS = [
    f"{tier}-{number}"
    for tier, count in (("front", FRONTS), ("catalog", CATALOGS), ("order", ORDERS))
    for number in range(1, count + 1)
]
CLIENTS = 12
PAUSE_MAX_S = 4.0
MEND_CHANCE = 0.6
START_CHANCE = 0.8


class Nemesis:
    """Causes faults in a cluster and its network, and repairs them."""

    def __init__(self, cluster, network, chance):
        self._cluster = cluster
        self._network = network
        self._chance = chance

    def strike(self):
        """One fault, as often as not at a leader."""
        faults = (
            self._isolate, self._cut_one_way, self._cut_link, self._cut_tier, self._cut_several,
            self._kill, self._kill, self._kill_several, self._stop, self._spoil,
        )  # fmt: skip
        victim = self._chance.choice(HOSTS)
        if self._chance.random() < 0.5:
            victim = self._cluster.leader(self._chance.choice(["order", "catalog"])) or victim
        self._chance.choice(faults)(victim)

    def mend(self, start_chance=1.0):
        """Repair the network, resume stopped members, and start dead ones with some probability."""
        self._network.heal()
        for name in HOSTS:
            pid = self._cluster.pids().get(name)
            if pid:
                os.kill(pid, signal.SIGCONT)
            elif self._chance.random() < start_chance:
                self._cluster.start(name)

    def _isolate(self, victim):
        self._network.isolate(victim, but=self._chance.choice([(), (CLIENT,)]))

    def _cut_one_way(self, victim):
        inwards = self._chance.random() < 0.5
        for other in HOSTS:
            if other != victim:
                self._network.one_way(*((other, victim) if inwards else (victim, other)), CUT)

    def _cut_link(self, victim):
        other = self._chance.choice([host for host in HOSTS if host != victim])
        self._network.between(victim, other, CUT)

    def _cut_tier(self, victim):
        tier = self._chance.choice(["front", "catalog", "order"])
        for host in HOSTS:
            if host.startswith(tier) and host != victim:
                self._network.between(host, victim, CUT)

    def _cut_several(self, _victim):
        for host in self._chance.sample(HOSTS, 3):
            self._network.isolate(host)
            time.sleep(self._chance.random() / 2)

    def _kill(self, victim):
        if victim in self._cluster.pids():
            self._cluster.signal(victim)

    def _kill_several(self, victim):
        for host in {victim, *self._chance.sample(HOSTS, 2)}:
            self._kill(host)

    def _stop(self, victim):
        pid = self._cluster.pids().get(victim)
        if pid:
            os.kill(pid, signal.SIGSTOP)

    def _spoil(self, _victim):
        choice = self._chance.choice
        wire = Wire(
            loss=choice([0, 0.05, 0.2]),
            doubles=choice([0, 0.1]),
            delay_s=choice([0, 0.01, 0.05]),
            jitter_s=choice([0, 0.01, 0.1]),
        )
        self._network.everywhere(wire)


def run(seed, seconds, directory):
    """Run one seed; returns how many faults there were and how many orders were acknowledged.
    Raises an exception if anything is wrong.
    """
    chance = random.Random(seed)
    with Network(HOSTS, seed) as network:
        cluster = ScatteredCluster(directory, network, fronts=FRONTS, catalogs=CATALOGS)
        with cluster, trading(cluster, CLIENTS, give_up_s=seconds + 60) as traders:
            nemesis, faults = Nemesis(cluster, network, chance), 0
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                nemesis.strike()
                faults += 1
                time.sleep(chance.random() ** 2 * PAUSE_MAX_S)
                if chance.random() < MEND_CHANCE:
                    nemesis.mend(START_CHANCE)
                    time.sleep(chance.random() * PAUSE_MAX_S / 2)
            nemesis.mend()
            traders.go_on()
            cluster.await_serving()
        return faults, traders.done()


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments and run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.nemesis", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many (3)")
    parser.add_argument("--first", type=int, default=0, metavar="S", help="the first one (0)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each (60)")
    options = parser.parse_args(arguments)
    if why := obstacle():
        print(why, file=sys.stderr)
        return 2
    failed = []
    for seed in range(options.first, options.first + options.seeds):
        directory = Path(tempfile.mkdtemp(prefix=f"twstock-nemesis-{seed}-"))
        try:
            faults, orders = run(seed, options.seconds, directory)
        except Exception:
            failed.append(seed)
            traceback.print_exc()
            print(f"seed {seed}: see {directory}", flush=True)
        else:
            print(f"seed {seed}: {faults} faults, {orders} orders, nothing wrong", flush=True)
            with contextlib.suppress(OSError):
                shutil.rmtree(directory)
    print(f"failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
