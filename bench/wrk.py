"""wrk (https://github.com/wg/wrk), the load generator: one thread, its figures by a Lua script.

A closed loop: each connection sends its next request when it has its answer. wrk adds to its
latencies the requests that a stall kept from being sent, so a stall is not hidden. It counts
a status of 400 or more as an error.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import load
from bench.systems import Address, Measured, Request

TIMEOUT_S = 10
GRACE_S = 30
_DONE = """
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    "bench requests=%d microseconds=%d errors=%d p50=%d p99=%d p999=%d\\n",
    summary.requests, summary.duration, e.status + e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""
_LINE = re.compile(
    r"^bench requests=(\d+) microseconds=(\d+) errors=(\d+) p50=(\d+) p99=(\d+) p999=(\d+)$",
    re.MULTILINE,
)


def installed() -> bool:
    """Whether wrk can be run."""
    return shutil.which("wrk") is not None


def quoted(text: bytes) -> str:
    """Bytes as a Lua string, with other than plain characters escaped by their numbers."""
    plain = (chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:03d}" for b in text)
    return f'"{"".join(plain)}"'


def script(requests: Sequence[Request]) -> str:
    """The Lua script that sends requests in turn and prints the result.

    A single request is set once: wrk repeats it without a call to Lua.
    """
    if len(requests) == 1 and not requests[0].body:
        return (
            f'wrk.path = {quoted(requests[0].path.encode())}\nwrk.headers["Host"] = "bench"{_DONE}'
        )
    wires = ",\n".join(quoted(request.wire()) for request in requests)
    return (
        f"local wires = {{\n{wires}\n}}\nlocal number = 0\n"
        "function request()\n  number = number % #wires + 1\n  return wires[number]\nend" + _DONE
    )


def parse(output: str) -> Measured:
    """What the script printed; raises ValueError if it printed nothing."""
    found = _LINE.search(output)
    if found is None:
        raise ValueError(f"wrk did not report: {output!r}")
    requests, microseconds, errors, p50, p99, p999 = map(int, found.groups())
    rate = requests / (microseconds / 1e6)
    return Measured(rate, p50 / 1000, p99 / 1000, p999 / 1000, requests, errors)


def measure(
    address: Address, requests: Sequence[Request], connections: int, seconds: float
) -> Measured:
    """Run wrk once, for a whole number of seconds."""
    whole = max(1, round(seconds))
    with tempfile.TemporaryDirectory(prefix="twstock-bench-wrk-") as directory:
        path = Path(directory, "requests.lua")
        path.write_text(script(requests), encoding="ascii")
        options = ["-t1", f"-c{connections}", f"-d{whole}s", f"--timeout={TIMEOUT_S}s"]
        url = f"http://{address[0]}:{address[1]}/"
        done = subprocess.run(
            ["wrk", *options, "-s", str(path), url],
            capture_output=True,
            text=True,
            timeout=whole + TIMEOUT_S + GRACE_S,
            check=True,
        )
    return parse(done.stdout)


def generator() -> Callable[[Address, Sequence[Request], int, float], Measured]:
    """What measures a closed loop: wrk where it is installed, else our own."""
    return measure if installed() else load.measure
