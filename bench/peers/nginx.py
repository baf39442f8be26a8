"""nginx with a constant answer: the most that one core of this machine can do over HTTP."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.peers.shape import stock
from bench.processes import answers, free_ports, running, wait_for
from bench.systems import LOOKUP_STOCK, Missing, System, Work, lookups

NAME = "nginx"
_CONF = """\
daemon off;
worker_processes 1;
pid {scratch}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {scratch}/body;
    proxy_temp_path {scratch}/proxy;
    fastcgi_temp_path {scratch}/fastcgi;
    uwsgi_temp_path {scratch}/uwsgi;
    scgi_temp_path {scratch}/scgi;
    default_type application/json;
    server {{
        listen 127.0.0.1:{port};
        location / {{ return 200 '{body}'; }}
    }}
}}
"""


def executable() -> str:
    """Where nginx is; Debian has it in a directory that is not in the users' PATH."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Missing("nginx: apt-get install -y nginx-light")
    return found


@contextlib.contextmanager
def start(scratch: Path) -> Iterator[list[System]]:
    """The peer, up. Raises Missing."""
    nginx = executable()
    (port,) = free_ports(1)
    body = json.dumps({"data": stock(LOOKUP_STOCK)}, separators=(",", ":"))
    conf = scratch / "nginx.conf"
    conf.write_text(_CONF.format(scratch=scratch, port=port, body=body))
    command = [nginx, "-p", str(scratch), "-c", str(conf), "-e", "stderr"]
    address = ("127.0.0.1", port)
    with running(command, scratch / "nginx.log") as process:
        wait_for(lambda: answers(address, lookups()[0]), NAME, [process])
        yield [System(NAME, address, {Work.LOOKUP: lookups()})]
