"""Who may change stocks: anyone with the token that ``[admin]`` in ``cluster.toml`` names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from twstock.errors import ConfigError

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{8,512}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Admin:
    """The token: in a file, or inline to try things out. With neither, nobody may."""

    token_file: Path | None = None
    token: str = field(default="", repr=False)

    def named(self) -> Mapping[str, object]:
        """The keys and values of the table ``[admin]``."""
        if self.token_file is not None:
            return {"token_file": self.token_file}
        return {"token": self.token} if self.token else {}


def parse_admin(table: object, base: Path) -> Admin:
    """Parse the table ``[admin]``; ``base`` is where a relative path starts. Raises ConfigError
    naming the key at fault.
    """
    if not isinstance(table, dict):
        raise ConfigError("admin: expected a table")
    for key, value in table.items():
        if key not in ("token", "token_file"):
            raise ConfigError(f"admin.{key}: unknown key")
        if not isinstance(value, str) or not value:
            raise ConfigError(f"admin.{key}: expected a text")
    if len(table) > 1:
        raise ConfigError("admin.token: expected no more than one of token and token_file")
    if "token_file" in table:
        return Admin(base / table["token_file"])
    return Admin(token=parse_token(table["token"], "admin.token")) if table else Admin()


def parse_token(text: str, where: str) -> str:
    """The token, if HTTP can carry it (RFC 6750 section 2.1). Raises ConfigError naming
    ``where``, never the token.
    """
    if not _TOKEN.fullmatch(text):
        raise ConfigError(f"{where}: a token has 8 to 512 letters, digits, or any of -._~+/=")
    return text
