"""The console's files as the front-end serves them; ``tests/browser`` drives them in a browser."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from treq.testing import StubTreq
from twisted.internet.defer import Deferred

from twstock.web.console import MEDIA_TYPES, Console, load
from twstock.web.http.routes import mount

STATIC = Path(__file__).resolve().parent.parent / "twstock/web/static"
FOR_THE_TESTS = "package.json"
FILES = sorted(
    path.relative_to(STATIC).as_posix()
    for path in STATIC.rglob("*")
    if path.is_file() and path.name != FOR_THE_TESTS
)
VENDORED = sorted((STATIC / "vendor").iterdir())
OWN = [STATIC / name for name in FILES if not name.startswith("vendor/")]
treq = StubTreq(mount(Console(load()).routes()).resource())


def ask(path: str, method: str = "GET", **headers: str) -> tuple[Any, bytes]:
    """The answer and its body."""
    found: list[Any] = []

    async def run() -> tuple[Any, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await treq.request(method, f"http://localhost{path}", headers=named)
        return response, await response.content()

    Deferred.fromCoroutine(run()).addBoth(found.append)
    treq.flush()
    assert isinstance(found[0], tuple), found
    return found[0]


def header(response: Any, name: str) -> str:
    """One header, which is there once."""
    (value,) = response.headers.getRawHeaders(name)
    return str(value)


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_as_what_it_is(name: str) -> None:
    """It is found under its path, with its media type and the same bytes."""
    response, body = ask(f"/console/{name}")
    assert (response.code, body) == (200, (STATIC / name).read_bytes())
    assert header(response, "Content-Type").encode() == MEDIA_TYPES[Path(name).suffix]


def test_the_root_is_the_page() -> None:
    """GET / is the page, and HEAD is answered without a body."""
    response, body = ask("/")
    assert body == (STATIC / "index.html").read_bytes()
    head, nothing = ask("/", "HEAD")
    assert (head.code, nothing) == (200, b"")
    assert header(head, "Content-Length") == str(len(body)) == str(response.length)


def test_a_browser_may_load_nothing_from_elsewhere() -> None:
    """The headers that keep scripts of others out, on the page and on each file."""
    for path in ("/", *(f"/console/{name}" for name in FILES)):
        response, _ = ask(path)
        policy = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
        assert header(response, "Content-Security-Policy") == policy
        assert header(response, "X-Content-Type-Options") == "nosniff"
        assert header(response, "Referrer-Policy") == "no-referrer"
        assert header(response, "Cross-Origin-Opener-Policy") == "same-origin"
        assert "camera=()" in header(response, "Permissions-Policy")


def test_a_file_that_the_browser_has_is_not_sent_again() -> None:
    """The browser asks each time, and is answered 304 while the file is the same."""
    response, _ = ask("/")
    tag = header(response, "ETag")
    assert header(response, "Cache-Control") == "no-cache"
    for told in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again, body = ask("/", If_None_Match=told)
        assert (again.code, body, header(again, "ETag")) == (304, b"", tag)
        assert header(again, "Cache-Control") == "no-cache"
    assert ask("/", If_None_Match='"other"')[0].code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/console/",
        "/console/js",
        "/console/js/",
        "/console//index.html",
        "/console/../console.py",
        "/console/%2e%2e/console.py",
        "/console/js/../index.html",
        "/console/index.html%00",
        "/console/INDEX.HTML",
        "/console/package.json",
        "/console/%E2%82%AC",
    ],
)
def test_nothing_else_is_found(path: str) -> None:
    """No spelling leads out of the directory: names are looked up, not opened."""
    response, body = ask(path)
    assert (response.code, body) == (404, b'{"error":{"code":404,"message":"no such path"}}')


def test_the_page_holds_no_script_and_no_style_of_its_own() -> None:
    """The policy would refuse them."""
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", page)


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_what_comes_from_the_server_is_never_markup(path: Path) -> None:
    """The console's modules use nothing that would turn text into markup or code."""
    places = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser"
    )
    assert not re.search(places, path.read_text(), re.IGNORECASE)


def test_every_module_is_asked_for_at_once() -> None:
    """The page preloads all of them, so the browser need not read one to learn of the next."""
    page = (STATIC / "index.html").read_text()
    loaded = set(re.findall(r'"(?:modulepreload|module)" (?:src|href)="/console/([^"]+)"', page))
    assert loaded == {name for name in FILES if name.startswith("js/")}


def test_every_file_that_is_named_is_there() -> None:
    """What the page links, and what modules import."""
    page = (STATIC / "index.html").read_text()
    for name in re.findall(r'(?:src|href)="/console/([^"]+)"', page):
        assert name in FILES
    for path in OWN:
        if path.suffix == ".js":
            for name in re.findall(r'"(\.{1,2}/[^"]+\.js)"', path.read_text()):
                assert (path.parent / name).is_file(), (path, name)


@pytest.mark.parametrize("package", VENDORED, ids=lambda path: path.name)
def test_what_others_wrote_is_as_they_published_it(package: Path) -> None:
    """Each vendored file has the checksum that is written beside it, and a licence."""
    sums = dict(
        reversed(line.split()) for line in (package / "SHA256SUMS.txt").read_text().splitlines()
    )
    found = {path.name: path for path in package.iterdir() if path.name != "SHA256SUMS.txt"}
    assert sums.keys() == found.keys()
    assert "LICENSE.txt" in found
    for name, path in found.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sums[name]


def test_modules_of_the_console_stay_small() -> None:
    """Fewer than 400 lines, like those of the services."""
    for path in OWN:
        if path.suffix == ".js":
            assert len(path.read_text().splitlines()) < 400, path
