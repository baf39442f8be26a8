"""The files of certificates: which are refused, in an error that names the file, and when they are
read again.
"""

import ssl
import subprocess
from pathlib import Path

import pytest
from twisted.logger import globalLogPublisher

from tests.certified import SCRIPT, copied, issue, make
from twstock.certificates import FILE_BYTES_MAX, Certificates, read_identity
from twstock.errors import ConfigError

DAY_S = 86400


@pytest.fixture
def directory(certificates: Path, tmp_path: Path) -> Path:
    """Certificates that a test may spoil."""
    return copied(certificates, tmp_path / "tls")


def refusal(directory: Path, name: str = "order-1") -> str:
    """Why the files of a member are refused, without the directory."""
    with pytest.raises(ConfigError) as refused:
        read_identity(directory, name)
    return str(refused.value).removeprefix(f"{directory}/")


@pytest.mark.parametrize("name", ["order-1", "catalog-1", "front-2", "client"])
def test_what_the_script_makes_is_good(directory: Path, name: str) -> None:
    """Its certificates are accepted, for members of all tiers and for tools, and last as long as
    was asked for.
    """
    make(directory, name, days=30)
    family = next(iter(Certificates(directory, name).families()))
    assert family.samples[0].value == pytest.approx(30 * DAY_S, abs=60)


@pytest.mark.parametrize("file", ["ca.pem", "order-1.pem", "order-1.key"])
def test_a_file_that_cannot_be_used_is_named(directory: Path, file: str) -> None:
    """A file that is missing, not PEM, or cut in the middle."""
    path = directory / file
    content = path.read_bytes()
    path.write_bytes(b"nothing\n")
    assert refusal(directory).startswith(f"{file}: expected a")
    path.write_bytes(content[: len(content) // 2])
    assert refusal(directory).startswith(f"{file}: is no ")
    path.unlink()
    assert refusal(directory) == f"{file}: No such file or directory"


def test_a_file_is_not_cut_off(directory: Path) -> None:
    """A file of the largest size is read whole, and a larger one is refused: without its end the
    last of many CAs would silently be missing.
    """
    content = (directory / "ca.pem").read_bytes()
    (directory / "ca.pem").write_bytes(content.rjust(FILE_BYTES_MAX, b"\n"))
    assert read_identity(directory, "order-1").ca == content
    (directory / "ca.pem").write_bytes(content.rjust(FILE_BYTES_MAX + 1, b"\n"))
    assert refusal(directory) == "ca.pem: expected at most 262144 bytes"


def test_a_key_has_to_fit(directory: Path) -> None:
    """The key of another member is refused."""
    (directory / "order-1.key").write_bytes((directory / "order-2.key").read_bytes())
    assert refusal(directory) == "order-1.key: does not fit order-1.pem"


def test_a_key_with_a_password_is_refused(directory: Path) -> None:
    """A service has nobody to ask for the password."""
    key = directory / "order-1.key"
    command = f"openssl pkcs8 -topk8 -in {key} -passout pass:secret"
    done = subprocess.run(command.split(), check=True, capture_output=True)
    key.write_bytes(done.stdout)
    assert "order-1.key: the key is encrypted" in refusal(directory)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o644])
def test_a_key_that_others_can_read_is_refused(directory: Path, mode: int) -> None:
    """One that others, or the group, can write is refused as well."""
    (directory / "order-1.key").chmod(mode)
    assert refusal(directory).startswith("order-1.key: others can read it")


@pytest.mark.parametrize(
    ("extensions", "days", "why"),
    [
        ("", -1, "certificate has expired"),
        ("subjectAltName = DNS:order-2", 365, "Hostname mismatch"),
        ("subjectAltName = DNS:ORDER-1", 365, "subjectAltName has no DNS:order-1"),
        ("basicConstraints = CA:FALSE", 365, "Hostname mismatch"),
        ("subjectAltName = DNS:order-1\nextendedKeyUsage = serverAuth", 365, "purpose"),
        ("subjectAltName = DNS:order-1\nextendedKeyUsage = clientAuth", 365, "purpose"),
    ],
    ids=["ended", "another name", "in capitals", "a common name alone", "no client", "no server"],
)
def test_a_certificate_that_others_would_refuse_is_refused(
    directory: Path, extensions: str, days: int, why: str
) -> None:
    """It is refused when the member starts, while somebody is looking."""
    issue(directory, "order-1", extensions, days)
    told = refusal(directory)
    assert told.startswith("order-1.pem: ")
    assert why in told


@pytest.mark.parametrize(
    "kind",
    ["ED25519", "RSA-PSS", "EC -pkeyopt ec_paramgen_curve:P-521"],
)
def test_a_key_that_grpc_does_not_take_is_refused(directory: Path, kind: str) -> None:
    """OpenSSL accepts it, but with it a member could reach nobody."""
    make_key(directory, "order-1", kind)
    assert refusal(directory) == ("order-1.pem: its key is neither ECDSA (P-256, P-384) nor RSA")


