"""Conditional requests, the form of errors, and the ids of requests."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_cache import stock
from twstock.web import answers
from twstock.web.http.conditional import is_held
from twstock.web.http.problems import PROBLEM, as_problem, is_preferred, suited
from twstock.web.http.requestids import RequestIds, is_good

TAG = b'"7"'


@pytest.mark.parametrize(
    "field",
    [
        b'"7"',
        b'W/"7"',
        b"*",
        b' "7" ',
        b'"6", "7"',
        b'"6","7","8"',
        b'W/"6" ,\tW/"7"',
        b', ,"7",',
        b'"a,b", "7"',
        b'"\xff!", "7"',
    ],
)
def test_a_tag_that_is_named_is_held(field: bytes) -> None:
    """Alone or in a list, also marked as weak; ``*`` stands for any (RFC 9110 section 13.1.2)."""
    assert is_held(TAG, [field])


@pytest.mark.parametrize(
    "field",
    [
        b"",
        b'"6"',
        b'W/"6", "8"',
        b'"a,"7"',
        b"7",
        b"'7'",
        b'w/"7"',
        b'W / "7"',
        b'"7',
        b'"7" "8"',
        b'"7";q=1',
        b'"7", *',
        b"**",
        b'"\x7f", "7"',
        b'"7"x',
    ],
)
def test_any_other_tag_is_not_held(field: bytes) -> None:
    """Nor is one in a malformed field, which names nothing: the whole answer is sent."""
    assert not is_held(TAG, [field])


def test_the_lines_of_a_field_are_one_list() -> None:
    """Several lines count like one list (RFC 9110 section 5.3)."""
    assert is_held(TAG, [b'"6"', b'"7"'])
    assert not is_held(TAG, [b'"6"', b'"8"'])


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=3))
def test_no_field_is_too_odd_for_conditions(fields: list[bytes]) -> None:
    """Nothing that a client sends raises an error."""
    is_held(TAG, fields)


def test_a_stock_is_revalidated_by_its_version() -> None:
    """A client may keep it, but has to ask before it uses it again; a 304 has the same headers and
    no body.
    """
    found = answers.stock_found(stock(7))
    assert found.etag() == b'"7"'
    assert dict(found.fields())[b"Cache-Control"] == b"no-cache"
    kept = found.not_modified()
    assert (kept.status, kept.body, kept.reason) == (304, b"", b"Not Modified")
    assert kept.fields() == ((b"Cache-Control", b"no-cache"), *found.headers)
    assert answers.NO_SUCH_STOCK.etag() == b""


# --- the form of errors ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "preferred"),
    [
        (b"application/problem+json", True),
        (b"Application/Problem+JSON", True),
        (b"application/problem+json;charset=utf-8", True),
        (b"application/problem+json, application/json;q=0.9", True),
        (b"application/json;q=0.9,application/problem+json", True),
        (b"application/problem+json;q=0.5, */*;q=0.1", True),
        (b"application/problem+json; q=0.5 , application/*;q=0.499", True),
        (b'text/html;x="a,application/json;q=1", application/problem+json', True),
        (b"application/problem+json, application/json;q=0, */*", True),
        (b"application/problem+json;Q=0.2, text/html", True),
        (b"application/problem+json, application/json", False),
        (b"application/problem+json;q=0.5, application/json;q=0.6", False),
        (b"application/problem+json, */*", False),
        (b"application/problem+json;q=0", False),
        (b"application/problem+json;q=2", False),
        (b"application/problem+json;q=0.0001", False),
        (b"application/*", False),
        (b"*/*", False),
        (b"application/json", False),
        (b"text/html, application/xhtml+xml, */*;q=0.8", False),
        (b'text/html;x="application/problem+json', False),
        (b"", False),
        (b",;,", False),
    ],
)
def test_problem_details_are_for_who_prefers_them(accept: bytes, preferred: bool) -> None:
    """The client has to name the type and to prefer it to JSON: if both are equally good, the
    server chooses JSON.
    """
    assert is_preferred(accept) is preferred


@given(st.binary(max_size=60))
def test_no_accept_is_too_odd(accept: bytes) -> None:
    """Whatever a client sends, an error has one of the two forms."""
    form = suited(answers.NO_SUCH_STOCK, [accept])
    assert form.media_type in (answers.JSON, PROBLEM)


def test_a_problem_says_what_the_error_says() -> None:
    """It has the same status, outcome and headers (RFC 9457 section 3.1)."""
    error = answers.error(503, "no leader", "unknown", answers.RETRY)
    problem = as_problem(error)
    assert json.loads(problem.body) == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "no leader",
        "outcome": "unknown",
    }
    assert (problem.status, problem.headers) == (503, answers.RETRY)
    assert problem.media_type == b"application/problem+json"
    assert "outcome" not in json.loads(as_problem(answers.NO_SUCH_STOCK).body)


def test_a_problem_keeps_what_stands_beside_the_error() -> None:
    """An answer about readiness has data beside the error."""
    problem = json.loads(as_problem(answers.readiness(["no leader"])).body)
    assert problem["data"] == {"ready": False, "reasons": ["no leader"]}
    assert problem["detail"] == "no leader"


def test_only_errors_become_problems() -> None:
    """An answer that is no error keeps its form, and so does an error if the client says nothing
    about types.
    """
    found = answers.stock_found(stock(7))
    assert suited(found, [PROBLEM]) is found
    assert suited(answers.BROKEN, []) is answers.BROKEN
    assert suited(answers.BROKEN, [b"text/html", PROBLEM]).media_type == PROBLEM


# --- the ids of requests ---------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"a", b"~" * 128, b"1-2/3:4", b'"x"'])
def test_a_request_has_the_id_that_its_client_gives(name: bytes) -> None:
    """1 to 128 visible ASCII characters."""
    assert is_good(name)
    assert RequestIds("p-").of([name]) == name


@pytest.mark.parametrize(
    "names", [None, [], [b""], [b"a b"], [b"\xe9"], [b"x" * 129], [b"a", b"b"], [b"a\x7f"]]
)
def test_a_request_without_a_good_id_gets_one(names: list[bytes] | None) -> None:
    """No two are the same."""
    ids = RequestIds("p-")
    assert [ids.of(names), ids.make(), ids.of(names)] == [b"p-1", b"p-2", b"p-3"]
