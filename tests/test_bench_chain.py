"""The floor of a trade in the benchmark: five processes that only pass messages and write."""

import json

import pytest

from bench.peers import chain
from bench.processes import ask
from bench.systems import Work


@pytest.mark.parametrize("start", [chain.start_sockets, chain.start_streams])
def test_a_chain_answers_when_its_entries_are_on_disk(start, tmp_path):
    """The catalog's entry is on its disk, the order's on those of the leader and a follower."""
    with start(tmp_path) as (system,):
        status, body = ask(system.address, system.requests[Work.TRADE][0])
        (directory,) = tmp_path.glob("chain-*")
        logs = {log.name: log.read_bytes()[: len(chain.REQUEST)] for log in directory.iterdir()}
    written = {name for name, beginning in logs.items() if beginning == chain.REQUEST}
    assert (status, json.loads(body)) == (200, {"data": {"transaction_number": 1}})
    assert {"catalog", "leader"} < written
    assert written & {"follower", "other_follower"}
    assert "front" not in written
