"""When the order leader tells the catalog what is recorded although it has no order to send."""

from twstock.order.watermark import TELL_EVERY_S, RecordedWatermark


def test_half_of_what_the_catalog_keeps_is_told_at_once() -> None:
    """The catalog is told as soon as more than half of what it can keep is recorded. So it never
    has to refuse a direct trade because of trades that are recorded already.
    """
    watermark = RecordedWatermark(10, 0.0)
    assert [recorded for recorded in range(10) if watermark.is_due(recorded, 0.0)] == [6, 7, 8, 9]
    watermark.told(9, 0.0)
    assert not watermark.is_due(14, 0.0)
    assert watermark.is_due(15, 0.0)


def test_a_catalog_that_keeps_one_trade_is_told_of_each() -> None:
    """Half of one is zero, but with nothing new nothing is told."""
    watermark = RecordedWatermark(1, 0.0)
    assert not watermark.is_due(0, 0.0)
    assert watermark.is_due(1, 0.0)


def test_few_are_told_after_a_while() -> None:
    """Fewer are told after ``TELL_EVERY_S``: the catalog may keep fewer than this leader's
    configuration says.
    """
    watermark = RecordedWatermark(10, 5.0)
    assert not watermark.is_due(1, 5.0 + TELL_EVERY_S - 0.1)
    assert watermark.is_due(1, 5.0 + TELL_EVERY_S)
    watermark.told(1, 100.0)
    assert not watermark.is_due(2, 99.0 + TELL_EVERY_S)
    assert watermark.is_due(2, 100.0 + TELL_EVERY_S)


def test_nothing_is_told_twice() -> None:
    """If nothing new is recorded nothing is told, so that the log of an idle catalog does not
    grow.
    """
    watermark = RecordedWatermark(10, 0.0)
    assert not watermark.is_due(0, 1e9)
    watermark.told(7, 0.0)
    assert not watermark.is_due(7, 1e9)
