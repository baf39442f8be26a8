"""Room for connections: each takes a file descriptor, and a process may have only so many.

Under Debian a process begins with 1,024, and may raise that itself: a front-end that did not would
refuse connections long before ``connections_max``.
"""

from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit

from twisted.logger import Logger

OTHERS = 256
"""What a front-end opens besides clients' connections: log, listeners, channels, other members."""

_log = Logger()


def make_room(connections_max: int) -> None:
    """Raise the soft limit as far as so many connections need it; warn if the hard one is lower."""
    needed = connections_max + OTHERS
    soft, hard = getrlimit(RLIMIT_NOFILE)
    most = needed if hard == RLIM_INFINITY else min(needed, hard)
    if soft != RLIM_INFINITY and soft < most:
        setrlimit(RLIMIT_NOFILE, (most, hard))
    if most < needed:
        _log.warn(
            "connections_max is {connections}, which needs {needed} open files, but the limit of "
            "this process is {most}: raise it (ulimit -Hn, or LimitNOFILE of the unit)",
            connections=connections_max,
            needed=needed,
            most=most,
        )
