"""The REST API as its users call it: one keep-alive connection, blocking, no reactor."""

import http.client
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from twstock.errors import TwstockError

TIMEOUT_S = 5.0
PATIENCE_S = 5.0
RETRY_S = 0.1
PAGE = 1000
_AGAIN = (429, 503)


class Unreachable(TwstockError):
    """Nobody serves at an address, or whoever does cannot serve now."""


class WrongUrl(TwstockError):
    """A URL cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, its headers with lower-case names, and the JSON of the body."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def ok(self) -> bool:
        """Whether the request was done."""
        return self.status == http.client.OK

    @property
    def message(self) -> str:
        """The words of an error."""
        return str(self.body["error"]["message"])


class Session:
    """One client of one front-end. Not for more than one thread."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise WrongUrl(f"expected http://HOST:PORT, got {url!r}")
        self.url = f"http://{parts.netloc}"
        try:
            self._connection = http.client.HTTPConnection(
                parts.hostname, parts.port or 80, timeout=timeout_s
            )
        except ValueError as error:
            raise WrongUrl(f"{url}: {error}") from None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def get(self, path: str) -> Answer:
        """GET a path. Raises Unreachable."""
        return self._request("GET", path)

    def lookup(self, name: str) -> Answer:
        """One stock."""
        return self.get(f"/stocks/{quote(name, safe='')}")

    def order(self, number: int) -> Answer:
        """One order."""
        return self.get(f"/orders/{number}")

    def pages(self, path: str) -> Iterator[list[Mapping[str, Any]]]:
        """Every page of ``/stocks`` or ``/orders``. Raises Unreachable."""
        after = ""
        while True:
            answer = self.get(f"{path}?limit={PAGE}" + (f"&after={after}" if after else ""))
            if not answer.ok:
                raise Unreachable(f"{self.url}{path}: {answer.message}")
            yield answer.body["data"]
            if answer.body["next"] is None:
                return
            after = quote(str(answer.body["next"]), safe="")

    def trade(
        self,
        name: str,
        side: str,
        quantity: int,
        key: str | None = None,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Answer:
        """Place an order. What went wrong on its way is asked again with the same key, so it
        trades at most once. Raises Unreachable when nobody could say in ``patience_s`` seconds.
        """
        fields = {"name": name, "quantity": quantity, "type": side}
        return self._insist("/orders", fields, {}, key, patience_s, sleep)

    def change(
        self,
        path: str,
        fields: Mapping[str, Any],
        token: str,
        key: str | None = None,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Answer:
        """Change a stock as an administrator; asked again with the same key, as for ``trade``."""
        authorized = {"Authorization": f"Bearer {token}"}
        return self._insist(path, fields, authorized, key, patience_s, sleep)

    def _insist(
        self,
        path: str,
        fields: Mapping[str, Any],
        headers: Mapping[str, str],
        key: str | None,
        patience_s: float,
        sleep: Callable[[float], None],
    ) -> Answer:
        """POST under one key until there is an answer that tells what happened."""
        body = json.dumps(fields)
        headers = {
            **headers,
            "Content-Type": "application/json",
            "Idempotency-Key": key or uuid.uuid4().hex,
        }
        deadline = time.monotonic() + patience_s
        while True:
            try:
                answer = self._request("POST", path, body, headers)
                if answer.status not in _AGAIN:
                    return answer
                problem = Unreachable(f"{self.url}: {answer.message}")
            except Unreachable as error:
                problem = error
            if time.monotonic() > deadline:
                raise problem
            sleep(RETRY_S)

    def _request(
        self,
        method: str,
        path: str,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask once; again on a fresh connection if a kept one turns out to be closed."""
        kept = self._connection.sock is not None
        try:
            return self._ask(method, path, body, headers or {})
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not kept or isinstance(error, TimeoutError):
                raise Unreachable(f"{self.url}: {error or type(error).__name__}") from None
        return self._request(method, path, body, headers)

    def _ask(self, method: str, path: str, body: str | None, headers: Mapping[str, str]) -> Answer:
        self._connection.request(method, path, body, dict(headers))
        response = self._connection.getresponse()
        content = response.read()
        names = {name.lower(): value for name, value in response.getheaders()}
        try:
            return Answer(response.status, names, json.loads(content))
        except ValueError:
            raise http.client.HTTPException(f"status {response.status}, not JSON") from None
