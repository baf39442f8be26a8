"""Who may change stocks: whoever knows the token that ``[admin]`` of ``cluster.toml`` names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from twstock.errors import ConfigError

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{8,512}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Admin:
    """The token, in a file or, to try things out, itself. Without either nobody may."""

    token_file: Path | None = None
    token: str = field(default="", repr=False)

    def named(self) -> Mapping[str, object]:
        """What a file says of it, by key."""
        if self.token_file is not None:
            return {"token_file": self.token_file}
        return {"token": self.token} if self.token else {}


def parse_admin(table: object, base: Path) -> Admin:
    """The table ``[admin]``; a relative path counts from ``base``. ConfigError naming the key."""
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
    """A token as HTTP carries it (RFC 6750 section 2.1); ConfigError naming ``where``, not it."""
    if not _TOKEN.fullmatch(text):
        raise ConfigError(f"{where}: a token has 8 to 512 letters, digits, or any of -._~+/=")
    return text
