"""``twstock rejoin``: a directory for a replica that has lost its own."""

import argparse
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twstock.commands.command import Add, Options, refusing, tell
from twstock.commands.progress import Progress
from twstock.errors import StorageError, Unavailable
from twstock.rest import Unreachable

if TYPE_CHECKING:
    from twstock.config import Address, Cluster
    from twstock.replication.livepeers import LivePeers
    from twstock.replication.rejoin import Source
    from twstock.verify import Remote

PAUSE_S = 0.25
"""Between two checks of the others, while they elect a leader, in seconds."""
KNOCK_S = 1.0
"""How long a connection to the lost member's address may take, before it counts as stopped."""
ADVICE = "all others have to run, with a leader among them; or stop them, and give --from for each"


def add_command(add: Add) -> None:
    """Add ``rejoin`` to the command line."""
    words = "make the directory of a replica that has lost its own, from those of all others"
    command = add("rejoin", refusing(_rejoin), words)
    command.add_argument("member", metavar="NAME", type=_member, help="such as order-2")
    command.add_argument("--config", type=Path, required=True, help="the cluster.toml")
    command.add_argument(
        "--from", dest="sources", metavar="DIR", type=Path, action="append", default=[],
        help="the directory of another member, which is stopped, or a copy; once for each "
        "(default: ask the others, which all have to run)",
    )  # fmt: skip
    command.add_argument(
        "--to", metavar="DIR", type=Path, help="what to make (default: where cluster.toml says)"
    )


def _member(name: str) -> tuple[str, int]:
    found = re.fullmatch(r"(catalog|order)-([1-9][0-9]{0,9})", name)
    if found is None:
        raise argparse.ArgumentTypeError("expected order-N or catalog-N, such as order-2")
    return found[1], int(found[2])


def _rejoin(options: Options) -> int:
    from twstock.config import read  # noqa: PLC0415
    from twstock.replication.rejoin import rejoin  # noqa: PLC0415

    group, number = options.member
    cluster = read(options.config)
    cluster.check_member(group, number)
    target = options.to or cluster.data_of(group, number)
    with (
        Progress("entries of the log") as entries,
        _source(cluster, group, number, options.sources, entries.say) as source,
    ):
        made = rejoin(cluster, group, number, source, target, entries.step)
    told = {"directory": str(made.path), "source": made.source, "entries": made.last_index}
    words = (
        f"{made.path}: {made.last_index} entries, those of {made.source}; start {group}-{number}"
    )
    return tell(options, told, words)


@contextmanager
def _source(
    cluster: "Cluster", group: str, number: int, paths: Sequence[Path], say: Callable[[str], None]
) -> "Iterator[Source]":
    from twstock.replication.copies import opened  # noqa: PLC0415

    if paths:
        with opened(cluster, group, number, paths) as copies:
            yield copies
    else:
        with _running(cluster, group, number, say) as others:
            yield others


@contextmanager
def _running(
    cluster: "Cluster", group: str, number: int, say: Callable[[str], None]
) -> "Iterator[LivePeers]":
    """All other members of the group, asked over gRPC in the name of the lost one."""
    from twstock.replication.livepeers import LivePeers  # noqa: PLC0415
    from twstock.rpc.calls import Peer  # noqa: PLC0415
    from twstock.rpc.security import security_of  # noqa: PLC0415
    from twstock.verify import Remote  # noqa: PLC0415

    name, me = f"{group}-{number}", Peer(group, cluster.cluster_id, number, 0)
    _check_stopped(name, cluster.replica(group, number).grpc)
    security = security_of(cluster, name)
    with ExitStack() as stack:
        others = {}
        for replica in cluster.replicas(group):
            if replica.id != number:
                peer = f"{group}-{replica.id}"
                remote = Remote(peer, str(replica.grpc), security.to(peer))
                others[replica.id] = _Peer(group, stack.enter_context(remote))
        try:
            yield LivePeers(me, others, _Pause(say), time.monotonic)
        except Unavailable as error:
            raise Unreachable(f"{error}; {ADVICE}") from None


def _check_stopped(name: str, address: "Address") -> None:
    """Raise StorageError if a process listens where the lost member did: the new directory would
    not have what that process promises from now on.
    """
    try:
        socket.create_connection((address.host, address.port), KNOCK_S).close()
    except OSError:
        return
    raise StorageError(f"{address} answers: stop {name} first, for good")


class _Pause:
    """A pause between two checks of the others; says what is waited for when that has changed."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said = ""

    def __call__(self, problem: str) -> None:
        if problem != self._said:
            self._say(f"waits for the others: {problem}")
            self._said = problem
        time.sleep(PAUSE_S)


class _Peer:
    """Another member, as ``LivePeers`` asks it."""

    def __init__(self, group: str, remote: "Remote") -> None:
        from twstock.replication.transport import GROUP_METHODS  # noqa: PLC0415

        self._methods = GROUP_METHODS[group]
        self._group, self._remote = group, remote

    def status(self, asker: Any) -> Any:
        """What it reports about itself, and by which incarnation it knows the asker."""
        from twstock.rpc.calls import Probe  # noqa: PLC0415

        return self._call(self._methods.heartbeat, Probe(asker)).status

    def fetch(self, fetch: Any) -> Any:
        """Committed entries after an index, as many as fit into one message."""
        from twstock.replication.transport import fetched, fetching  # noqa: PLC0415

        return fetched(self._call(*fetching(self._group, fetch)))

    def fetch_snapshot(self, fetch: Any) -> Any:
        """A piece of a snapshot, as much as fits into one message."""
        from twstock.rpc.wire.methods import FETCH_SNAPSHOT  # noqa: PLC0415

        return self._call(FETCH_SNAPSHOT, fetch)

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return self._remote.call(method, request)
        except Unreachable as error:
            raise Unavailable(str(error)) from None
