"""The API's description of itself: valid, complete, and readable."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate
from twisted.internet.task import Clock

from tests.test_front import FullReactor
from tests.test_site import Connection
from twstock.config import default_cluster
from twstock.errors import ConfigError, KeyReused
from twstock.market import ORDER_NOT_FOUND, STOCK_NOT_FOUND, Refusal
from twstock.threads import Pool
from twstock.web import answers, manual, openapi, operations
from twstock.web.front import FrontEnd
from twstock.web.http.respond import Respond
from twstock.web.http.routes import Route

UNDOCUMENTED = {
    ("GET", "/orders/"): "the same as /orders",
    ("POST", "/orders/"): "the same as /orders",
    ("DELETE", "/delete/{name}"): "for the catalog alone, which asks another listener",
    ("GET", "/docs/style.css"): "belongs to /docs",
    ("GET", "/"): "the console, for people",
    ("GET", "/console/{path}"): "belongs to the console",
}


class Front(FullReactor):
    """A front-end that is made, but listens nowhere: its public site is ``site``."""

    def __init__(self) -> None:
        cluster = default_cluster()
        super().__init__(cluster.fronts[0].http.port)
        pools = {name: Pool(name) for name in ("control", "calls")}
        service = FrontEnd(self, cluster, cluster.fronts[0], pools)
        with pytest.raises(ConfigError):
            service.startService()
        service.stopService()

    def listenTCP(self, port: int, factory: Any, **rest: Any) -> Any:
        """Keep what would listen there."""
        self.site = factory
        return super().listenTCP(port, factory, **rest)

    def get(self, path: str, *lines: str) -> tuple[dict[str, str], bytes]:
        """The headers and the body of what is there."""
        self.site.draining = False
        self.site.clock = Clock()
        channel = self.site.buildProtocol(None)
        server: Any = self
        client = Connection(server, channel)
        head = "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: h", *lines, ""))
        client.send(head.encode())
        answer, _, body = client.wire.value().partition(b"\r\n\r\n")
        status, *fields = answer.decode().split("\r\n")
        client.wire.loseConnection()
        return dict(field.split(": ", 1) for field in fields) | {"status": status[9:]}, body

    def served(self) -> set[tuple[str, str]]:
        """Every method and path, HEAD as part of GET."""
        rules = self.site.resource._app.url_map.iter_rules()
        found = {
            (method, re.sub(r"<(?:[^:<]*:)?(\w+)>", r"{\1}", rule.rule))
            for rule in rules
            for method in rule.methods
        }
        return {(method, path) for method, path in found if method != "HEAD"}


@pytest.fixture(scope="module")
def front() -> Front:
    """What a front-end would serve."""
    return Front()


@pytest.fixture(scope="module")
def spec(front: Front) -> Any:
    """What it says of itself."""
    return json.loads(front.get("/openapi.json")[1])


def test_the_description_is_valid(spec: Any) -> None:
    """OpenAPI 3.1, checked by a library."""
    validate(spec)


def test_every_route_is_described(front: Front, spec: Any) -> None:
    """Unless it is left out on purpose; and nothing is described that is not served."""
    described = {
        (method.upper(), path)
        for path, item in spec["paths"].items()
        for method in item
        if method != "head"
    }
    assert described.isdisjoint(UNDOCUMENTED)
    assert described | set(UNDOCUMENTED) == front.served()


def test_head_is_described_wherever_get_is(spec: Any) -> None:
    """It has the same answers, but without bodies."""
    for item in spec["paths"].values():
        assert ("head" in item) == ("get" in item)
        if "get" in item:
            assert item["head"]["responses"].keys() == item["get"]["responses"].keys()
            assert "content" not in item["head"]["responses"]["200"]


def test_every_operation_has_what_holds_for_all(spec: Any) -> None:
    """An id of its own, the errors that any request may get, and the id of the request both
    ways.
    """
    operations_ = [each for item in spec["paths"].values() for each in item.values()]
    names = [each["operationId"] for each in operations_]
    assert len(set(names)) == len(names)
    for each in operations_:
        assert {"200", "400", "405", "429", "500", "503"} <= each["responses"].keys()
        assert {"$ref": "#/components/parameters/RequestId"} in each["parameters"]
        for response in each["responses"].values():
            assert "$ref" in response or "X-Request-Id" in response["headers"]


def test_only_requests_that_change_something_are_refused_to_other_origins(spec: Any) -> None:
    """They may be answered 403; GET and HEAD are not."""
    for item in spec["paths"].values():
        for method, operation in item.items():
            assert ("403" in operation["responses"]) is (method not in ("get", "head"))


def test_errors_have_both_forms(spec: Any) -> None:
    """JSON and problem details, for the errors of one operation and for those of all."""
    own = spec["paths"]["/orders"]["post"]["responses"]["422"]
    for response in (own, *spec["components"]["responses"].values()):
        assert set(response["content"]) == {"application/json", "application/problem+json"}


def test_a_route_may_bring_its_own_schemas_and_security() -> None:
    """A parameter of its path that nobody described is described, a route without an operation is
    left out.
    """
    respond: Respond = lambda _: None  # type: ignore[assignment, return-value]  # noqa: E731
    operation = {
        "operationId": "x",
        "summary": "X",
        "security": [{"token": []}],
        "responses": {"200": {"description": "ok", **operations.in_json("Extra")}},
    }
    route = Route("POST", "/x/<rest:name>/y/<int:n>", respond, operation)
    extra = {"Extra": {"type": "object"}, **operations.SCHEMAS}
    scheme = {"token": {"type": "http", "scheme": "bearer"}}
    spec = openapi.describe([route, Route("GET", "/hidden", respond)], "1", extra, scheme)
    validate(spec)  # type: ignore[arg-type]
    assert list(spec["paths"]) == ["/x/{name}/y/{n}"]
    parameters = spec["paths"]["/x/{name}/y/{n}"]["post"]["parameters"]
    assert [each.get("name") for each in parameters] == ["name", "n", None]
    assert "Needs a token." in manual.page(spec)
    assert '-H "Authorization: Bearer $TOKEN"' in manual.page(spec).replace("&quot;", '"')


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        """Note it."""
        found = dict(attrs)
        self.tags.add(tag)
        self.attributes |= found.keys()
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Everything is closed in the sequence in which it was opened."""
        assert self.open.pop() == tag


