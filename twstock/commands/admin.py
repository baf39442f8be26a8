"""``twstock admin``: what an administrator does from the command line.

The token is read from a file: on the command line, every user of the machine could see it.
"""

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twstock.commands.command import integer
from twstock.errors import ConfigError
from twstock.forms import ADD_PATH, change_path
from twstock.rest import Answer, Session
from twstock.tokens import read_token

FILE_NAMED_BY = "TWSTOCK_ADMIN_TOKEN_FILE"
CHANGE_COLUMNS = ("change_number", "kind", "name", "price", "quantity", "version")
_HELP = {
    "add": "add a stock",
    "restock": "add N shares to a stock",
    "price": "set a new price",
    "halt": "let nobody trade a stock",
    "resume": "let a halted stock be traded again",
    "changes": "every change that was made; needs no token",
}
_ARGUMENTS = {
    "add": ("NAME", "PRICE", "QUANTITY"),
    "restock": ("NAME", "N"),
    "price": ("NAME", "PRICE"),
    "halt": ("NAME",),
    "resume": ("NAME",),
}


def add_commands(
    parser: argparse.ArgumentParser,
    remote: argparse.ArgumentParser,
    keyed: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int],
) -> None:
    """Add the subcommands, each with the options of ``remote``, and those that change something
    with those of ``keyed`` as well; ``run`` carries them out.
    """
    changes = parser.add_subparsers(dest="change", required=True, metavar="CHANGE")
    for kind, words in _HELP.items():
        parents = [remote, keyed] if kind in _ARGUMENTS else [remote]
        change = changes.add_parser(kind, help=words, description=words, parents=parents)
        change.set_defaults(run=run)
        for argument in _ARGUMENTS.get(kind, ()):
            whole = argument in ("N", "QUANTITY")
            change.add_argument(_field(argument), metavar=argument, type=integer if whole else str)
        if kind in _ARGUMENTS:
            change.add_argument(
                "--token-file",
                metavar="FILE",
                default=os.environ.get(FILE_NAMED_BY),
                help=f"the administrator's token (default: ${FILE_NAMED_BY})",
            )


def change(options: argparse.Namespace) -> Answer:
    """Make the change that the options name, and return the answer. Raises ConfigError without a
    token.
    """
    if not options.token_file:
        raise ConfigError(f"no token: name its file with --token-file or ${FILE_NAMED_BY}")
    token = read_token(Path(options.token_file))
    fields = {field: getattr(options, field) for field in map(_field, _ARGUMENTS[options.change])}
    with Session(options.url) as session:
        return session.change(*_request(options.change, fields), token, options.key)


def _request(kind: str, fields: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The path and the body of a change. A price is sent exactly as it was typed."""
    if kind == "add":
        return ADD_PATH, fields
    rest = {field: value for field, value in fields.items() if field != "name"}
    return change_path(fields["name"], kind), rest


def _field(argument: str) -> str:
    """The field of the body for an argument of the command line."""
    return "quantity" if argument == "N" else argument.lower()
