"""A place in both logs, which the ``id`` of an event spells."""

import re
from typing import NamedTuple

from twstock.errors import InvalidRequest

_SPELLED = re.compile(r"\.".join([r"(0|[1-9][0-9]{0,18})"] * 4))
_NUMBER_MAX = 2**63 - 1


class Cursor(NamedTuple):
    """The reader knows all trades up to ``transaction``, all changes of stocks up to ``change``,
    and the leaders of these terms. To resume, the terms do not matter: leaders are sent anyway.
    """

    transaction: int = 0
    change: int = 0
    order_term: int = 0
    catalog_term: int = 0

    def __str__(self) -> str:
        return ".".join(map(str, self))

    def has(self, other: "Cursor") -> bool:
        """Whether this includes everything up to ``other``."""
        return self.transaction >= other.transaction and self.change >= other.change


def parse(text: str, field: str) -> Cursor:
    """The cursor that an id spells; raises InvalidRequest naming ``field``."""
    match = _SPELLED.fullmatch(text)
    numbers = [int(number) for number in match.groups()] if match else [_NUMBER_MAX + 1]
    if max(numbers) > _NUMBER_MAX:
        raise InvalidRequest(field, "expected the id of an event of this feed")
    return Cursor(*numbers)
