"""Room for connections: each takes a file descriptor, and a process may have only so many.

Under Debian a process starts with a soft limit of 1,024, which it may raise. If it did not, it
would refuse connections early or, where they are not counted, have none left for its own files.
"""

from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit

from twisted.logger import Logger

OTHERS = 256
"""Descriptors for what is not a caller's connection: the log, listeners, channels, files."""

_log = Logger()


def make_room(connections: int, what: str = "connections_max") -> int:
    """Raise the soft limit so that this many connections fit; warn if the hard limit is lower.
    Returns how many do fit.
    """
    needed = connections + OTHERS
    soft, hard = getrlimit(RLIMIT_NOFILE)
    most = needed if hard == RLIM_INFINITY else min(needed, hard)
    if soft != RLIM_INFINITY and soft < most:
        setrlimit(RLIMIT_NOFILE, (most, hard))
    if most < needed:
        _log.warn(
            "{what} is {connections}, which needs {needed} open files, but the limit of "
            "this process is {most}: raise it (ulimit -Hn, or LimitNOFILE of the unit)",
            what=what,
            connections=connections,
            needed=needed,
            most=most,
        )
    return max(1, min(connections, most - OTHERS))
