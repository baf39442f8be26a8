"""The order leader's desk: joining, batching, and trades without a gap."""

import pytest

from twstock.errors import BrokenInvariant
from twstock.market import BatchResult, Order, Outcome, Refusal, Side, Trade
from twstock.order.desk import Admission, Desk


def order(key: str, quantity: int = 1) -> Order:
    """A buy of one stock."""
    return Order(key, "GameStart", Side.BUY, quantity)


def trade(number: int, key: str) -> Trade:
    """The trade of such an order."""
    return Trade(number, order(key), number, 1599, 0)


def desk_with(*keys: str) -> Desk:
    """A desk on which these orders wait."""
    desk = Desk(epoch=7, known=10, batch_max=3, waiting_max=5)
    for key in keys:
        assert desk.place(order(key)) is Admission.QUEUED
    return desk


def test_key_in_flight_joins() -> None:
    """The same key and body joins the order that is on the desk already."""
    desk = desk_with("a")
    assert desk.place(order("a")) is Admission.JOINED
    assert desk.take() == (order("a"),)
    assert desk.place(order("a")) is Admission.JOINED


def test_key_with_another_body_is_a_conflict() -> None:
    """Another order under the key of one that is on the desk is kept off it."""
    desk = desk_with("a")
    assert desk.place(order("a", quantity=2)) is Admission.BEHIND
    assert desk.take() == (order("a"),)


def test_desk_is_bounded() -> None:
    """Orders beyond the limit are refused, also while others are with the catalog."""
    desk = desk_with(*"abcde")
    desk.send(desk.take(), 0, 0)
    assert desk.place(order("f")) is Admission.FULL


def test_those_who_join_are_bounded() -> None:
    """Asking again and again for one order does not fill the memory; when it is answered there is
    room again.
    """
    desk = desk_with("a", "b")
    for key in "ababa":
        assert desk.place(order(key)) is Admission.JOINED
    assert desk.place(order("b")) is Admission.CROWDED
    desk.close(("b",))
    assert [desk.place(order("a")) for _ in range(3)] == [
        Admission.JOINED,
        Admission.JOINED,
        Admission.CROWDED,
    ]


def test_batches_count_and_carry_what_is_known() -> None:
    """A batch has the epoch, the next number, and how far orders are recorded and known."""
    desk = desk_with(*"abcd")
    first = desk.send(desk.take(), 9, 1)
    assert (first.epoch, first.number, first.recorded, first.known) == (7, 1, 9, 10)
    assert [o.key for o in first.orders] == ["a", "b", "c"]
    result = tuple(Outcome(trade(11 + i, key)) for i, key in enumerate("abc"))
    desk.learn(BatchResult(result))
    second = desk.send(desk.take(), 10, 2)
    assert (second.number, second.known) == (2, 13)


def test_one_batch_at_a_time() -> None:
    """A second batch before the outcome of the first is known could execute an order twice."""
    desk = desk_with("a")
    desk.send(desk.take(), 0, 0)
    with pytest.raises(BrokenInvariant):
        desk.send((), 0, 0)


def test_refused_orders_are_settled_and_leave() -> None:
    """A refusal takes no number. Until its caller is told, whoever asks again joins the order."""
    desk = desk_with("a", "b")
    desk.send(desk.take(), 0, 0)
    refused = Outcome(refusal=Refusal.NOT_ENOUGH)
    learnt = desk.learn(BatchResult((refused, Outcome(trade(11, "b")))))
    assert learnt.settled == ((order("a"), refused),)
    assert learnt.trades == (trade(11, "b"),)
    assert desk.place(order("a")) is Admission.JOINED
    desk.close(("a",))
    assert desk.place(order("a")) is Admission.QUEUED
    assert desk.place(order("b")) is Admission.JOINED


def test_trades_of_others_are_recorded_in_sequence() -> None:
    """Trades made at the catalog directly take their numbers between ours."""
    desk = desk_with("a", "b")
    desk.send(desk.take(), 0, 0)
    ours = (Outcome(trade(11, "a")), Outcome(trade(13, "b")))
    learnt = desk.learn(BatchResult(ours, others=(trade(12, "direct"),)))
    assert [t.number for t in learnt.trades] == [11, 12, 13]


def test_replayed_trade_is_not_recorded_twice() -> None:
    """The leader has learnt of it before."""
    desk = desk_with("a")
    desk.send(desk.take(), 0, 0)
    learnt = desk.learn(BatchResult((Outcome(trade(9, "a"), replayed=True),)))
    assert learnt.trades == ()


def test_outcomes_that_were_not_asked_for_are_a_broken_invariant() -> None:
    """Without a batch under way, or for another number of orders."""
    desk = desk_with("a", "b")
    with pytest.raises(BrokenInvariant):
        desk.learn(BatchResult(()))
    desk.send(desk.take(), 0, 0)
    with pytest.raises(BrokenInvariant):
        desk.learn(BatchResult((Outcome(trade(11, "a")),)))


def test_gap_is_a_broken_invariant() -> None:
    """A missing number stops the leader."""
    desk = desk_with("a")
    desk.send(desk.take(), 0, 0)
    with pytest.raises(BrokenInvariant):
        desk.learn(BatchResult((Outcome(trade(12, "a")),)))


def test_a_batch_can_be_taken_back() -> None:
    """Its number is free again, and its orders wait for their answers: an order with one of their
    keys that came after an answer is another one. Without a batch there is nothing to take back.
    """
    desk = Desk(1, 0, 8, 8)
    desk.place(order("a"))
    batch = desk.send(desk.take(), 0, 0)
    assert desk.withdraw() == ("a",)
    assert not desk.may_have_traded("a")
    assert desk.place(order("a")) is Admission.JOINED
    desk.close(("a",))
    assert desk.place(order("a")) is Admission.QUEUED
    assert desk.send(desk.take(), 0, 0) == batch
    desk.close(("a",))
    assert desk.place(order("a")) is Admission.QUEUED
    assert desk.withdraw() == ()
    assert not desk.may_have_traded("a")
    with pytest.raises(BrokenInvariant):
        desk.withdraw()


def test_only_sent_orders_may_have_traded() -> None:
    """What was never in a batch has certainly had no effect."""
    desk = desk_with("a")
    assert not desk.may_have_traded("a")
    desk.send(desk.take(), 0, 0)
    assert desk.may_have_traded("a")


def test_what_was_answered_while_it_waited_is_not_taken() -> None:
    """Another order under its key can be placed and is taken."""
    desk = Desk(1, 0, 10, 10)
    first, second = order("a"), order("a", quantity=2)
    desk.place(first)
    desk.close(("a",))
    assert desk.place(second) is Admission.QUEUED
    assert desk.take() == (second,)
    assert not desk.holds(first)
