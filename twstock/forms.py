"""The REST API as its clients see it: URLs, paths, bodies and answers.

``twstock.web`` is the other side. Both clients, the blocking one of the command line (``rest``)
and the one for Twisted programs (``client``), write requests and read answers with this module.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from twstock.errors import InvalidRequest, WrongUrl
from twstock.market import KEY_CHARS_MAX

PAGE = 1000
"""The most rows that a client asks for at once."""

AGAIN = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
"""The statuses that ask a client to retry later."""

ASK_AGAIN = AGAIN | {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.GATEWAY_TIMEOUT,
    HTTPStatus.INSUFFICIENT_STORAGE,
}
"""The statuses after which the same request may get another answer, from another front-end or a
little later. Some come from a proxy on the way."""

_NOT_EXECUTED = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INSUFFICIENT_STORAGE,
}
"""The statuses of a request that was turned away before it could have an effect. They say nothing
about earlier requests with its key."""

_DECIDING = {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY}
"""The error statuses that settle a request with a key, whatever became of earlier attempts at it;
but only if a front-end sent them."""

NO_SUCH_PATH = "no such path"
"""The message of a front-end's 404 for an unknown path: it settles no request with a key."""

ADD_PATH = "/admin/stocks"
"""The path at which an administrator adds a stock."""

Fields = Mapping[str, type]
"""Fields of an object, and the type of each."""

STOCK_FIELDS: Fields = {"name": str, "quantity": int}
ORDER_FIELDS: Fields = {"order_num": int}
PLACED_FIELDS: Fields = {"transaction_number": int}
CHANGED_FIELDS: Fields = {"change_number": int, "stock": dict}
MEMBER_FIELDS: Fields = {"service": str, "id": int, "address": str}

_RETRY_AFTER_DIGITS_MAX = 6


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, its headers with lower-case names, and the JSON of the body. ``doubtful``: an
    earlier attempt at the same request may have had an effect.
    """

    status: int
    headers: Mapping[str, str]
    body: Any
    doubtful: bool = False

    @property
    def ok(self) -> bool:
        """Whether the request was done."""
        return self.status == HTTPStatus.OK

    @property
    def data(self) -> Any:
        """What was asked for; None for an error, or if the body has another form."""
        return self.body.get("data") if self.ok and isinstance(self.body, dict) else None

    @property
    def decides(self) -> bool:
        """Whether it settles a request with a key, whatever became of earlier attempts: it was
        done, or it is refused or malformed, which every attempt would have been. Only a front-end
        knows that, and is recognized by the form of its errors; a proxy on the way does not know.
        ``model/submission.js`` of the console has the same rule.
        """
        if self.ok:
            return True
        if _error(self.body).get("code") != self.status or self.message == NO_SUCH_PATH:
            return False
        return self.status in _DECIDING or self.is_malformed

    @property
    def is_malformed(self) -> bool:
        """Whether it names an invalid field of the request."""
        return self.status == HTTPStatus.BAD_REQUEST and ": " in self.message

    @property
    def replayed(self) -> bool:
        """Whether an earlier request with the same key had done it already."""
        return self.headers.get("idempotency-replayed") == "true"

    @property
    def message(self) -> str:
        """The message of an error; only a front-end's errors are sure to have one."""
        return str(_error(self.body).get("message", f"status {self.status}"))

    @property
    def outcome(self) -> str:
        """The outcome that an error states: ``none``, ``unknown``, or empty if it states none."""
        return str(_error(self.body).get("outcome", ""))


def has_fields(value: Any, fields: Fields) -> bool:
    """Whether a part of an answer is an object with these fields; it may have more."""
    return isinstance(value, dict) and all(
        isinstance(value.get(name), kind) for name, kind in fields.items()
    )


def has_rows(value: Any, fields: Fields) -> bool:
    """Whether a part of an answer is a list of such objects."""
    return isinstance(value, list) and all(has_fields(row, fields) for row in value)


def _error(body: Any) -> Mapping[str, Any]:
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


def may_have_executed(status: int, outcome: str) -> bool:
    """Whether an order that got this answer instead of a definite one may have been executed."""
    return outcome != "none" and status not in _NOT_EXECUTED


