"""The parts of the benchmark that compute. Nothing is measured here, and no server is started."""

import asyncio
import json
import subprocess
import sys

import pytest

from bench import rows, wrk
from bench.hitrate import hit_rate, weights
from bench.load import Connection
from bench.report import Report, to_json, to_markdown
from bench.rounds import STAGES, Effort, Found, estimate_s
from bench.rows import ROWS, Cell, Figure, Row, cells, chosen, outcome
from bench.systems import Measured, Request, Work, order
from bench.tables import number
from twstock import cli
from twstock.cli import main
from twstock.tally import percentile


def measured(rate=100.0, p50_ms=1.0, errors=0):
    """A run."""
    return Measured(rate, p50_ms, 2 * p50_ms, 3 * p50_ms, 1000, errors)


def results(row, ours, theirs):
    """Both sides of a row, round by round."""
    return {
        Cell(rows.OURS, row.work, row.connections): ours,
        Cell(row.peer, row.work, row.connections): theirs,
    }


THROUGHPUT = Row(Work.TRADE, 64, "etcd", Figure.THROUGHPUT, 2.0)
MEDIAN = Row(Work.TRADE, 1, "PostgreSQL", Figure.MEDIAN, 1.0)


def test_what_wrk_prints_is_understood():
    """The line of its script becomes rates and milliseconds; anything else is an error."""
    line = "Running\nbench requests=500 microseconds=2000000 errors=3 p50=1500 p99=2500 p999=9000\n"
    assert wrk.parse(line) == Measured(250.0, 1.5, 2.5, 9.0, 500, 3)
    with pytest.raises(ValueError, match="did not report"):
        wrk.parse("Running 1s test\n")


def test_requests_reach_wrk_byte_for_byte():
    """A body is quoted so that Lua reads the very same bytes."""
    request = order("GameStart", "buy")
    text = wrk.script([request])
    quoted = text.partition("{\n")[2].partition("\n}")[0]
    assert json.loads(quoted.replace("\\034", '\\"').replace("\\013\\010", "\\r\\n")) == (
        request.wire().decode()
    )
    assert "function request" not in wrk.script([Request("GET", "/stocks/AAPL")])


def test_the_ratio_is_the_median_of_the_rounds_ratios():
    """A round in which both sides were slow counts as much as another."""
    rates = [(100.0, 50.0), (10.0, 10.0), (90.0, 30.0)]
    ours, theirs = ([measured(pair[k]) for pair in rates] for k in (0, 1))
    found = outcome(THROUGHPUT, results(THROUGHPUT, ours, theirs))
    assert found.ratios == (2.0, 1.0, 3.0)
    assert (found.ratio, found.ours, found.theirs, found.verdict) == (2.0, 90.0, 30.0, "met")


def test_above_one_means_ahead_for_latencies_too():
    """Half the latency is a ratio of 2; twice the latency is short."""
    half = results(MEDIAN, [measured(p50_ms=1.0)], [measured(p50_ms=2.0)])
    twice = results(MEDIAN, [measured(p50_ms=2.0)], [measured(p50_ms=1.0)])
    assert (outcome(MEDIAN, half).ratio, outcome(MEDIAN, half).verdict) == (2.0, "met")
    assert (outcome(MEDIAN, twice).ratio, outcome(MEDIAN, twice).verdict) == (0.5, "short")


def test_errors_are_never_a_success():
    """A server that refuses quickly is not fast."""
    found = outcome(THROUGHPUT, results(THROUGHPUT, [measured(900.0, errors=1)], [measured()]))
    assert found.ratio == 9.0
    assert found.verdict == "short"


def test_a_side_that_is_missing_leaves_the_row_open():
    """Without the peer there is no ratio, and the report says what to install."""
    found = Found({Cell(rows.OURS, Work.TRADE, 64): [measured()]}, {"etcd": "etcd: install it"})
    text = to_markdown(Report({"rounds": 1}, [THROUGHPUT], found))
    assert outcome(THROUGHPUT, found.results) is None
    assert "etcd: install it" in text


