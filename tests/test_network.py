"""Every member has a host of its own, and the network between them is cut, slow or lossy.

What real networks do, on real processes and the kernel's TCP: nothing is lost, doubled or
renumbered, whoever has a majority and the front-ends goes on, and all go on when the network is
well again, however long it was not.
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
# A member has started, is missed by nobody any more, and would have been given the lead.
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
    """Each test leaves a network that is well."""
    yield
    network.heal()


def goes_on(traders, action):
    """Trades that begin after ``action`` are acknowledged soon."""
    began = time.monotonic()
    action()
    wait_until(lambda: traders.acknowledged_since(began), "trades to go on")
    traders.go_on()
    assert traders.outage_s(began) < OUTAGE_MAX_S


def spell(seconds):
    """Let the weather last: what is looked for is that nothing happens, and then that it ends."""
    time.sleep(seconds)


@pytest.mark.parametrize("group", ["order", "catalog"])
def test_a_leader_is_cut_off_from_everybody(cluster, network, group):
    """The others elect one, and the one that was cut off follows when it is back."""
    with trading(cluster) as traders:
        leader = cluster.await_leader(group)
        goes_on(traders, lambda: network.isolate(leader))
        cluster.await_leader(group, but=leader)
        goes_on(traders, network.heal)
        cluster.await_serving()


@pytest.mark.parametrize("deaf", [True, False], ids=["hears nobody", "is heard by nobody"])
def test_a_leader_is_cut_off_one_way(cluster, network, deaf):
    """Half a connection is none: the lead goes to another, once."""
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
    """A third between them is enough, and nobody is elected again and again."""
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
    """It leads nothing that way: another takes over, who can."""
    with trading(cluster) as traders:
        leader, market = cluster.await_leader(), cluster.await_leader("catalog")
        goes_on(traders, lambda: network.between(leader, market, CUT))
        cluster.await_leader(but=leader)
        goes_on(traders, network.heal)


def test_the_catalog_leader_is_out_of_reach_of_all_order_replicas(cluster, network):
    """Front-ends reach it, and nobody can trade: another takes over, who is reached."""
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
    """Its group is well, and yet another takes the lead, whom the front-ends can reach."""
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
    """It knows of no front-ends then, and does not get the lead back as long as they cannot
    reach it, although it has the highest id.
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
    """Clients go on through the other, and nobody waits for the one that cannot be told."""
    with trading(cluster) as traders:
        goes_on(traders, lambda: network.isolate("front-2"))
        spell(SPELL_S)
        goes_on(traders, network.heal)
        cluster.await_serving()


def test_nothing_arrives_for_a_while(cluster, network):
    """No connection breaks, and no packet comes: all go on as soon as packets do."""
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
    """Trades take longer, and go on."""
    with trading(cluster) as traders:
        goes_on(traders, lambda: network.everywhere(wire))
        spell(SPELL_S)
        goes_on(traders, network.heal)


def test_the_network_is_too_bad(cluster, network):
    """Answers take longer than anybody waits: nothing goes on, and nothing is wrong after it."""
    with trading(cluster) as traders:
        network.everywhere(Wire(delay_s=0.1, jitter_s=0.4, loss=0.1, doubles=0.1))
        spell(SPELL_S)
        goes_on(traders, network.heal)


def test_hosts_come_and_go(cluster, network):
    """One after the other is cut off, in any sequence, and then all are back at once."""
    chance = random.Random(7)
    hosts = [*FRONTS, *CATALOGS, *ORDERS]
    with trading(cluster) as traders:
        for _ in range(3):
            for name in chance.sample(hosts, 4):
                network.isolate(name, but=(CLIENT,))
                spell(chance.random())
            goes_on(traders, network.heal)
        cluster.await_serving()
