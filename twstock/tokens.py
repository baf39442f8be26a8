"""The administrator's token, read from a file: by front-ends, and by ``twstock admin``."""

import stat
from pathlib import Path

from twstock.access import parse_token
from twstock.errors import ConfigError

TOKEN_BYTES_MAX = 4096


def read_token(path: Path) -> str:
    """The token in a file, without blanks around it; raises ConfigError naming the file."""
    try:
        with path.open("rb") as file:
            content = file.read(TOKEN_BYTES_MAX)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    text = content.decode("utf-8", "replace").strip()
    if not text:
        raise ConfigError(f"{path}: there is no token in the file")
    return parse_token(text, str(path))


def is_read_by_all(path: Path) -> bool:
    """Whether every user of the machine may read a file."""
    return bool(path.stat().st_mode & stat.S_IROTH)
