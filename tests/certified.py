"""Certificates for tests: good ones by ``deploy/certificates.sh``, and all kinds of others."""

import shutil
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "deploy/certificates.sh"


def make(directory: Path, *names: str, days: int = 365) -> Path:
    """Certificates of these members, and a CA if there is none yet."""
    command = [SCRIPT, "--days", str(days), directory, *names]
    subprocess.run(command, check=True, capture_output=True)
    return directory


def issue(directory: Path, name: str, extensions: str = "", days: int = 365) -> None:
    """A certificate that the script would not make, signed by the CA in ``directory``, for the key
    of ``name``; with a negative number of ``days`` it has expired.
    """
    key, request, told = (directory / f"{name}.{end}" for end in ("key", "csr", "ext"))
    told.write_text(extensions or f"subjectAltName = DNS:{name}\n")
    command = f"openssl req -new -subj /CN={name} -key {key} -out {request}"
    subprocess.run(command.split(), check=True, capture_output=True)
    command = (
        f"openssl x509 -req -in {request} -CA {directory}/ca.pem -CAkey {directory}/ca.key "
        f"-set_serial 7 -days {days} -extfile {told} -out {directory}/{name}.pem.new"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    (directory / f"{name}.pem.new").replace(directory / f"{name}.pem")


def copied(certificates: Path, directory: Path) -> Path:
    """A copy of a directory of certificates, to be changed."""
    return shutil.copytree(certificates, directory)