def is_key(text: str) -> bool:
    """Whether a text can name an order: 1 to 255 visible ASCII characters."""
    return 0 < len(text) <= KEY_CHARS_MAX and all("!" <= each <= "~" for each in text)


def split_url(url: str, schemes: tuple[str, ...] = ("http",)) -> SplitResult:
    """The parts of a front-end's URL; raises WrongUrl."""
    if not url.isprintable():  # urlsplit drops line ends and tabs
        raise WrongUrl(f"{url!r}: expected no control characters")
    try:
        parts = urlsplit(url)
        named = parts.scheme in schemes and parts.hostname and parts.port != 0
        more = "@" in parts.netloc or parts.query or parts.fragment  # none of it would be used
        (parts.hostname or "").encode("idna")  # as DNS lookups do
    except ValueError as error:
        raise WrongUrl(f"{url}: {error}") from None
    if not named or more or " " in parts.netloc:
        raise WrongUrl(f"expected {schemes[0]}://HOST:PORT, got {url!r}")
    return parts


def stock_path(name: str) -> str:
    """The path of a stock, whatever characters its name has."""
    return f"/stocks/{_segment(name)}"


def change_path(name: str, kind: str) -> str:
    """The path at which an administrator changes a stock."""
    return f"{ADD_PATH}/{_segment(name)}/{kind}"


def authorization(token: str) -> dict[str, str]:
    """The header field that shows an administrator's token (RFC 6750, section 2.1)."""
    return {"Authorization": f"Bearer {token}"}


def _segment(name: str) -> str:
    """A name as a segment of a path. Raises InvalidRequest for a lone surrogate, which is what
    Python makes of a byte on the command line that is not UTF-8.
    """
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        raise InvalidRequest("name", "not a Unicode text") from None


def events_path(names: Sequence[str]) -> str:
    """The path of the events of these stocks, or of all stocks if no names are given. Raises
    InvalidRequest for an empty name, which alone would stand for all stocks.
    """
    if "" in names:
        raise InvalidRequest("names", "expected names of one character or more")
    return f"/events?names={','.join(map(_segment, names))}" if names else "/events"


def order_path(number: int) -> str:
    """The path of an order."""
    return f"/orders/{number}"


def page_path(path: str, after: str | int | None, limit: int = PAGE) -> str:
    """The path of the page of a list that comes after a name or a number; None: the first page."""
    start = "" if after is None else f"&after={quote(str(after), safe='')}"
    return f"{path}?limit={limit}{start}"


def order_terms(name: str, side: str, quantity: int) -> dict[str, Any]:
    """An order as the JSON object in a request."""
    return {"name": name, "quantity": quantity, "type": side}


def order_headers(key: str) -> dict[str, str]:
    """The header fields of an order with a key; raises InvalidRequest if the key is malformed."""
    if not is_key(key):
        problem = f"expected one of 1 to {KEY_CHARS_MAX} visible ASCII characters"
        raise InvalidRequest("Idempotency-Key", problem)
    return {"Content-Type": "application/json", "Idempotency-Key": key}


def read_json(content: bytes | str, parse_float: Callable[[str], Any] = float) -> Any:
    """Parse JSON from outside. Raises ValueError for whatever cannot be read, including brackets
    nested too deeply and a number that ``parse_float`` does not take.
    """
    try:
        return json.loads(content, parse_float=parse_float)
    except (RecursionError, ArithmeticError) as error:
        raise ValueError(str(error)) from None


def read_answer(
    status: int,
    headers: Mapping[str, str],
    content: bytes,
    parse_float: Callable[[str], Any] = float,
) -> Answer:
    """Parse an answer; raises ValueError if its body is not JSON."""
    names = {name.lower(): value for name, value in headers.items()}
    return Answer(status, names, read_json(content, parse_float))


def retry_after_s(answer: Answer) -> float | None:
    """In how many seconds the server wants a retry (RFC 9110, section 10.2.3); None: it does not
    say. A date is ignored: our servers send none, and using one takes a correct clock.
    """
    digits = answer.headers.get("retry-after", "").strip()
    if digits.isascii() and digits.isdigit() and len(digits) <= _RETRY_AFTER_DIGITS_MAX:
        return float(digits)
    return None