def test_words_choose_rows_and_what_is_measured_for_them():
    """Only the two sides of the chosen rows are measured, unless the curves are wanted."""
    (row,) = chosen(["against ETCD"])
    assert cells([row], with_curves=False) == [
        Cell(rows.OURS, Work.TRADE, 64),
        Cell("etcd", Work.TRADE, 64),
    ]
    assert set(cells([row], with_curves=False)) < set(cells([row], with_curves=True))
    assert chosen(["no such row"]) == []
    assert chosen([]) == list(ROWS)


def test_everything_that_is_measured_has_a_server():
    """Every cell belongs to exactly one server of one stage, and its time is estimated."""
    for cell in cells(ROWS, with_curves=True):
        provided = [
            server
            for works, servers in STAGES
            if cell.work in works
            for server in servers
            if cell.system in server.provides
        ]
        assert len(provided) == 1, cell
        assert estimate_s([cell], Effort(2, 3)) > 6


def test_the_report_is_json_even_when_nothing_was_answered():
    """Percentiles of nothing are null."""
    nothing = Measured(0.0, float("nan"), float("nan"), float("nan"), 0, 7)
    found = Found(results(THROUGHPUT, [nothing], [measured()]))
    text = json.dumps(to_json(Report({}, [THROUGHPUT], found)), allow_nan=False)
    first = json.loads(text)["measured"][0]["rounds"][0]
    assert (first["p50_ms"], first["errors"]) == (None, 7)


def test_percentiles_are_of_nearest_rank_and_numbers_are_rounded():
    """A number that is not known is a dash."""
    assert [percentile([1, 2, 3, 4], share) for share in (0, 0.5, 0.51, 0.99)] == [1, 2, 3, 4]
    assert percentile(range(1, 101), 0.99) == 99
    assert [number(v) for v in (0.123, 12.34, 1234.5, float("nan"))] == [
        "0.12",
        "12.3",
        "1,234",
        "-",
    ]


@pytest.mark.parametrize("demand", ["uniform", "Zipf"])
def test_a_cache_of_everything_always_hits(demand):
    """A smaller one hits sometimes. The shares of demand add up to one."""
    assert sum(weights(demand, 50)) == pytest.approx(1)
    assert hit_rate(demand, 50, requests=200, stocks=50).rate == 1.0
    assert 0 < hit_rate(demand, 10, requests=2000, stocks=50).rate < 1


class Pipe(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self):
        super().__init__()
        self.written = b""

    def write(self, data):
        """Keep it."""
        self.written += data

    def is_closing(self):
        """Never."""
        return False


def test_an_answer_in_pieces_is_one_answer():
    """It is counted when all of it is there. A lost connection counts as status 0."""
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"
    for cut in range(1, len(answer)):
        told = []
        connection = Connection()
        connection.connection_made(pipe := Pipe())
        connection.ask(b"GET", lambda *answered, told=told: told.append(answered))
        connection.data_received(answer[:cut])
        assert told == []
        connection.data_received(answer[cut:])
        assert (told, pipe.written) == ([(404, b"{}")], b"GET")
    connection.ask(b"GET", lambda status, _: told.append(status))
    connection.connection_lost(None)
    assert told[-1] == 0


def test_twstock_bench_is_the_benchmark(capsys):
    """The sub-command takes the same options and names the same parts."""
    assert main(["bench", "--list"]) == 0
    assert "growth in orders" in capsys.readouterr().out.splitlines()
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: twstock bench ")
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--only", "no such part"])
    assert ended.value.code == 2


def test_twstock_bench_says_where_the_benchmark_is_when_it_is_not_here(
    tmp_path, monkeypatch, capsys
):
    """An installed package does not contain it."""
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "twstock" / "cli.py"))
    assert main(["bench", "--quick"]) == 1
    assert "docs/performance.md" in capsys.readouterr().err


def test_other_commands_do_not_load_the_benchmark():
    """It is imported when it is run."""
    code = "import sys, twstock.cli; sys.exit(any(m.startswith('bench') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
