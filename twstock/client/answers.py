"""The one table between what HTTP says and what the client raises; ``twstock.web.answers`` has it
the other way round.

A refusal is an exception here: whoever buys wants a number, and every other way out needs a
decision of its own. Where many orders are placed at once it is a value, beside the outcomes of
the others.
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
    """The change does not fit how things stand, in the words of the API, and is never made. ``key``
    names it.
    """

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key


class NotAdministrator(TwstockError):
    """The token is not that of the cluster, or the cluster has none."""


def refused(answer: Answer, key: str) -> TwstockError:
    """Why an order was not executed and will not be, or that this is not known."""
    if not answer.decides:
        return _turned_away(answer, key)
    match answer.status:
        case HTTPStatus.NOT_FOUND | HTTPStatus.CONFLICT:
            return Refused(answer.message, key)
        case HTTPStatus.UNPROCESSABLE_ENTITY:
            return KeyReused()
    return problem(answer)


def not_changed(answer: Answer, name: str, key: str) -> TwstockError:
    """Why a change of a stock was not made and will not be, or that this is not known."""
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
    """What an answer means that nobody gives who knows what became of earlier attempts."""
    error = problem(answer)
    return OutcomeUnknown(str(error), key) if answer.doubtful else error


def problem(answer: Answer) -> TwstockError:
    """What went wrong with a request that was answered."""
    if answer.is_malformed:
        field, _, what = answer.message.partition(": ")
        return InvalidRequest(field, what)
    return BadAnswer(f"{answer.status} {answer.message}")