@pytest.mark.parametrize("kind", ["RSA", "EC -pkeyopt ec_paramgen_curve:P-384"])
def test_keys_of_other_makers_are_good(directory: Path, kind: str) -> None:
    """RSA and P-384 keys, which the script does not make, are accepted as docs/operations.md
    says.
    """
    make_key(directory, "order-1", kind)
    read_identity(directory, "order-1")


def make_key(directory: Path, name: str, kind: str) -> None:
    """A key of this kind, and a certificate for it."""
    command = f"openssl genpkey -out {directory}/{name}.key -algorithm {kind}"
    subprocess.run(command.split(), check=True, capture_output=True)
    issue(directory, name)


def test_what_stands_before_a_certificate_is_left_out(directory: Path) -> None:
    """OpenSSL skips a byte order mark, but gRPC finds no certificate behind one."""
    for path in directory.glob("*-1.*"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    shown = read_identity(directory, "order-1")
    for content in (shown.ca, shown.certificate, shown.key):
        assert content.startswith(b"-----BEGIN")


def test_a_certificate_ends_with_its_ca(directory: Path) -> None:
    """What is reported is the time until the certificate or its CA ends, so that the alert comes in
    time for either. Other CAs that are trusted do not count.
    """
    issue(directory, "order-1", days=4000)
    assert left_s(directory) == pytest.approx(3650 * DAY_S, abs=DAY_S)
    other = directory / "other.pem"
    command = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {directory}/other.key -out {other}"
    )
    command += " -subj /CN=other -days 3"
    subprocess.run(command.split(), check=True, capture_output=True)
    with (directory / "ca.pem").open("ab") as trusted:
        trusted.write(other.read_bytes())
    assert left_s(directory) == pytest.approx(3650 * DAY_S, abs=DAY_S)


def left_s(directory: Path) -> float:
    """How long the certificate of order-1 is good, as the member tells it."""
    (family,) = Certificates(directory, "order-1").families()
    return family.samples[0].value


def test_a_certificate_of_another_ca_is_refused(directory: Path, tmp_path: Path) -> None:
    """It is refused although its name is that of a member."""
    other = make(tmp_path / "other", "order-1")
    for end in ("pem", "key"):
        (directory / f"order-1.{end}").write_bytes((other / f"order-1.{end}").read_bytes())
    assert refusal(directory) == "order-1.pem: unable to get local issuer certificate"


def test_a_renewed_certificate_is_read(directory: Path) -> None:
    """As long as a new file is bad, what was read before stays in use, and the log says each
    problem once.
    """
    certificates = Certificates(directory, "order-1")
    first = certificates.current()
    assert certificates.current() is first
    told: list[str] = []

    def observe(event: dict[str, object]) -> None:
        told.extend([str(event["problem"])] if "problem" in event else [])

    globalLogPublisher.addObserver(observe)
    try:
        (directory / "order-1.pem").write_text("half of")
        assert certificates.current() is first
        assert certificates.current() is first
        (directory / "order-1.pem").unlink()
        assert certificates.current() is first
    finally:
        globalLogPublisher.removeObserver(observe)
    assert [problem.partition(": ")[2] for problem in told] == [
        "expected a certificate in PEM",
        "No such file or directory",
    ]
    make(directory, "order-1", days=30)
    renewed = certificates.current()
    assert renewed is not first
    assert renewed.key == first.key
    assert renewed.ends_s < first.ends_s
    assert certificates.current() is renewed


def test_the_script_makes_what_is_asked_for_and_nothing_else(tmp_path: Path) -> None:
    """Only the owner can read keys, an existing CA is kept, names are checked, and without its key
    a CA signs nothing. The script warns if the CA ends before the certificate.
    """
    directory = make(tmp_path / "new", "order-1")
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    assert modes == {"ca.key": 0o600, "ca.pem": 0o644, "order-1.key": 0o600, "order-1.pem": 0o644}
    before = ssl.PEM_cert_to_DER_cert((directory / "ca.pem").read_text())
    make(directory, "client")
    assert ssl.PEM_cert_to_DER_cert((directory / "ca.pem").read_text()) == before
    for days, ends_first in (("3000", False), ("4000", True)):
        command = [SCRIPT, "--days", days, directory, "client"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert ("ca.pem ends before that" in done.stderr) is ends_first
    for wrong in ("order", "order-0", "order-1/..", "stranger", "*"):
        assert subprocess.run([SCRIPT, directory, wrong], capture_output=True).returncode == 2  # noqa: PLW1510
    (directory / "ca.key").unlink()
    done = subprocess.run([SCRIPT, directory, "order-2"], capture_output=True, text=True)  # noqa: PLW1510
    assert done.returncode == 1
    assert done.stderr.endswith("the CA is there, but not its key\n")
