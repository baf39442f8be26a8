"""The typed client's administrator: what it sends, and what it makes of the answers."""

import json
from decimal import Decimal

import pytest

from tests.front_ends import HANG, REFUSE, World, error
from twstock.client import (
    Change,
    Changed,
    ChangeRefused,
    InvalidRequest,
    KeyReused,
    NotAdministrator,
    OutcomeUnknown,
    Stock,
    StockNotFound,
    Unavailable,
)

STOCK = {"name": "A/B", "price": 2.5, "quantity": 10, "volume": 0, "version": 3}
DONE = {"data": {"change_number": 7, "stock": STOCK}}
CHANGED = Changed(7, Stock("A/B", Decimal("2.5"), 10, 0, 3), False, "key-1")
ASKED = {
    "add": ("/admin/stocks", {"name": "A/B", "price": "2.50", "quantity": 10}),
    "restock": ("/admin/stocks/A%2FB/restock", {"quantity": 5}),
    "price": ("/admin/stocks/A%2FB/price", {"price": "0.75"}),
    "halt": ("/admin/stocks/A%2FB/halt", {}),
    "resume": ("/admin/stocks/A%2FB/resume", {}),
}


@pytest.fixture
def world():
    """One front-end that works, and a client of it."""
    return World()


def do(world, kind, **more):
    """The coroutine of one change of each kind."""
    admin = world.client.administrator("secret")
    given = {
        "add": ("A/B", Decimal("2.50"), 10),
        "restock": ("A/B", 5),
        "price": ("A/B", "0.75"),
    }
    return getattr(admin, kind)(*given.get(kind, ("A/B",)), **more)


@pytest.mark.parametrize("kind", ASKED)
def test_a_change_is_asked_for_under_a_key_with_the_token(world, kind):
    """The request is what the API wants; the result is the change and its stock."""
    world.front.replies = [(200, DONE)]
    assert world.run(do(world, kind)) == CHANGED
    (request,) = world.front.requests
    path, fields = ASKED[kind]
    assert (request.method, request.path) == (b"POST", path.encode())
    assert json.loads(world.front.bodies[0]) == fields
    assert request.getHeader("Authorization") == "Bearer secret"
    assert request.getHeader("Idempotency-Key") == "key-1"


@pytest.mark.parametrize(
    ("amount", "text"),
    [(Decimal("1E+2"), "100"), (Decimal("0.10"), "0.10"), (3, "3"), ("1e2", "1e2")],
)
def test_an_amount_goes_in_digits_exactly(world, amount, text):
    """A number is written out in full. A text is sent as it is: the server says what is wrong with
    it.
    """
    world.front.replies = [(200, DONE)]
    world.run(world.client.administrator("secret").price("A", amount))
    assert json.loads(world.front.bodies[0]) == {"price": text}


def test_a_change_whose_answer_is_lost_is_asked_for_again_under_its_key(world):
    """So it is made once, and the answer says that an earlier request made it."""
    world.front.replies = [HANG, (200, DONE, {"Idempotency-Replayed": "true"})]
    assert world.run(do(world, "halt")) == CHANGED._replace(replayed=True)
    assert world.keys_sent() == ["key-1", "key-1"]


def test_a_change_that_got_no_answer_has_not_happened_or_is_unknown(world):
    """It has not happened if no attempt can have got through. With a key of the caller's own it is
    unknown even then, because an earlier request may have made it.
    """
    world.front.replies = [REFUSE] * 100
    with pytest.raises(Unavailable):
        world.run(do(world, "halt"))
    for key, sent, replies in (("mine", "mine", [REFUSE] * 100), (None, "key-2", [HANG] * 100)):
        world.front.replies = replies
        with pytest.raises(OutcomeUnknown) as unknown:
            world.run(do(world, "halt", key=key))
        assert unknown.value.key == sent


@pytest.mark.parametrize(
    ("status", "message", "raised"),
    [
        (401, "expected the admin token", NotAdministrator),
        (403, "administration is off: no admin token is configured", NotAdministrator),
        (404, "stock not found", StockNotFound),
        (409, "already halted", ChangeRefused),
        (422, "idempotency key was used with another change", KeyReused),
        (400, "price: missing", InvalidRequest),
    ],
)
def test_a_change_that_was_refused_is_an_error_in_the_words_of_the_api(
    world, status, message, raised
):
    """It is not sent again."""
    world.front.replies = [(status, error(status, message))]
    with pytest.raises(raised) as problem:
        world.run(do(world, "halt"))
    assert message in str(problem.value)
    assert len(world.front.requests) == 1


@pytest.mark.parametrize(
    ("status", "message", "raised"),
    [
        (401, "expected the admin token", OutcomeUnknown),
        (403, "not from here", OutcomeUnknown),
        (404, "no such path", OutcomeUnknown),
        (404, "stock not found", StockNotFound),
        (409, "already halted", ChangeRefused),
        (422, "idempotency key was used with another change", KeyReused),
        (400, "price: missing", InvalidRequest),
    ],
)
def test_a_change_that_may_have_been_made_is_refused_only_by_who_knows(
    world, status, message, raised
):
    """After an attempt without an answer, an answer that merely turns the request away leaves the
    outcome unknown; a refusal by a front-end decides.
    """
    world.front.replies = [HANG, (status, error(status, message))]
    with pytest.raises(raised) as problem:
        world.run(do(world, "restock"))
    if raised is OutcomeUnknown:
        assert problem.value.key == "key-1"


def test_a_refusal_tells_which_change_it_was(world):
    """A stock that does not exist is told by its name, a refused change by its key."""
    for status, message in ((404, "stock not found"), (409, "not halted")):
        world.front.replies.append((status, error(status, message)))
    with pytest.raises(StockNotFound) as missing:
        world.run(do(world, "halt"))
    with pytest.raises(ChangeRefused) as refused:
        world.run(do(world, "halt"))
    assert (missing.value.name, refused.value.key) == ("A/B", "key-2")


def test_an_answer_that_makes_no_sense_leaves_the_outcome_unknown(world):
    """The answer was a 200, so the change may have been made."""
    world.front.replies = [(200, {"data": {"change_number": 7}})]
    with pytest.raises(OutcomeUnknown) as unknown:
        world.run(do(world, "halt"))
    assert unknown.value.key == "key-1"


def test_no_stock_has_a_name_that_is_no_text(world):
    """Half of a surrogate pair cannot be sent, so nothing is asked."""
    with pytest.raises(StockNotFound):
        world.run(world.client.administrator("secret").halt("half a pair \ud800"))
    assert not world.front.requests


def test_changes_are_read_page_by_page(world):
    """They are read from where the caller wants to begin, and without a token."""
    row = {"change_number": 4, "kind": "halt", "name": "A", "version": 2, "timestamp_ms": 9}
    pages = [{"data": [row], "next": 4}, {"data": [row | {"change_number": 5}], "next": None}]
    world.front.replies = [(200, page) for page in pages]

    async def listed():
        return [change async for change in world.client.changes(after=3)]

    first = Change(4, "halt", "A", None, None, 2, 9)
    assert world.run(listed()) == [first, first._replace(number=5)]
    uris = [request.uri for request in world.front.requests]
    assert uris == [b"/admin/changes?limit=1000&after=3", b"/admin/changes?limit=1000&after=4"]
