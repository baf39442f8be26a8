"""How a process makes and accepts gRPC connections: over TLS with certificates on both sides, if
the cluster has certificates, and otherwise without TLS.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from ipaddress import ip_address
from typing import Any, Protocol

import grpc
from twisted.logger import Logger

from twstock.certificates import Certificates
from twstock.config import Cluster, parse_address
from twstock.errors import Forbidden
from twstock.rpc import permissions
from twstock.tally import Family

Options = Sequence[tuple[str, Any]]
Check = Callable[[str, Any], None]
"""Given the path of a call and its request, raises Forbidden if the caller must not make it."""
REFUSALS_TOLD_MAX = 100


class Way(Protocol):
    """How one peer is reached."""

    def open(self, address: str, options: Options) -> grpc.Channel:
        """A channel to it."""

    def is_outdated(self) -> bool:
        """Whether a channel that was opened now would differ from the last one."""


class Security(Protocol):
    """What one process needs to reach others, and to be reached."""

    def to(self, peer: str) -> Way:
        """The way to the member of this name."""

    def listen(self, server: grpc.Server, address: str) -> None:
        """Let a server listen. Raises RuntimeError when it cannot have the address."""

    def check_of(self, context: Any) -> Check | None:
        """What the caller may do, by the context of one of its calls; None: everything."""

    def families(self) -> Iterable[Family]:
        """Its metrics, for the observatory."""


def security_of(cluster: Cluster, name: str) -> Security:
    """For the member ``name``, or ``client``. Raises ConfigError naming a file at fault."""
    return Plain() if cluster.tls is None else Tls(Certificates(cluster.tls, name))


class PlainWay:
    """Without TLS."""

    def open(self, address: str, options: Options) -> grpc.Channel:
        """A channel to the peer."""
        return grpc.insecure_channel(address, options=options)

    def is_outdated(self) -> bool:
        """Never."""
        return False


class Plain:
    """Neither encryption nor names: any caller that reaches a port may do everything."""

    _log = Logger()

    def to(self, peer: str) -> Way:  # noqa: ARG002
        """The way to a member, without a check of who answers."""
        return PlainWay()

    def listen(self, server: grpc.Server, address: str) -> None:
        """Let a server listen; warn if other machines may reach it."""
        if not _is_loopback(parse_address(address, "address").host):
            self._log.warn(
                "{address} is open to whoever reaches it: let it be a private network, "
                "or use tls of cluster.toml",
                address=address,
            )
        server.add_insecure_port(address)

    def check_of(self, context: Any) -> Check | None:  # noqa: ARG002
        """Everybody may do everything."""
        return None

    def families(self) -> Iterable[Family]:
        """Nothing."""
        return ()


class TlsWay:
    """To the member whose certificate has the name ``peer``, at whatever address."""

    def __init__(self, certificates: Certificates, peer: str) -> None:
        self._certificates = certificates
        self._peer = peer
        self._shown: Any = None

    def open(self, address: str, options: Options) -> grpc.Channel:
        """A channel to the peer, with the certificate that is the newest now."""
        self._shown = shown = self._certificates.current()
        credentials = grpc.ssl_channel_credentials(shown.ca, shown.key, shown.certificate)
        named = (*options, ("grpc.ssl_target_name_override", self._peer))
        return grpc.secure_channel(address, credentials, named)

    def is_outdated(self) -> bool:
        """Whether there is a newer certificate."""
        return self._certificates.current() is not self._shown


class Tls:
    """TLS with certificates on both sides; a caller's certificate says who it is."""

    _log = Logger()

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates
        self._told: set[str] = set()

    def to(self, peer: str) -> Way:
        """The way to the member whose certificate names it so."""
        return TlsWay(self._certificates, peer)

    def listen(self, server: grpc.Server, address: str) -> None:
        """Let a server listen; it uses a renewed certificate from the next connection on."""
        shown = self._certificates.current()

        def fetch() -> Any:
            nonlocal shown
            newest = self._certificates.current()
            if newest is shown:
                return None
            shown = newest
            return _configuration(newest)

        credentials = grpc.dynamic_ssl_server_credentials(
            _configuration(shown), fetch, require_client_authentication=True
        )
        server.add_secure_port(address, credentials)

    def check_of(self, context: Any) -> Check | None:
        """What the caller may do by the names in its certificate."""
        names = context.auth_context().get("peer_dns", ())  # of the subjectAltName
        caller = permissions.parties(name.decode("utf-8", "replace") for name in names)
        return partial(self._check, caller)

    def families(self) -> Iterable[Family]:
        """How long its certificate is valid."""
        return self._certificates.families()

    def _check(self, caller: frozenset[str], path: str, request: Any) -> None:
        try:
            permissions.check(caller, path, request)
        except Forbidden as refusal:
            self._tell(str(refusal))
            raise

    def _tell(self, refusal: str) -> None:
        """Log each refusal once: a caller may go on for ever."""
        if refusal not in self._told and len(self._told) < REFUSALS_TOLD_MAX:
            self._told.add(refusal)
            self._log.warn("refuses a call: {refusal}", refusal=refusal)


def _configuration(shown: Any) -> Any:
    pair = (shown.key, shown.certificate)
    return grpc.ssl_server_certificate_configuration([pair], shown.ca)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"
