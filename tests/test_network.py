"""Every member has a host of its own, and the network between them is cut, slow or lossy. It is
what real networks do, with real processes and the kernel's TCP. Nothing is lost, doubled or
renumbered; trading goes on where there is a majority that front-ends reach; and all is well again
when the network is, however long it was not.
"""

import random
import time

import pytest

from tests.cluster_fixture import wait_until
from tests.network import CLIENT, CUT, Network, Wire, obstacle
from tests.scattered import ScatteredCluster
from tests.traders import trading
from twstock.config import DEFAULT_TIMINGS
from twstock.plan import member_names

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(why := obstacle()), reason=why or "-"),
]
FRONTS = ("front-1", "front-2")
CATALOGS = ("catalog-1", "catalog-2", "catalog-3")
ORDERS = ("order-1", "order-2", "order-3")
# Far above what an election takes on a busy machine, and below what it takes the kernel and gRPC to
# try again a connection that was silent for a while, if that is left to them.
OUTAGE_MAX_S = 20.0
SPELL_S = 3.0
LONG_S = 25.0
# By then a restarted member would have been given the lead, if it could be.
STARTED_S = 15.0
ELECTION_S = DEFAULT_TIMINGS.election_s


@pytest.fixture(scope="module")
def network():
    """A host for each member."""
    with Network([*FRONTS, *CATALOGS, *ORDERS]) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, network):
    """Two front-ends, three catalogs, three order replicas, shared by the tests of this file."""
    directory = tmp_path_factory.mktemp("network")
    running = ScatteredCluster(directory, network, fronts=2, catalogs=3)
    with running:
        assert set(member_names(running.config)) == {*FRONTS, *CATALOGS, *ORDERS}
        yield running


@pytest.fixture(autouse=True)
def whole(network):
    """The network is well again after each test."""
    yield
    network.heal()


def goes_on(traders, action):
    """Trading goes on after ``action``, and is never interrupted for ``OUTAGE_MAX_S``."""
    began = time.monotonic()
    action()
    wait_until(lambda: traders.acknowledged_since(began), "trades to go on")
    traders.go_on()
    assert traders.outage_s(began) < OUTAGE_MAX_S


def spell(seconds):
    """Let the network be as it is for a while; waiting is needed, because what is to be seen is
    that nothing bad happens.
    """
    time.sleep(seconds)


@pytest.mark.parametrize("group", ["order", "catalog"])
def test_a_leader_is_cut_off_from_everybody(cluster, network, group):
    """The others elect another one, and the one that was cut off follows it when it is back."""
    with trading(cluster) as traders:
        leader = cluster.await_leader(group)
        goes_on(traders, lambda: network.isolate(leader))
        cluster.await_leader(group, but=leader)
        goes_on(traders, network.heal)
        cluster.await_serving()


@pytest.mark.parametrize("deaf", [True, False], ids=["hears nobody", "is heard by nobody"])
def test_a_leader_is_cut_off_one_way(cluster, network, deaf):
    """A leader that hears nobody, or that nobody hears, is replaced."""
    with trading(cluster) as traders:
        leader = cluster.await_leader()

        def cut():
            for other in {*FRONTS, *CATALOGS, *ORDERS} - {leader}:
                network.one_way(*((other, leader) if deaf else (leader, other)), CUT)

        goes_on(traders, cut)
        cluster.await_leader(but=leader)
        goes_on(traders, network.heal)
        cluster.await_serving()


def test_two_order_replicas_cannot_reach_each_other(cluster, network):
    """Trading goes on over the third one, and there are no elections again and again."""
    with trading(cluster) as traders:
        leader = cluster.await_leader()
        other = next(name for name in ORDERS if name != leader)
        goes_on(traders, lambda: network.between(leader, other, CUT))
        before = cluster.services()[cluster.await_leader()]["term"]
        spell(SPELL_S)
        after = cluster.services()[cluster.await_leader()]["term"]
        assert after - before < SPELL_S / ELECTION_S / 2
        goes_on(traders, network.heal)


def test_the_order_leader_cannot_reach_the_catalog_leader(cluster, network):
    """Another one, which can, takes the lead."""
    with trading(cluster) as traders:
        leader, market = cluster.await_leader(), cluster.await_leader("catalog")
        goes_on(traders, lambda: network.between(leader, market, CUT))
        cluster.await_leader(but=leader)
        goes_on(traders, network.heal)


