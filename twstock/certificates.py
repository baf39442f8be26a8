"""The PEM files of a member: its certificate, its key, and the CAs that it trusts. They are checked
when they are read, and read again when they change.

In the directory that ``tls`` in ``cluster.toml`` names, ``ca.pem`` holds the trusted CAs, and
``NAME.pem`` and ``NAME.key`` are the certificate of the member NAME and its key.
"""

import ssl
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from twstock.clocks import wall_ms
from twstock.errors import ConfigError
from twstock.tally import Family, gauge

FILE_BYTES_MAX = 256 * 1024
TOOLS = "client"
"""The name in the certificate of a caller that is not a member, such as ``twstock`` commands."""
_CERTIFICATE, _KEY = b"-----BEGIN CERTIFICATE-----", b"PRIVATE KEY-----"
_KEY_KINDS = (  # those that gRPC accepts; OpenSSL accepts others, too
    bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107"),  # ECDSA, P-256
    bytes.fromhex("301006072a8648ce3d020106052b81040022"),  # ECDSA, P-384
    bytes.fromhex("300d06092a864886f70d0101010500"),  # RSA
)
"""How a certificate states the type of its key: an AlgorithmIdentifier in DER (RFC 5480, RFC 3279).
"""
_HANDSHAKE_STEPS_MAX = 10


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """What one member presents and trusts, in PEM. ``ends_s`` is when its certificate expires, or
    the CA that signed it if that is earlier, in seconds since the epoch.
    """

    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    ends_s: float


class Certificates:
    """The files of the member ``name``, as they were when last valid. For any thread."""

    _log = Logger()

    def __init__(self, directory: Path, name: str) -> None:
        """Read them; raises ConfigError naming the file at fault."""
        self.name = name
        self._directory = directory
        self._lock = threading.Lock()
        self._seen = self._look()
        self._identity = read_identity(directory, name)

    def current(self) -> Identity:
        """What the files hold. While one of them is invalid (half written, perhaps), the previous
        identity stays in use.
        """
        with self._lock:
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                self._read_again()
            return self._identity

    def families(self) -> Iterator[Family]:
        """How long the member's own certificate stays valid."""
        yield gauge(
            "twstock_certificate_left_seconds",
            "Time until the member's own certificate ends, or its CA.",
            [({}, self.current().ends_s - wall_ms() / 1000)],
        )

    def _read_again(self) -> None:
        try:
            self._identity = read_identity(self._directory, self.name)
        except ConfigError as error:
            self._log.error("goes on with its old certificate: {problem}", problem=str(error))
        else:
            self._log.info("has read its certificate anew", name=self.name)

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        """A value that changes when a file does."""
        return tuple(map(_version, _paths(self._directory, self.name)))


def read_identity(directory: Path, name: str) -> Identity:
    """The identity of the member ``name``. Raises ConfigError naming the file at fault: one that
    cannot be read, a key that other users can read or that does not match the certificate, or a
    certificate that other members would not accept.
    """
    ca, certificate, key = paths = _paths(directory, name)
    contents = [_read(path) for path in paths]
    for path, content, mark in zip(
        paths, contents, (_CERTIFICATE, _CERTIFICATE, _KEY), strict=True
    ):
        if mark not in content:
            raise ConfigError(
                f"{path}: expected {'a key' if mark is _KEY else 'a certificate'} in PEM"
            )
    _check_rights(key)
    if b"ENCRYPTED" in contents[2]:
        raise ConfigError(f"{key}: the key is encrypted, and nobody is there to say its password")
    ends_s = _check(ca, certificate, key, name)
    return Identity(_pem(contents[0]), _pem(contents[1]), _pem(contents[2]), ends_s)


def _pem(content: bytes) -> bytes:
    """Drops what precedes the PEM text: behind a byte order mark, gRPC finds nothing."""
    return content[content.find(b"-----BEGIN") :]


def _paths(directory: Path, name: str) -> tuple[Path, Path, Path]:
    return directory / "ca.pem", directory / f"{name}.pem", directory / f"{name}.key"


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: expected at most {FILE_BYTES_MAX} bytes")
    return content


def _check_rights(key: Path) -> None:
    """PostgreSQL's rule for ``ssl_key_file``: only the owner may read a key, or also a group if
    root owns it. systemd's credentials look like that, too.
    """
    try:
        found = key.stat()
    except OSError as error:  # it was there a moment ago
        raise ConfigError(f"{key}: {error.strerror}") from None
    if found.st_mode & (0o037 if found.st_uid == 0 else 0o077):
        raise ConfigError(f"{key}: others can read it, or more; let only its owner: chmod 600")


def _check(ca: Path, certificate: Path, key: Path, name: str) -> float:
    """Check that a member with these files would accept a peer with the same files, called
    ``name``, as client and as server, and that gRPC accepts the key. Returns when the certificate
    or its CA expires, in seconds since the epoch.
    """
    ends = [ssl.SSLContext(role) for role in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)]
    ends[1].hostname_checks_common_name = False
    for end in ends:
        end.verify_mode = ssl.CERT_REQUIRED
        _load(end, ca)
        try:
            end.load_cert_chain(certificate, key)
        except (ssl.SSLError, OSError) as error:
            # If the certificate can be read, the key is at fault, or the two do not match.
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate)
            problem = getattr(error, "reason", None) == "KEY_VALUES_MISMATCH"
            what = f"does not fit {certificate.name}" if problem else "is no key that can be used"
            raise ConfigError(f"{key}: {what}") from None
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = ends[0].wrap_bio(there, back, server_side=True)
    client = ends[1].wrap_bio(back, there, server_hostname=name)
    try:
        _shake_hands(client, server)
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(f"{certificate}: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise ConfigError(f"{certificate}: {error.reason or error}") from None
    found, der = client.getpeercert() or {}, client.getpeercert(binary_form=True) or b""
    if ("DNS", name) not in found["subjectAltName"]:  # OpenSSL ignores case, our servers do not
        raise ConfigError(f"{certificate}: its subjectAltName has no DNS:{name}")
    if not any(kind in der for kind in _KEY_KINDS):
        raise ConfigError(f"{certificate}: its key is neither ECDSA (P-256, P-384) nor RSA")
    return min(_end(found), _end_of_ca(ends[1].get_ca_certs(), found["issuer"]))


def _end(certificate: dict[str, Any]) -> float:
    return float(ssl.cert_time_to_seconds(certificate["notAfter"]))


def _end_of_ca(trusted: Iterable[dict[str, Any]], issuer: Any) -> float:
    """When the last trusted CA of that name expires; inf if the issuer is not trusted itself, but
    signed by a CA that is.
    """
    return max((_end(ca) for ca in trusted if ca["subject"] == issuer), default=inf)


def _load(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError):
        raise ConfigError(f"{path}: is no certificate that can be used") from None


def _shake_hands(*ends: ssl.SSLObject) -> None:
    left = list(ends)
    for _ in range(_HANDSHAKE_STEPS_MAX):
        for end in tuple(left):
            try:
                end.do_handshake()
                left.remove(end)
            except ssl.SSLWantReadError:
                continue
    if left:
        raise ssl.SSLError("the handshake comes to no end")
