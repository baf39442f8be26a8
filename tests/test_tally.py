"""Counting: a histogram is right for any values, and its families have Prometheus' form."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twstock.tally import LATENCY_S, SIZES, Histogram, counter, gauge, histogram, quantile

SECONDS = st.floats(0, 10, allow_nan=False)


@given(st.lists(SECONDS | st.sampled_from(LATENCY_S), max_size=50))
def test_a_bucket_holds_what_is_not_above_its_bound(values):
    """Prometheus' buckets are cumulative and include their bound (``le``)."""
    counted = Histogram()
    for value in values:
        counted.observe(value)
    family = histogram("h", "", [({}, counted)])
    buckets = {s.labels["le"]: s.value for s in family.samples if s.name == "h_bucket"}
    for bound, label in zip(LATENCY_S, buckets, strict=False):
        assert float(label) == bound
        assert buckets[label] == sum(value <= bound for value in values)
    assert buckets["+Inf"] == counted.count == len(values)
    rest = {s.name: s.value for s in family.samples if s.name != "h_bucket"}
    assert rest == {"h_count": len(values), "h_sum": pytest.approx(sum(values))}


@given(st.lists(SECONDS, min_size=1, max_size=50), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_a_quantile_lies_in_the_bucket_of_the_value_it_stands_for(values, q):
    """A quantile is as exact as its bucket is narrow; of values above the last bound it is that
    bound.
    """
    counted = Histogram()
    for value in values:
        counted.observe(value)
    found = quantile(counted.counts, LATENCY_S, q)
    ranked = sorted(values)[max(1, ceil(q * len(values))) - 1]
    upper = next((bound for bound in LATENCY_S if ranked <= bound), LATENCY_S[-1])
    lower = max((bound for bound in LATENCY_S if bound < upper), default=0.0)
    assert found is not None
    assert lower <= found <= upper or ranked > LATENCY_S[-1]


def test_nothing_has_no_quantile():
    """Without values there is no quantile."""
    assert quantile(Histogram().counts, LATENCY_S, 0.5) is None


def test_a_counter_has_its_total_in_the_samples_alone():
    """``_total`` is part of the sample's name, but not of the family's, as in Prometheus' data
    model.
    """
    family = counter("x_total", "Some.", [({"a": "b"}, 3)])
    assert (family.name, family.kind) == ("x", "counter")
    assert family.samples == (("x_total", {"a": "b"}, 3),)


def test_a_gauge_has_a_sample_for_each_row():
    """All samples have the one name, and labels of their own."""
    family = gauge("x", "Some.", [({"a": "1"}, 1), ({"a": "2"}, 2)])
    assert [sample.labels["a"] for sample in family.samples] == ["1", "2"]


def test_bounds_are_spelled_without_an_exponent():
    """Whoever queries by ``le`` has to write the bounds as they are."""
    for bounds in (LATENCY_S, SIZES):
        family = histogram("h", "", [({}, Histogram(bounds))])
        labels = [s.labels["le"] for s in family.samples if s.name == "h_bucket"]
        assert not any("e" in label for label in labels)
