"""What an administrator does: stocks are added, restocked, priced, halted and resumed."""

import json
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any

from twstock.client import values
from twstock.client.answers import StockNotFound, not_changed
from twstock.client.fronts import Request
from twstock.client.values import BadAnswer, Changed
from twstock.errors import InvalidRequest, OutcomeUnknown
from twstock.forms import ADD_PATH, Answer, authorization, change_path, order_headers

Money = Decimal | int | str
"""An amount as it is sent: a ``str`` goes as it is, for the server to judge. Not a float, which
would not be the amount that was meant.
"""


class Administrator:
    """Changes stocks for whoever knows the ``token``; ``Client.administrator`` makes one.

    Like an order a change is made at most once, however often it has to be sent. Every method
    gives ``Changed``, and raises ChangeRefused or StockNotFound when it was refused, KeyReused,
    InvalidRequest, NotAdministrator: none of these is done later. Raises Unavailable when nothing
    has happened, and OutcomeUnknown, with the key, when nobody could say in time. That is so, too,
    when an earlier attempt may have made the change and the token is not taken now; so a change
    that comes with a key raises neither Unavailable nor NotAdministrator.
    """

    def __init__(
        self, ask: Callable[[Request], Awaitable[Answer]], token: str, new_key: Callable[[], str]
    ) -> None:
        self._ask = ask
        self._token = token
        self._new_key = new_key

    async def add(self, name: str, price: Money, quantity: int, key: str | None = None) -> Changed:
        """One more stock."""
        fields = {"name": name, "price": _text(price), "quantity": quantity}
        return await self._change(ADD_PATH, name, fields, key)

    async def restock(self, name: str, quantity: int, key: str | None = None) -> Changed:
        """More shares of a stock."""
        return await self._change_of(name, "restock", {"quantity": quantity}, key)

    async def price(self, name: str, price: Money, key: str | None = None) -> Changed:
        """Another price for the trades to come."""
        return await self._change_of(name, "price", {"price": _text(price)}, key)

    async def halt(self, name: str, key: str | None = None) -> Changed:
        """From now on nobody trades the stock."""
        return await self._change_of(name, "halt", {}, key)

    async def resume(self, name: str, key: str | None = None) -> Changed:
        """A halted stock can be traded again."""
        return await self._change_of(name, "resume", {}, key)

    async def _change_of(
        self, name: str, kind: str, fields: Mapping[str, Any], key: str | None
    ) -> Changed:
        try:
            path = change_path(name, kind)
        except InvalidRequest:
            raise StockNotFound(name) from None
        return await self._change(path, name, fields, key)

    async def _change(
        self, path: str, name: str, fields: Mapping[str, Any], own_key: str | None
    ) -> Changed:
        key = self._new_key() if own_key is None else own_key
        headers = order_headers(key) | authorization(self._token)
        body = json.dumps(fields).encode("ascii")
        doubtful = own_key is not None
        answer = await self._ask(Request("POST", path, headers, body, key, doubtful=doubtful))
        if not answer.ok:
            raise not_changed(answer, name, key)
        try:
            return values.changed(values.member_of(answer.body, "data"), answer.replayed, key)
        except BadAnswer as error:
            raise OutcomeUnknown(str(error), key) from None


def _text(amount: Money) -> str:
    """An amount in digits, with no exponent."""
    return format(amount, "f") if isinstance(amount, Decimal) else str(amount)
