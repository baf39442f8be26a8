"""uvicorn as the FastAPI peers run it: one worker, httptools, uvloop, no access log."""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.processes import answers, free_ports, running, wait_for
from bench.systems import LOOKUP_STOCK, Address, Missing, Request

NEEDED = ("fastapi", "uvicorn", "httptools", "uvloop")


def require(*modules: str) -> None:
    """Raise Missing unless these Python packages are installed."""
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        raise Missing(f"{', '.join(missing)}: .venv/bin/pip install -r requirements-bench.txt")


@contextlib.contextmanager
def serving(app: str, log: Path, environ: Mapping[str, str] | None = None) -> Iterator[Address]:
    """Serve an application (``module:name``) that answers lookups; yields its address."""
    require(*NEEDED)
    (port,) = free_ports(1)
    options = ["--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop"]
    options += ["--http", "httptools", "--workers", "1", "--no-access-log"]
    command = [sys.executable, "-m", "uvicorn", app, *options, "--log-level", "warning"]
    address = ("127.0.0.1", port)
    with running(command, log, environ=environ) as process:
        probe = Request("GET", f"/stocks/{LOOKUP_STOCK}")
        wait_for(lambda: answers(address, probe), app, [process])
        yield address