def test_the_catalog_leader_is_out_of_reach_of_all_order_replicas(cluster, network):
    """Front-ends reach it, but nobody can trade: another one, which order replicas reach, takes the
    lead.
    """
    with trading(cluster) as traders:
        leader = cluster.await_leader("catalog")

        def cut():
            for order in ORDERS:
                network.between(order, leader, CUT)

        goes_on(traders, cut)
        cluster.await_leader("catalog", but=leader)
        goes_on(traders, network.heal)
        cluster.await_serving()


@pytest.mark.parametrize("group", ["order", "catalog"])
def test_a_leader_is_out_of_reach_of_all_front_ends(cluster, network, group):
    """Its group is well, and still another one, which front-ends reach, takes the lead."""
    with trading(cluster) as traders:
        leader = cluster.await_leader(group)

        def cut():
            for front in FRONTS:
                network.between(front, leader, CUT)

        goes_on(traders, cut)
        cluster.await_leader(group, but=leader)
        goes_on(traders, network.heal)
        cluster.await_serving()


@pytest.mark.parametrize("group", ["order", "catalog"])
def test_a_leader_is_started_again_out_of_reach_of_all_front_ends(cluster, network, group):
    """After its start it knows of no front-ends. While they cannot reach it, it does not get the
    lead back, although it has the highest id.
    """
    highest = f"{group}-3"
    cluster.await_serving()
    with trading(cluster) as traders:

        def restart():
            for front in FRONTS:
                network.between(front, highest, CUT)
            cluster.signal(highest)
            cluster.start(highest)

        goes_on(traders, restart)
        began = time.monotonic()
        while time.monotonic() - began < STARTED_S:
            goes_on(traders, lambda: spell(SPELL_S))
        assert cluster.leader(group) != highest
        goes_on(traders, network.heal)
        cluster.await_serving()


def test_a_front_end_is_cut_off(cluster, network):
    """Clients go on through the other one; trades do not wait for the cache of the one that is cut
    off.
    """
    with trading(cluster) as traders:
        goes_on(traders, lambda: network.isolate("front-2"))
        spell(SPELL_S)
        goes_on(traders, network.heal)
        cluster.await_serving()


def test_nothing_arrives_for_a_while(cluster, network):
    """No packet arrives, though no connection breaks: trading goes on as soon as packets arrive
    again.
    """
    with trading(cluster, give_up_s=2 * LONG_S) as traders:
        for name in (*FRONTS, *CATALOGS, *ORDERS):
            network.isolate(name, but=(CLIENT,))
        spell(LONG_S)
        goes_on(traders, network.heal)
        cluster.await_serving()


@pytest.mark.parametrize(
    "wire",
    [
        Wire(loss=0.05),
        Wire(doubles=0.2, jitter_s=0.002),
        Wire(delay_s=0.02, jitter_s=0.02),
    ],
    ids=["loses", "doubles and mixes up", "is slow"],
)
def test_the_network_is_bad(cluster, network, wire):
    """With packets lost, doubled, out of order or late, trades take longer, and go on."""
    with trading(cluster) as traders:
        goes_on(traders, lambda: network.everywhere(wire))
        spell(SPELL_S)
        goes_on(traders, network.heal)


def test_the_network_is_too_bad(cluster, network):
    """Answers take longer than anybody waits. When the network is well again trading goes on, and
    nothing was done wrong.
    """
    with trading(cluster) as traders:
        network.everywhere(Wire(delay_s=0.1, jitter_s=0.4, loss=0.1, doubles=0.1))
        spell(SPELL_S)
        goes_on(traders, network.heal)


def test_hosts_come_and_go(cluster, network):
    """Hosts are cut off one after the other, in any order, and then all are back at once: trading
    goes on.
    """
    chance = random.Random(7)
    hosts = [*FRONTS, *CATALOGS, *ORDERS]
    with trading(cluster) as traders:
        for _ in range(3):
            for name in chance.sample(hosts, 4):
                network.isolate(name, but=(CLIENT,))
                spell(chance.random())
            goes_on(traders, network.heal)
        cluster.await_serving()
