"""A client of the REST API without a reactor: blocking, over one keep-alive connection."""

import http.client
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from twstock.errors import OutcomeUnknown, TwstockError, WrongUrl
from twstock.forms import (
    AGAIN,
    ASK_AGAIN,
    CHANGED_FIELDS,
    MEMBER_FIELDS,
    ORDER_FIELDS,
    PLACED_FIELDS,
    STOCK_FIELDS,
    Answer,
    Fields,
    authorization,
    has_fields,
    has_rows,
    may_have_executed,
    order_headers,
    order_path,
    order_terms,
    page_path,
    read_answer,
    split_url,
    stock_path,
)

__all__ = ["Answer", "Session", "Unreachable", "WrongUrl"]

TIMEOUT_S = 5.0
PATIENCE_S = 5.0
RETRY_S = 0.1


class Unreachable(TwstockError):
    """No server at an address answers, or it cannot serve now."""


class Session:
    """One client of one front-end. For one thread only.

    Methods that read raise Unreachable when there is no answer, or not that of a front-end.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        parts = split_url(url)
        self._prefix = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
        self.url = f"http://{parts.netloc}{self._prefix}"
        self._connection = http.client.HTTPConnection(
            str(parts.hostname), parts.port or 80, timeout=timeout_s
        )

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def cluster(self) -> Answer:
        """Every member of the cluster, in a list named ``services``."""
        answer = self._request("GET", "/cluster")
        self._check(answer, {"services": list})
        if answer.ok and not has_rows(answer.data["services"], MEMBER_FIELDS):
            raise self._stranger()
        return answer

    def lookup(self, name: str) -> Answer:
        """One stock."""
        return self._check(self._request("GET", stock_path(name)), STOCK_FIELDS)

    def order(self, number: int) -> Answer:
        """One order."""
        return self._check(self._request("GET", order_path(number)), ORDER_FIELDS)

    def pages(self, path: str) -> Iterator[list[Mapping[str, Any]]]:
        """Every page of a list. Raises Unreachable."""
        after = None
        while True:
            answer = self._request("GET", page_path(path, after))
            if not answer.ok:
                raise Unreachable(f"{self.url}{path}: {answer.message}")
            if not has_rows(answer.data, {"name": str}) or "next" not in answer.body:
                raise self._stranger()
            yield answer.data
            before, after = after, answer.body["next"]
            if after is None:
                return
            if after == before:  # no page of a front-end is followed by itself
                raise self._stranger()

    def trade(
        self,
        name: str,
        side: str,
        quantity: int,
        key: str | None = None,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Answer:
        """Place an order. A failed attempt is repeated with the same key, so it trades at most
        once. Raises OutcomeUnknown, with the key, when its outcome could not be learnt in
        ``patience_s`` seconds, or Unreachable, when nothing has happened.
        """
        fields = order_terms(name, side, quantity)
        return self._insist("/orders", fields, {}, PLACED_FIELDS, key, patience_s, sleep)

    def change(
        self,
        path: str,
        fields: Mapping[str, Any],
        token: str,
        key: str | None = None,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Answer:
        """Change a stock as an administrator; retries and raises like ``trade``."""
        headers = authorization(token)
        return self._insist(path, fields, headers, CHANGED_FIELDS, key, patience_s, sleep)

    def _insist(
        self,
        path: str,
        fields: Mapping[str, Any],
        headers: Mapping[str, str],
        told: Fields,
        key: str | None,
        patience_s: float,
        sleep: Callable[[float], None],
    ) -> Answer:
        """POST under one key until an answer settles the request; ``told`` are the fields of the
        answer if it was done.
        """
        doubtful = key is not None  # the caller may have sent a request with this key before
        key = key or uuid.uuid4().hex
        body, headers = json.dumps(fields), {**headers, **order_headers(key)}
        deadline = time.monotonic() + patience_s
        problem: Unreachable | None = None
        while True:
            sent, is_final = False, False
            try:
                if problem is not None:
                    sleep(RETRY_S)
                self._connect()
                sent = True
                answer = self._request("POST", path, body, headers, once=True)
                sent = answer.status in ASK_AGAIN and may_have_executed(
                    answer.status, answer.outcome
                )
                is_final = answer.status not in AGAIN
                if answer.ok and not has_fields(answer.data, told):
                    raise OutcomeUnknown(str(self._stranger()), key)
                if answer.decides or (is_final and not (doubtful or sent)):
                    return answer
                problem = Unreachable(f"{self.url}: {answer.message}")
            except Unreachable as error:
                problem = error
            except KeyboardInterrupt:
                if not (doubtful or sent):
                    raise
                problem, is_final = Unreachable("interrupted"), True
            doubtful = doubtful or sent
            if is_final or time.monotonic() > deadline:
                raise OutcomeUnknown(str(problem), key) if doubtful else problem

    def _connect(self) -> None:
        """Connect, unless connected. Raises Unreachable, in which case nothing was sent."""
        if self._connection.sock is None:
            try:
                self._connection.connect()
            except OSError as error:
                raise self._lost(error) from None

    def _check(self, answer: Answer, fields: Fields) -> Answer:
        """The answer, if it is an error or has data with these fields. Raises Unreachable."""
        if answer.ok and not has_fields(answer.data, fields):
            raise self._stranger()
        return answer

    def _stranger(self) -> Unreachable:
        return Unreachable(f"{self.url} is not a front-end: it answers in another form")

    def _lost(self, error: Exception) -> Unreachable:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Unreachable(f"{self.url}: {why}")

    def _request(
        self,
        method: str,
        path: str,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        once: bool = False,
    ) -> Answer:
        """Ask. If a kept connection turns out to be closed, ask again, unless ``once``."""
        kept = self._connection.sock is not None and not once
        try:
            return self._ask(method, path, body, headers or {})
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if _is_foreign(error):
                raise self._stranger() from None
            if not kept or isinstance(error, TimeoutError):
                raise self._lost(error) from None
        return self._request(method, path, body, headers)

    def _ask(self, method: str, path: str, body: str | None, headers: Mapping[str, str]) -> Answer:
        self._connection.request(method, self._prefix + path, body, dict(headers))
        response = self._connection.getresponse()
        content = response.read()
        try:
            return read_answer(response.status, dict(response.getheaders()), content)
        except ValueError:
            raise http.client.HTTPException(f"status {response.status}, not JSON") from None


def _is_foreign(error: Exception) -> bool:
    """Whether the answer was something other than HTTP. ``http.client`` also reports a closed
    connection as a BadStatusLine, which does not count.
    """
    is_closed = isinstance(error, http.client.RemoteDisconnected)
    return isinstance(error, http.client.BadStatusLine) and not is_closed
