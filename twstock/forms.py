"""The forms of the REST API as its clients see them: URLs, paths, bodies and answers.

``twstock.web`` has the other side. Both clients, the blocking one of the command line (``rest``)
and the one for Twisted programs (``client``), write and read what is here.
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
"""The statuses that ask a client to come back."""

ASK_AGAIN = AGAIN | {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.GATEWAY_TIMEOUT,
    HTTPStatus.INSUFFICIENT_STORAGE,
}
"""The statuses after which the same request may have another answer, at another front-end or a
little later. Some are those of a proxy on the way."""

_NOT_EXECUTED = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INSUFFICIENT_STORAGE,
}
"""The statuses of a request that was turned away before it could have an effect, whatever became
of earlier ones with its key."""

_DECIDING = {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY}
"""The statuses of errors that tell what becomes of a request with a key, whatever became of earlier
attempts at it: if they are a front-end's."""

NO_SUCH_PATH = "no such path"
"""What a front-end says where nothing is: of no request with a key."""

ADD_PATH = "/admin/stocks"
"""Where an administrator adds a stock."""

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
    earlier attempt at the same request may have been done.
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
        """What was asked for; None in an error, or where the body has another form."""
        return self.body.get("data") if self.ok and isinstance(self.body, dict) else None

    @property
    def decides(self) -> bool:
        """Whether it tells what becomes of a request with a key, whatever became of earlier
        attempts: it was done, or is refused, or malformed, as each attempt would have been told.
        Only a front-end knows that, and it is one by the form of its errors; a proxy on the way
        does not. ``model/submission.js`` of the console has the same rule.
        """
        if self.ok:
            return True
        if _error(self.body).get("code") != self.status or self.message == NO_SUCH_PATH:
            return False
        return self.status in _DECIDING or self.is_malformed

    @property
    def is_malformed(self) -> bool:
        """Whether it names a field of the request that makes no sense."""
        return self.status == HTTPStatus.BAD_REQUEST and ": " in self.message

    @property
    def replayed(self) -> bool:
        """Whether an earlier request with the same key had done it already."""
        return self.headers.get("idempotency-replayed") == "true"

    @property
    def message(self) -> str:
        """The words of an error; who is no front-end may have other forms."""
        return str(_error(self.body).get("message", f"status {self.status}"))

    @property
    def outcome(self) -> str:
        """What an error says of the request: ``none``, ``unknown``, or nothing."""
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
        more = "@" in parts.netloc or parts.query or parts.fragment  # who would be told of it?
        (parts.hostname or "").encode("idna")  # as it is looked up
    except ValueError as error:
        raise WrongUrl(f"{url}: {error}") from None
    if not named or more or " " in parts.netloc:
        raise WrongUrl(f"expected {schemes[0]}://HOST:PORT, got {url!r}")
    return parts


def stock_path(name: str) -> str:
    """Where a stock is, whatever characters its name has."""
    return f"/stocks/{_segment(name)}"


def change_path(name: str, kind: str) -> str:
    """Where an administrator changes a stock."""
    return f"{ADD_PATH}/{_segment(name)}/{kind}"


def authorization(token: str) -> dict[str, str]:
    """The header field that shows an administrator's token (RFC 6750, section 2.1)."""
    return {"Authorization": f"Bearer {token}"}


def _segment(name: str) -> str:
    """A name as a segment of a path. Raises InvalidRequest for half a pair of surrogates, which
    is what Python makes of bytes on the command line that are no UTF-8.
    """
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        raise InvalidRequest("name", "not a Unicode text") from None


def events_path(names: Sequence[str]) -> str:
    """Where the events of these stocks are told; of all stocks if there are none. Raises
    InvalidRequest for a name that no stock has: the empty one alone would stand for all.
    """
    if "" in names:
        raise InvalidRequest("names", "expected names of one character or more")
    return f"/events?names={','.join(map(_segment, names))}" if names else "/events"


def order_path(number: int) -> str:
    """Where an order is."""
    return f"/orders/{number}"


def page_path(path: str, after: str | int | None, limit: int = PAGE) -> str:
    """Where the page of a list is that comes after a name or a number; None: the first."""
    start = "" if after is None else f"&after={quote(str(after), safe='')}"
    return f"{path}?limit={limit}{start}"


def order_terms(name: str, side: str, quantity: int) -> dict[str, Any]:
    """An order as the body of a request has it."""
    return {"name": name, "quantity": quantity, "type": side}


def order_headers(key: str) -> dict[str, str]:
    """The header fields of an order that is known by a key; raises InvalidRequest if it is none."""
    if not is_key(key):
        problem = f"expected one of 1 to {KEY_CHARS_MAX} visible ASCII characters"
        raise InvalidRequest("Idempotency-Key", problem)
    return {"Content-Type": "application/json", "Idempotency-Key": key}


def read_json(content: bytes | str, parse_float: Callable[[str], Any] = float) -> Any:
    """What somebody else wrote as JSON. Raises ValueError for whatever it is that cannot be read:
    brackets nested too deeply, and a number that ``parse_float`` does not take, among it.
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
    """An answer as it came; raises ValueError if its body is no JSON."""
    names = {name.lower(): value for name, value in headers.items()}
    return Answer(status, names, read_json(content, parse_float))


def retry_after_s(answer: Answer) -> float | None:
    """When the server wants to be asked again (RFC 9110, section 10.2.3); None: it does not say.
    A date counts as not said: ours sends none, and to tell how far it is takes a right clock.
    """
    digits = answer.headers.get("retry-after", "").strip()
    if digits.isascii() and digits.isdigit() and len(digits) <= _RETRY_AFTER_DIGITS_MAX:
        return float(digits)
    return None
