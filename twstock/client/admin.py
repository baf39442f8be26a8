"""What an administrator does: add, restock, price, halt and resume stocks."""

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
"""An amount to be sent: a ``str`` is sent as it is, for the server to check. Not a float, which
might not be the amount that was meant.
"""


class Administrator:
    """Changes stocks with the cluster's admin ``token``; ``Client.administrator`` makes one.

    Like an order, a change is made at most once, however often it has to be sent. Every method
    returns ``Changed``. Raises ChangeRefused, StockNotFound, KeyReused, InvalidRequest or
    NotAdministrator when the change was not made and never will be; Unavailable when nothing has
    happened; and OutcomeUnknown, with the key, when the outcome could not be learnt in time, also
    if the token is rejected but an earlier attempt may have made the change. So a change whose key
    the caller gave raises neither Unavailable nor NotAdministrator.
    """

    def __init__(
        self, ask: Callable[[Request], Awaitable[Answer]], token: str, new_key: Callable[[], str]
    ) -> None:
        self._ask = ask
        self._token = token
        self._new_key = new_key

    async def add(self, name: str, price: Money, quantity: int, key: str | None = None) -> Changed:
        """Add a stock."""
        fields = {"name": name, "price": _text(price), "quantity": quantity}
        return await self._change(ADD_PATH, name, fields, key)

    async def restock(self, name: str, quantity: int, key: str | None = None) -> Changed:
        """Add shares to a stock."""
        return await self._change_of(name, "restock", {"quantity": quantity}, key)

    async def price(self, name: str, price: Money, key: str | None = None) -> Changed:
        """Set the price of all trades from now on."""
        return await self._change_of(name, "price", {"price": _text(price)}, key)

    async def halt(self, name: str, key: str | None = None) -> Changed:
        """Stop all trading in a stock."""
        return await self._change_of(name, "halt", {}, key)

    async def resume(self, name: str, key: str | None = None) -> Changed:
        """Let a halted stock be traded again."""
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
    """An amount in digits, without an exponent."""
    return format(amount, "f") if isinstance(amount, Decimal) else str(amount)
