"""Turns of the feed: one at a time, in order, with pauses, whoever gives up meanwhile."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from twstock.web.feed.turns import REST_FACTOR, REST_MAX_S, TURN_S, Turns


class Work:
    """Work that waits for its turn at once, and ends when ``done`` fires."""

    def __init__(self, turns: Turns, log: list[str], name: str, cost_s: float = 0.0) -> None:
        self.done: Deferred[None] = Deferred()
        self.task = Deferred.fromCoroutine(self._run(turns, log, name, cost_s))
        self.task.addErrback(lambda failure: failure.trap(CancelledError) and None)

    async def _run(self, turns: Turns, log: list[str], name: str, cost_s: float) -> None:
        async with turns.turn():
            log.append(name)
            turns._clock.rightNow += cost_s  # type: ignore[attr-defined]
            await self.done


def test_one_has_a_turn_at_a_time_in_sequence() -> None:
    """Whoever gave up is passed over."""
    clock, log = Clock(), list[str]()
    turns = Turns(clock)
    works = {name: Work(turns, log, name) for name in "abcd"}
    assert log == []
    clock.advance(0)
    assert log == ["a"]
    works["b"].task.cancel()
    works["a"].task.cancel()
    clock.advance(0)
    assert log == ["a", "c"]
    works["c"].done.callback(None)
    clock.advance(0)
    assert log == ["a", "c", "d"]
    works["d"].done.callback(None)
    clock.advance(0)
    assert clock.getDelayedCalls() == []


def test_short_turns_follow_each_other_and_long_ones_give_way() -> None:
    """When more than ``TURN_S`` was spent there is a pause in proportion, up to ``REST_MAX_S``."""
    clock, log = Clock(), list[str]()
    turns = Turns(clock)
    for name, cost_s in (("a", TURN_S / 2), ("b", TURN_S), ("c", 10.0), ("d", 0.0)):
        Work(turns, log, name, cost_s).done.callback(None)
    clock.advance(0)
    assert log == ["a", "b"]
    clock.advance(1.5 * TURN_S * REST_FACTOR - 0.001)
    assert log == ["a", "b"]
    clock.advance(0.002)
    assert log == ["a", "b", "c"]
    clock.advance(REST_MAX_S)
    assert log == ["a", "b", "c", "d"]


def test_thousands_can_wait() -> None:
    """Thousands of turns follow each other without recursion."""
    clock, log = Clock(), list[str]()
    turns = Turns(clock)
    for number in range(5000):
        Work(turns, log, str(number)).done.callback(None)
    clock.advance(0)
    assert log == [str(number) for number in range(5000)]
