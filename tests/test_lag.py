"""How late the reactor is."""

from twisted.internet.task import Clock

from twstock.lag import EVERY_S, Lag


def counted(lag: Lag) -> tuple[float, float]:
    """How many times the reactor was looked at, and by how much it was late in all."""
    (family,) = lag.families()
    values = {sample.name: sample.value for sample in family.samples}
    return values[f"{family.name}_count"], round(values[f"{family.name}_sum"], 6)


def test_a_timer_that_fires_late_is_counted_by_how_much() -> None:
    """A reactor that was held up for 30 ms is counted as 30 ms late, once."""
    clock = Clock()
    lag = Lag(clock)
    lag.start()
    clock.advance(EVERY_S)
    assert counted(lag) == (1, 0.0)
    clock.advance(EVERY_S + 0.03)
    assert counted(lag) == (2, 0.03)
    clock.advance(EVERY_S)
    assert counted(lag) == (3, 0.03)
    assert round(lag.take_worst_s(), 6) == 0.03
    assert lag.take_worst_s() == 0.0


def test_it_can_be_stopped() -> None:
    """No timer is left behind."""
    clock = Clock()
    lag = Lag(clock)
    lag.stop()
    lag.start()
    lag.stop()
    assert not clock.getDelayedCalls()
