"""400 seeds of the simulation; more with ``python -m tests.simulate``."""

import pytest

from tests.faults import simulate
from tests.simulation import World


@pytest.mark.parametrize("chunk", range(40))
def test_safety_and_recovery_in_a_simulated_world(chunk: int) -> None:
    """Whatever processes, disks, clocks and the network do, no promise is broken; and when
    they stop doing it, the group serves again, agrees, and is led by its highest id.
    """
    for seed in range(chunk * 10, chunk * 10 + 10):
        simulate(seed)


@pytest.mark.parametrize("size", [1, 3, 4, 5])
def test_the_promises_hold_for_each_size(size: int) -> None:
    """The same for one replica, for an even number of them, and for a group that survives two
    losses.
    """
    for seed in range(1000, 1003):
        simulate(seed, size)


def test_a_seed_gives_the_same_run_again() -> None:
    """A failure can be replayed: the same seed has the same events."""
    one, other = simulate(7, 3), simulate(7, 3)
    assert (one.events, one.now, one.acknowledged) == (other.events, other.now, other.acknowledged)


@pytest.mark.parametrize("flush_s", [0.2, 0.3, 0.45, 1.0])
def test_slow_disks_make_a_slow_group_and_not_none(flush_s: float) -> None:
    """When each flush takes longer than an election time-out a leader is found all the same, in the
    first term or the second, and serves.
    """
    for seed in range(10):
        world = World(seed, 3)
        world.flush_s = flush_s
        world.asked_every_s = 0.1
        world.ask()
        assert world.run(10 * flush_s, lambda world=world: len(world.acknowledged) > 0)
        assert max(node.replica.term for node in world.nodes.values() if node.replica) <= 2


def test_an_answer_that_comes_late_makes_no_lease_longer() -> None:
    """A leader counts an answer from when it asked, not from when the answer came: the member that
    gave it may not hear of its leader since then and elect another. Leases that overlap fail the
    run.
    """
    for seed in range(10):
        world = World(seed, 3)
        world.asked_every_s = 0.03
        world.ask()
        for _ in range(5):
            world.strays = 0.0
            world.cut.clear()
            assert world.run(3.0, lambda world=world: len(world.leaders()) == 1)
            world.run(0.5)
            world.strays = 0.3
            world.run(0.2)
            for leader in world.leaders():
                world.cut.update((leader.id, other) for other in world.members)
            world.run(1.0)
