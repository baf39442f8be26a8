"""The one table from HTTP answers to what the client raises; ``twstock.web.answers`` is the other
direction.

A refusal is an exception here: a buyer wants a number, and every other outcome needs a decision
of its own. Where many orders are placed at once it is a value, next to the outcomes of the others.
"""

from http import HTTPStatus

from twstock.client.values import BadAnswer
from twstock.errors import InvalidRequest, KeyReused, OutcomeUnknown, TwstockError
from twstock.forms import Answer
from twstock.market import STOCK_NOT_FOUND, Refusal

_REFUSALS = {str(refusal): refusal for refusal in Refusal}
_TURNS_AWAY = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class StockNotFound(TwstockError):
    """No stock has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"stock not found: {name!r}")
        self.name = name


class OrderNotFound(TwstockError):
    """No executed order has this number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"no order has the number {number}")
        self.number = number


class Refused(TwstockError):
    """The order was refused, in the words of the API, and never takes effect.

    ``kind`` is the refusal that the words stand for; None for words that this version does not
    know. ``key`` names the order.
    """

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.kind = _REFUSALS.get(message)
        self.key = key


class ChangeRefused(TwstockError):
    """The change does not fit the stock's present state, in the words of the API, and is never
    made. ``key`` names the change.
    """

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key


class NotAdministrator(TwstockError):
    """The token is not that of the cluster, or the cluster has none."""


def refused(answer: Answer, key: str) -> TwstockError:
    """The error for an order that was not and will not be executed, or whose outcome is unknown."""
    if not answer.decides:
        return _turned_away(answer, key)
    match answer.status:
        case HTTPStatus.NOT_FOUND | HTTPStatus.CONFLICT:
            return Refused(answer.message, key)
        case HTTPStatus.UNPROCESSABLE_ENTITY:
            return KeyReused()
    return problem(answer)


def not_changed(answer: Answer, name: str, key: str) -> TwstockError:
    """The error for a change that was not and will not be made, or whose outcome is unknown."""
    if not answer.decides:
        if answer.status in _TURNS_AWAY and not answer.doubtful:
            return NotAdministrator(answer.message)
        return _turned_away(answer, key)
    match answer.status:
        case HTTPStatus.NOT_FOUND if answer.message == STOCK_NOT_FOUND:
            return StockNotFound(name)
        case HTTPStatus.NOT_FOUND | HTTPStatus.CONFLICT:
            return ChangeRefused(answer.message, key)
        case HTTPStatus.UNPROCESSABLE_ENTITY:
            return KeyReused("change")
    return problem(answer)


def _turned_away(answer: Answer, key: str) -> TwstockError:
    """The error for an answer that does not settle what became of earlier attempts."""
    error = problem(answer)
    return OutcomeUnknown(str(error), key) if answer.doubtful else error


def problem(answer: Answer) -> TwstockError:
    """What went wrong with a request that was answered."""
    if answer.is_malformed:
        field, _, what = answer.message.partition(": ")
        return InvalidRequest(field, what)
    return BadAnswer(f"{answer.status} {answer.message}")