def test_the_page_needs_nothing_but_itself(front: Front) -> None:
    """No script, no inline style, nothing from elsewhere: the strict policy forbids nothing that it
    needs.
    """
    headers, body = front.get("/docs")
    assert headers["Content-Security-Policy"] == "default-src 'self'"
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    page = Page(body.decode())
    assert page.open == []
    assert page.tags.isdisjoint({"script", "style", "iframe", "img"})
    assert page.attributes.isdisjoint({"style", "onclick", "onload", "src"})
    assert len(set(page.ids)) == len(page.ids)
    inside = {link for link in page.links if link.startswith("#")}
    assert inside <= {f"#{each}" for each in page.ids}
    assert set(page.links) - inside == {"/docs/style.css", "/openapi.json"}
    headers, _ = front.get("/docs/style.css")
    assert headers["Content-Type"] == "text/css; charset=utf-8"


def test_the_page_tells_of_every_operation(front: Front, spec: Any) -> None:
    """It has a section for each operation and for each schema."""
    ids = Page(front.get("/docs")[1].decode()).ids
    for item in spec["paths"].values():
        for method, operation in item.items():
            assert (operation["operationId"] in ids) is (method != "head")
    for name in spec["components"]["schemas"]:
        assert f"schema-{name}" in ids


def test_the_page_shows_text_as_text() -> None:
    """Whatever a description contains does not become markup."""
    evil = "<script>alert(1)</script>\"'&`<b>`"
    operation = {
        "operationId": evil,
        "summary": evil,
        "description": evil,
        "tags": [evil],
        "parameters": [
            {"name": evil, "in": "query", "description": evil, "schema": {"enum": [evil]}}
        ],
        "requestBody": {
            "content": {"application/json": {"schema": {"const": evil}, "example": {evil: evil}}}
        },
        "responses": {"200": {"description": evil, "headers": {evil: {}}}},
    }
    respond: Respond = lambda _: None  # type: ignore[assignment, return-value]  # noqa: E731
    route = Route("POST", f"/{evil}", respond, operation)
    schemas = {evil: {"type": "object", "properties": {evil: {"type": evil}}}}
    page = Page(manual.page(openapi.describe([route], evil, schemas)))
    assert page.tags.isdisjoint({"script"})
    assert page.open == []


def test_every_refusal_and_error_is_documented() -> None:
    """docs/api.md or docs/admin.md has the words of each."""
    docs = Path(__file__).resolve().parent.parent / "docs"
    told = (docs / "api.md").read_text() + (docs / "admin.md").read_text()
    for words in (*Refusal, STOCK_NOT_FOUND, ORDER_NOT_FOUND, str(KeyReused())):
        assert f"`{words}`" in told
    fixed = [each for each in vars(answers).values() if isinstance(each, answers.Answer)]
    errors = [json.loads(each.body)["error"] for each in fixed if each.status >= 400]
    assert len(errors) >= 10
    for error in errors:
        assert f"`{error['message']}`" in told, error
        assert str(error["code"]) in told


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/docs/style.css"])
def test_the_description_need_not_be_sent_again(front: Front, path: str) -> None:
    """It is answered 304 to whoever has it, until the program changes."""
    headers, body = front.get(path)
    assert headers["Cache-Control"] == "no-cache"
    assert body
    again, nothing = front.get(path, f"If-None-Match: {headers['ETag']}")
    assert (again["status"], nothing) == ("304 Not Modified", b"")
