"""etcd, three members on this machine: one put for each request, through its JSON gateway."""

import base64
import contextlib
import http.client
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.peers.shape import order
from bench.processes import Process, ask, free_ports, running, wait_for
from bench.systems import Address, Missing, Request, System, Work

NAME = "etcd"
MEMBERS = 3
KEYS = 1000
_STATUS = Request("POST", "/v3/maintenance/status", b"{}")


def put(number: int) -> Request:
    """The request that stores an order under its number."""
    key = base64.b64encode(f"orders/{number}".encode()).decode()
    value = base64.b64encode(json.dumps(order(number)).encode()).decode()
    body = json.dumps({"key": key, "value": value}, separators=(",", ":"))
    return Request("POST", "/v3/kv/put", body.encode())


def leads(address: Address) -> bool:
    """Whether the member at an address leads."""
    try:
        status, body = ask(address, _STATUS)
        answer = json.loads(body)
        return status == http.client.OK and answer["leader"] == answer["header"]["member_id"]
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return False


@contextlib.contextmanager
def start(scratch: Path) -> Iterator[list[System]]:
    """The peer, up; requests go to its leader, which saves a hop. Raises Missing."""
    etcd = shutil.which("etcd")
    if etcd is None:
        raise Missing("etcd: apt-get install -y etcd-server")
    ports = free_ports(2 * MEMBERS)
    clients, peers = ports[:MEMBERS], ports[MEMBERS:]
    group = ",".join(f"m{k}=http://127.0.0.1:{port}" for k, port in enumerate(peers))
    with contextlib.ExitStack() as stack:
        processes: list[Process] = []
        for k in range(MEMBERS):
            client, peer = f"http://127.0.0.1:{clients[k]}", f"http://127.0.0.1:{peers[k]}"
            command = [etcd, "--name", f"m{k}", "--data-dir", str(scratch / f"etcd-{k}")]
            command += ["--listen-client-urls", client, "--advertise-client-urls", client]
            command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            command += ["--initial-cluster", group, "--initial-cluster-state", "new"]
            log = scratch / f"etcd-{k}.log"
            processes.append(stack.enter_context(running(command, log)))
        addresses = [("127.0.0.1", port) for port in clients]
        wait_for(lambda: any(map(leads, addresses)), NAME, processes)
        leader = next((address for address in addresses if leads(address)), addresses[0])
        yield [System(NAME, leader, {Work.TRADE: [put(number) for number in range(1, KEYS + 1)]})]
