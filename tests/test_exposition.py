"""The text for Prometheus: made by prometheus_client, and read back by its parser."""

import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from twstock.exposition import MembersCollector, OwnProcess, pieces, process_families
from twstock.tally import Family, Histogram, Sample, counter, gauge, histogram


def text(members: dict[str, list[Family]]) -> str:
    """What a scrape of these members looks like."""
    return b"".join(pieces(MembersCollector(members))).decode()


def parsed(members: dict[str, list[Family]]) -> dict[str, Any]:
    """The families by name."""
    return {family.name: family for family in text_string_to_metric_families(text(members))}


def test_each_family_has_one_head_however_many_members_have_it() -> None:
    """Prometheus refuses a text with two heads for one name."""
    latency = Histogram()
    latency.observe(0.003)
    for_each = [counter("a_total", "A.", [({}, 1)]), histogram("h", "H.", [({}, latency)])]
    shown = text({"order-1": for_each, "order-2": for_each})
    heads = [line for line in shown.splitlines() if line.startswith("# TYPE")]
    assert heads == ["# TYPE a_total counter", "# TYPE h histogram"]
    found = parsed({"order-1": for_each, "order-2": for_each})
    assert {s.labels["member"] for s in found["a"].samples} == {"order-1", "order-2"}
    assert {s.name for s in found["h"].samples} == {"h_bucket", "h_count", "h_sum"}


def test_labels_come_through_whatever_is_in_them() -> None:
    """Quotes, line ends and backslashes are escaped."""
    awkward = 'a"b\\c\nd'
    found = parsed({"order-1": [gauge("g", "a\nb\\c", [({"reason": awkward}, 1)])]})
    assert found["g"].samples[0].labels == {"member": "order-1", "reason": awkward}
    assert found["g"].documentation == "a\nb\\c"


def test_a_member_of_another_version_cannot_spoil_the_text() -> None:
    """If a metric is of another kind at a member, it is left out for that member."""
    here, there = gauge("g", "G.", [({}, 1)]), Family("g", "counter", "", (Sample("g", {}, 2),))
    found = parsed({"order-1": [here], "order-2": [there]})
    assert [s.labels for s in found["g"].samples] == [{"member": "order-1"}]


@pytest.mark.parametrize("hidden", [False, True], ids=["all of /proc", "as under systemd"])
def test_a_process_tells_of_itself(tmp_path: Path, hidden: bool) -> None:
    """CPU time, memory and open files come from prometheus_client, under this project's prefix;
    also where only processes can be seen in ``/proc``, as under systemd.
    """
    (tmp_path / "self").symlink_to("/proc/self")
    process = OwnProcess(str(tmp_path)) if hidden else OwnProcess()
    found = parsed({"order-1": list(process_families(process))})
    (started,) = found["twstock_process_start_time_seconds"].samples
    assert time.time() - 86_400 < started.value <= time.time() + 1
    used = {"cpu_seconds", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds"}
    assert {f"twstock_process_{name}" for name in used} <= found.keys()
    assert {"version", "python"} <= found["twstock_build_info"].samples[0].labels.keys()
