"""The ``twstock`` command: what it asks for, what it prints, and how it exits."""

import io
import json
import os
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from twisted.internet.task import Clock

from tests.cluster_fixture import free_ports
from twstock import __version__, cli
from twstock.cli import DONE, INTERRUPTED, REFUSED, UNREACHABLE, UNWRITTEN, USAGE, main
from twstock.commands import tabular
from twstock.commands.command import refusing
from twstock.commands.progress import Progress
from twstock.config import Address, default_cluster
from twstock.durable import draft
from twstock.errors import OutcomeUnknown, TwstockError
from twstock.rest import Session, Unreachable
from twstock.tomltext import render

STOCK = {"name": "GameStart", "price": 15.99, "quantity": 100, "volume": 0, "version": 0}
TOKEN = "the-token-of-this-test"
NAMES = [f"S{k}" for k in range(5)]


class Answers(BaseHTTPRequestHandler):
    """A front-end in memory: stocks, orders, and faults to come."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Quiet."""

    def do_GET(self):
        """Stocks, orders, the cluster."""
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        parts = [unquote(part) for part in url.path.split("/")[1:]]
        self.server.asked.append(self.path)
        match parts:
            case ["stocks"]:
                after = query.get("after", "")
                page = [STOCK | {"name": name} for name in NAMES if name > after][:2]
                more = page[-1]["name"] if page[-1]["name"] != NAMES[-1] else None
                self.reply(200, {"data": page, "next": more})
            case ["stocks", _] if self.server.lookup_faults:
                status = self.server.lookup_faults.pop(0)
                self.reply(status, {"error": {"code": status, "message": "not now"}})
            case ["stocks", name] if name == "Nobody":
                self.reply(404, {"error": {"code": 404, "message": "stock not found"}})
            case ["stocks", name]:
                self.reply(200, {"data": STOCK | {"name": name}})
            case ["admin", "changes"]:
                self.reply(200, {"data": self.server.changes, "next": None})
            case ["orders"]:
                self.reply(200, {"data": list(self.server.orders.values()), "next": None})
            case ["orders", number] if int(number) in self.server.orders:
                self.reply(200, {"data": self.server.orders[int(number)]})
            case ["cluster"]:
                self.reply(200, {"data": {"services": self.server.services}})
            case _:
                words = "Transaction number not found"
                self.reply(404, {"error": {"code": 404, "message": words}})

    def do_POST(self):
        """Place an order, unless a fault is next."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.append(self.headers["Idempotency-Key"])
        if self.server.faults:
            status = self.server.faults.pop(0)
            if status == 0:
                self.close_connection = True
                return
            error = {"code": status, "message": "not now", "outcome": "unknown"}
            self.reply(status, {"error": error})
            return
        if self.path.startswith("/admin/"):
            self.change(body)
            return
        with self.server.lock:
            number = len(self.server.orders) + 1
            self.server.orders[number] = {"order_num": number, **body}
        self.reply(200, {"data": {"transaction_number": number}})

    def change(self, body):
        """A change of a stock, if the token is right."""
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.reply(401, {"error": {"code": 401, "message": "expected the admin token"}})
            return
        change = {"change_number": 1, "kind": self.path, "price": body.get("price")}
        self.server.changes.append(change | {"body": body})
        stock = STOCK | ({"halted": True} if self.path.endswith("/halt") else {})
        self.reply(200, {"data": {"change_number": 1, "stock": stock}})

    def reply(self, status, body):
        """Send JSON."""
        strange = getattr(self.server, "strange", ())
        if strange != ():
            status, body = self.server.strange_status, strange
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def front():
    """A front-end in memory."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.lock = threading.Lock()
    server.orders, server.faults, server.keys, server.asked = {}, [], [], []
    server.services, server.changes, server.lookup_faults = [], [], []
    server.strange, server.strange_status = (), 200
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def run(front, capsys):
    """Run one command; returns exit status, output and errors."""

    def call(*words):
        try:
            status = main([*words, "--url", front.url])
        except SystemExit as error:
            status = error.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_lookup(run):
    """A table for people, the answer itself for scripts."""
    status, out, _ = run("lookup", "GameStart")
    assert status == DONE
    assert out.splitlines()[0].split() == ["name", "price", "quantity", "volume", "version"]
    assert out.splitlines()[1].split() == ["GameStart", "15.99", "100", "0", "0"]
    status, out, _ = run("lookup", "A/B %", "--json")
    assert (status, json.loads(out)) == (DONE, {"data": STOCK | {"name": "A/B %"}})


@pytest.mark.parametrize("status", [408, 429, 500, 503, 505, 507])
def test_a_front_end_that_cannot_answer_now_refuses_nothing(run, front, status):
    """A script must not take an overload for a stock that does not exist."""
    front.lookup_faults = [status]
    assert run("lookup", "X") == (UNREACHABLE, "", "twstock: not now\n")


def test_a_refusal_exits_1(run):
    """Its words go to standard error, with ``--json`` the answer to standard output."""
    assert run("lookup", "Nobody") == (REFUSED, "", "twstock: stock not found\n")
    nothing = "twstock: name: not a Unicode text\n"
    assert run("lookup", "no UTF-8: \udcff") == (REFUSED, "", nothing)
    status, out, _ = run("lookup", "Nobody", "--json")
    assert (status, json.loads(out)["error"]["code"]) == (REFUSED, 404)
    assert run("order", "7")[0] == REFUSED


def test_buy_and_order(run, front):
    """An order gets a number, and can be looked up by it."""
    status, out, _ = run("buy", "GameStart", "3")
    assert (status, out) == (DONE, "transaction number 1\n")
    status, out, _ = run("order", "1", "--json")
    wanted = {"order_num": 1, "name": "GameStart", "quantity": 3, "type": "buy"}
    assert json.loads(out) == {"data": wanted}
    assert run("sell", "GameStart", "3", "--json")[1] == '{"data": {"transaction_number": 2}}\n'
    assert front.orders[2]["type"] == "sell"


@pytest.mark.parametrize("fault", [503, 429, 0])
def test_an_unknown_outcome_is_asked_again_with_the_same_key(run, front, fault):
    """After a 503, a 429, or a connection that breaks, the order is sent again under its key, and
    executed once.
    """
    front.faults = [fault, fault]
    assert run("buy", "GameStart", "1")[0] == DONE
    assert len(front.orders) == 1
    assert len(front.keys) >= 3
    assert len(set(front.keys)) == 1


def test_patience_ends(front):
    """When nobody could say in time what became of an order, the error has its key, to ask again
    with.
    """
    front.faults = [503] * 1000
    with Session(front.url) as session, pytest.raises(OutcomeUnknown, match="not now") as caught:
        session.trade("GameStart", "buy", 1, patience_s=0)
    assert [caught.value.key] == front.keys


@pytest.mark.parametrize(("fault", "kind"), [(429, Unreachable), (503, OutcomeUnknown)])
def test_an_order_that_was_turned_away_is_in_no_doubt(front, monkeypatch, fault, kind):
    """If each attempt was answered with 429, nothing has happened. One 503 among them leaves the
    outcome unknown.
    """
    clock = Clock()
    monkeypatch.setattr("twstock.rest.time", SimpleNamespace(monotonic=clock.seconds))
    front.faults = [fault, 429]
    with Session(front.url) as session, pytest.raises(kind):
        session.trade("GameStart", "buy", 1, patience_s=0.05, sleep=clock.advance)
    assert len(front.keys) == 2


def test_an_order_whose_connection_broke_is_in_doubt(front):
    """Nobody knows how far it came, even if no front-end can be reached afterwards."""
    front.faults = [0]

    def sleep(_):
        front.shutdown()
        front.socket.close()

    with Session(front.url) as session, pytest.raises(OutcomeUnknown):
        session.trade("GameStart", "buy", 1, patience_s=0.1, sleep=sleep)


def test_an_answer_that_decides_nothing_leaves_an_earlier_doubt(front):
    """That a later attempt was turned away says nothing about the one before."""
    front.faults = [0, 403]
    with Session(front.url) as session, pytest.raises(OutcomeUnknown, match="not now") as caught:
        session.trade("GameStart", "buy", 1, sleep=lambda _: None)
    assert [caught.value.key] * 2 == front.keys
    front.strange, front.strange_status = {"message": "no route"}, 404
    with Session(front.url) as session, pytest.raises(OutcomeUnknown, match="status 404"):
        session.trade("GameStart", "buy", 1, "mine")
    front.strange = ()
    front.faults = [403, 0, 404]
    with Session(front.url) as session:
        assert session.trade("GameStart", "buy", 1).status == 403
        assert session.trade("GameStart", "buy", 1, sleep=lambda _: None).status == 404


def test_an_order_that_reached_nobody_is_in_no_doubt():
    """With a key of the caller's own it is, for the caller may have placed the order before."""
    url = f"http://127.0.0.1:{free_ports(1)}"
    for key, kind in ((None, Unreachable), ("mine", OutcomeUnknown)):
        with Session(url) as session, pytest.raises(kind):
            session.trade("GameStart", "buy", 1, key, patience_s=0)


@pytest.mark.parametrize(
    "words",
    [("buy", "GameStart", "1"), ("sell", "GameStart", "1"), ("admin", "halt", "GameStart")],
)
def test_an_unknown_outcome_names_the_key(run, front, token, monkeypatch, words):
    """The same command with that key asks again, and the order or change is made once."""
    monkeypatch.setenv("TWSTOCK_ADMIN_TOKEN_FILE", token)
    front.faults = [500]
    status, out, err = run(*words)
    [key] = front.keys
    assert (status, out) == (UNREACHABLE, "")
    assert f"--key {key} " in err
    front.faults = [500]
    status, out, err = run(*words, "--json", "--key", key)
    told = json.loads(out)["error"]
    assert (told["outcome"], told["idempotency_key"]) == ("unknown", key)
    assert run(*words, "--key", key)[0] == DONE
    assert front.keys == [key] * 3


@pytest.mark.parametrize("key", ["", "a b", "ä", "a\nb: c", "k" * 256])
def test_a_key_that_cannot_be_one_is_wrong_usage(run, key):
    """A key goes into a header field."""
    status, _, err = run("buy", "GameStart", "1", "--key", key)
    assert status == USAGE
    assert "visible ASCII" in err


def test_a_front_end_may_be_behind_a_path(front, capsys):
    """A proxy in front of it may tell it from others by a path, whatever characters that has."""
    assert main(["lookup", "X", "--url", f"{front.url}/é b"]) == REFUSED
    assert front.asked.pop() == "/%C3%A9%20b/stocks/X"
    assert main(["lookup", "X", "--url", f"{front.url}/market/"]) == REFUSED
    assert front.asked == ["/market/stocks/X"]


def test_lists_take_every_page(run):
    """``stocks`` follows ``next`` to the end."""
    status, out, _ = run("stocks")
    assert (status, len(out.splitlines())) == (DONE, 1 + len(NAMES))
    assert [s["name"] for s in json.loads(run("stocks", "--json")[1])["data"]] == NAMES
    assert run("orders") == (DONE, "order num  name  type  quantity\n", "")


@pytest.mark.parametrize("words", [("orders",), ("admin", "changes")])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_list_is_printed_as_it_is_read(run, monkeypatch, capsys, words, form):
    """A list may be longer than fits into memory, and its reader may stop early."""
    rows = [{"order_num": n, "change_number": n, "name": "A"} for n in (8, 9, 1000, 1001)]
    printed = []

    def pages(*_):
        yield rows[:2]
        printed.append(capsys.readouterr().out)
        yield rows[2:]

    monkeypatch.setattr(Session, "pages", pages)
    status, out, _ = run(*words, *form)
    assert status == DONE
    assert "9" in printed[0]
    if form:
        assert json.loads(printed[0] + out) == {"data": rows, "next": None}


def test_a_column_gets_wider_as_rows_come():
    """It is as wide as the widest value so far; the heading comes once."""
    table = tabular.Table(("n", "name"))
    assert table.lines([{"n": 9, "name": "A"}]) == ["n  name", "9  A"]
    assert table.lines([{"n": 1000, "name": "B"}]) == ["1000  B"]
    assert table.lines([{"n": 7, "name": "C"}]) == ["   7  C"]


def test_a_page_that_is_followed_by_itself_is_no_front_ends(run, front):
    """Otherwise the list would be read for ever."""
    front.strange = {"data": [STOCK], "next": "GameStart"}
    status, _, err = run("stocks")
    assert (status, len(front.asked)) == (UNREACHABLE, 2)
    assert f"{front.url} is not a front-end" in err


def test_status(run, front):
    """One row for each member; what is not known is a dash."""
    front.services = [
        {"service": "order", "id": 1, "pid": 7, "address": "a:1", "alive": True, "role": "leader"},
        {"service": "order", "id": 2, "pid": None, "address": "a:2", "alive": False, "role": None},
    ]
    status, out, _ = run("status")
    assert status == DONE
    assert out.splitlines()[1].split()[:6] == ["order", "1", "7", "a:1", "yes", "leader"]
    assert out.splitlines()[2].split()[:6] == ["order", "2", "-", "a:2", "no", "-"]


def test_client(run, front):
    """The original's client trades, asks for every order that it placed, and finds each as it
    placed it.
    """
    words = ["client", "--clients", "2", "--requests", "10", "-p", "1", "--seed", "3"]
    status, out, _ = run(*words, "--json")
    report = json.loads(out)
    assert status == DONE
    assert report["outcomes"] == {"executed": 20}
    assert report["latency_ms"]["order"]["count"] == len(front.orders) == 20
    assert report["mismatches"] == report["failures"] == []
    assert run(*words)[1].splitlines()[-1] == "0 mismatches, 0 failures"


def test_a_busy_front_end_contradicts_nothing(run, front):
    """A lookup that it cannot answer now is a failure. That a stock is unknown which it showed
    before is a mismatch.
    """
    front.lookup_faults = [429, 503, 404]
    words = ["client", "--clients", "1", "--requests", "3", "-p", "0"]
    status, out, _ = run(*words)
    assert (status, out.splitlines()[-1]) == (REFUSED, "1 mismatches, 2 failures")
    front.lookup_faults = [429, 503]
    status, out, _ = run(*words)
    assert (status, out.splitlines()[-1]) == (UNREACHABLE, "0 mismatches, 2 failures")


def test_what_cannot_be_printed_is_printed_escaped(run, monkeypatch):
    """A terminal without such a character is no reason to fail: what was asked for may be done
    already.
    """
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    monkeypatch.setattr(cli, "STOCK_COLUMNS", ("näme",))
    assert run("stocks")[0] == DONE
    ascii_only.flush()
    assert ascii_only.buffer.getvalue().startswith(b"n\\xe4me\n")


@pytest.fixture
def full(monkeypatch):
    """A standard output on a full disk. Python finds out at once, or if buffered only at the
    end.
    """

    def begin(buffered):
        raw = open("/dev/full", "wb", buffering=-1 if buffered else 0)  # noqa: SIM115
        output = io.TextIOWrapper(raw, write_through=not buffered)
        monkeypatch.setattr(sys, "stdout", output)
        opened.append(output)

    opened = []
    yield begin
    for output in opened:
        output.close()


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_what_was_done_is_told_though_standard_output_takes_nothing(
    run, front, token, full, buffered, form
):
    """On standard error, and with an exit status of its own: 1 would say that it was refused."""
    full(buffered)
    status, _, err = run("buy", "GameStart", "3", *form)
    assert (status, len(front.orders)) == (UNWRITTEN, 1)
    full_words = "standard output: No space left on device\n"
    assert err == f"twstock: transaction number 1; it was done, but {full_words}"
    full(buffered)
    status, _, err = run("admin", "halt", "GameStart", "--token-file", token, *form)
    assert (status, len(front.changes)) == (UNWRITTEN, 1)
    assert err == f"twstock: change number 1; it was done, but {full_words}"
    full(buffered)
    status, _, err = run("stocks", *form)
    assert (status, err) == (UNWRITTEN, f"twstock: {full_words}")
    full(buffered)
    front.faults = [500]
    status, _, err = run("buy", "GameStart", "3", *form)
    assert f"--key {front.keys[-1]} " in err
    assert status == (UNWRITTEN if form else UNREACHABLE)


@pytest.mark.parametrize(("fault", "status"), [(0, DONE), (403, REFUSED), (500, UNREACHABLE)])
def test_a_reader_that_is_gone_changes_no_status(run, front, monkeypatch, fault, status):
    """When the reader of the output has seen enough and closed it, the exit status still says what
    became of the order.
    """
    reading, writing = os.pipe()
    os.close(reading)
    front.faults = [fault] if fault else []
    with open(writing, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert run("buy", "GameStart", "1", "--json")[0] == status
        assert run("stocks")[0] == DONE


STRANGE = ({"hello": []}, [], {"data": None}, {"data": []}, {"data": {}, "next": None}, 7)


@pytest.mark.parametrize("body", STRANGE)
def test_an_answer_to_an_order_that_makes_no_sense_leaves_it_unknown(run, front, token, body):
    """The answer was a 200, so the order or change may have been made."""
    for words in (("buy", "X", "1"), ("admin", "halt", "X", "--token-file", token)):
        front.strange = body
        status, _, err = run(*words)
        assert status == UNREACHABLE
        assert f"{front.url} is not a front-end" in err
        assert f"--key {front.keys[-1]} " in err


@pytest.mark.parametrize("body", STRANGE)
@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("lookup", "X"),
        ("order", "1"),
        ("stocks",),
        ("orders",),
        ("client",),
        ("verify",),
        ("admin", "changes"),
    ],
)
def test_who_answers_in_another_form_is_no_front_end(run, front, words, body):
    """It is named, and the exit status is that of a front-end that nobody can reach."""
    front.strange = body
    status, out, err = run(*words)
    assert (status, out) == (UNREACHABLE, "")
    assert f"{front.url} is not a front-end" in err


@pytest.mark.parametrize("row", [7, {"service": "order"}, {"service": "order", "id": "one"}])
def test_each_row_of_the_cluster_has_to_be_a_member(run, front, row):
    """Whoever sends anything else is no front-end; no rows at all are fine."""
    front.services = [row]
    for words in (("status",), ("verify",)):
        assert run(*words)[0] == UNREACHABLE
    front.services = []
    assert run("status")[0] == DONE


def test_ctrl_c_tells_the_key_of_an_order_that_was_sent(front, monkeypatch, capsys):
    """It may have been executed, and the exit status says that this is unknown."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("twstock.rest.Session._request", interrupt)
    assert main(["buy", "X", "1", "--url", front.url]) == UNREACHABLE
    err = capsys.readouterr().err
    assert "interrupted; whether it was done is not known" in err
    assert "--key " in err


def test_ctrl_c_ends_with_a_word(front, monkeypatch, capsys):
    """Without a traceback, and with the exit status that shells use for it, even before the command
    has begun.
    """

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("twstock.rest.Session.lookup", interrupt)
    assert main(["lookup", "X", "--url", front.url]) == INTERRUPTED
    assert capsys.readouterr().err == "twstock: interrupted\n"
    monkeypatch.setattr(cli, "_parser", interrupt)  # before it has begun
    assert main(["lookup", "X", "--url", front.url]) == INTERRUPTED
    assert capsys.readouterr().err == "twstock: interrupted\n"


def test_client_finds_what_is_not_as_placed(run, front):
    """An order that is found with another quantity is a mismatch, and the exit status is 1."""

    class Forgetful(dict):
        def __setitem__(self, number, order):
            super().__setitem__(number, order | {"quantity": 99})

    front.orders = Forgetful()
    status, out, _ = run("client", "--clients", "1", "--requests", "2", "-p", "1", "--json")
    assert status == REFUSED
    assert len(json.loads(out)["mismatches"]) == 2


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("fly",),
        ("buy", "GameStart"),
        ("buy", "GameStart", "many"),
        ("buy", "GameStart", "1_0"),
        ("sell", "GameStart", "\u0663"),
        ("buy", "GameStart", "+1"),
        ("buy", "GameStart", ""),
        ("buy", "GameStart", "9" * 5000),
        ("order", "1_0"),
        ("order", "first"),
        ("client", "-p", "2"),
        ("client", "--clients", "0"),
        ("lookup", "GameStart", "--url", "ftp://here"),
        ("lookup", "GameStart", "--url", "http://here:port"),
        ("status", "--url", "http://a..b:80"),
        ("status", "--url", f"http://{'a' * 64}:80"),
        ("status", "--url", "http://host name:80"),
        ("status", "--url", "http://user:password@host:80"),
        ("status", "--url", "http://host:80?x=y"),
        ("status", "--url", "http://host\tname:80"),
        ("status", "--url", "http://host:80/\x1b[2J"),
        ("status", "--url", "http://host:80/\udcff"),
        ("status", "--url", "http://\udcff:80"),
        ("status", "--url", "http://host:80\n"),
        ("buy", "GameStart", "1", "--url", "http://a..b:80"),
        ("verify", "--config", "/nowhere/cluster.toml"),
        ("restore", "FILE", "--data", "DIR", "--url", "http://here"),
        ("rejoin", "order-1", "--config", "c", "--from", "d", "--url", "http://here"),
        ("up", "--http", "here"),
        ("up", "--admin-token-file", "/nowhere/token"),
        ("admin",),
        ("admin", "explode", "GameStart"),
        ("admin", "restock", "GameStart", "many"),
        ("admin", "restock", "GameStart", "1_0"),
        ("admin", "halt", "GameStart"),
        ("admin", "halt", "GameStart", "--token-file", "/nowhere/token"),
    ],
)
def test_wrong_usage_exits_2(words, capsys):
    """Always with a word on standard error."""
    try:
        status = main(words)
    except SystemExit as error:
        status = error.code
    assert status == USAGE
    err = capsys.readouterr().err
    assert err != ""
    assert err.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--url", ("--url", "http://here", "status")),
        ("--url", ("--url=http://here", "status")),
        ("--json", ("--json", "status")),
        ("-p", ("-p", "0.5", "client")),
    ],
)
def test_an_option_before_its_command_is_told_where_it_belongs(option, words, capsys):
    """``twstock`` itself has hardly any options."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == USAGE
    err = capsys.readouterr().err
    assert err.endswith(f"twstock: error: {option} belongs after the command\n")


@pytest.mark.parametrize("option", ["-h", "--help", "--version", "--vers"])
def test_what_is_no_option_of_a_command_comes_alone(option, capsys):
    """It is answered on standard output."""
    with pytest.raises(SystemExit) as caught:
        main([option])
    assert caught.value.code == DONE
    assert "twstock" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["front-1", "order", "order-0", "order-01", "order-" + "1" * 5000])
def test_what_names_no_replica_cannot_rejoin(name, capsys):
    """The error says what was expected. No replica has a second name, such as order-01."""
    with pytest.raises(SystemExit) as ended:
        main(["rejoin", name, "--config", "/nowhere/cluster.toml"])
    assert ended.value.code == USAGE
    assert "argument NAME: expected order-N or catalog-N" in capsys.readouterr().err


def test_what_the_file_system_refuses_is_a_refusal_but_a_reader_that_is_gone_is_not():
    """An OSError becomes a refusal with exit status 1; but ``twstock export | head`` is no
    failure.
    """

    def command(error):
        def run(_options):
            raise error

        return refusing(run)

    with pytest.raises(TwstockError, match="no room"):
        command(OSError("no room"))(None)
    with pytest.raises(BrokenPipeError):
        command(BrokenPipeError())(None)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--verify", "{here}/none"), "{here}/none: No such file or directory"),
        (("--verify", "{here}"), "{here}: Is a directory"),
    ],
)
def test_a_refusal_of_the_file_system_names_the_file(tmp_path, capsys, words, why):
    """With the system's words, as elsewhere, but without the error number."""
    assert main(["backup", *(word.format(here=tmp_path) for word in words)]) == REFUSED
    assert capsys.readouterr().err == f"twstock: {why.format(here=tmp_path)}\n"


@pytest.mark.parametrize(
    ("path", "why"), [("none/file", "No such file or directory"), (".", "Is a directory")]
)
def test_a_file_that_cannot_be_written_is_named_and_not_its_draft(tmp_path, path, why):
    """The user knows of no draft, whether it cannot be made or cannot be moved into place."""
    file = tmp_path / "there" / path
    (tmp_path / "there").mkdir()

    def write(_options):
        with draft(file):
            pass

    with pytest.raises(TwstockError) as caught:
        refusing(write)(None)
    assert str(caught.value) == f"{file}: {why}"


@pytest.mark.parametrize("words", [("--version",), ("up", "--version")])
def test_the_version_is_told(words, capsys):
    """That of twstock, not of Twisted, also by a command that parses its own options."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code in (None, 0)
    assert capsys.readouterr().out == f"twstock {__version__}\n"


@pytest.mark.parametrize(
    "words", [("status",), ("lookup", "X"), ("orders",), ("client",), ("verify",)]
)
def test_nobody_there_exits_3(words, capsys):
    """The error names the address."""
    url = f"http://127.0.0.1:{free_ports(1)}"
    assert main([*words, "--url", url]) == UNREACHABLE
    assert capsys.readouterr().err == f"twstock: {url}: Connection refused\n"


def test_nobody_behind_the_front_end_exits_3(tmp_path, capsys):
    """``verify`` names each replica that it cannot reach."""
    port = free_ports(6)
    cluster = default_cluster(http=Address("127.0.0.1", port), base_port=port + 1)
    file = tmp_path / "cluster.toml"
    file.write_text(render(cluster))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("twstock.verify.PATIENCE_S", 0.0)
        assert main(["verify", "--config", str(file)]) == UNREACHABLE
    out = capsys.readouterr().out
    assert all(f"order-{k}" in out for k in (1, 2, 3))


def test_the_url_may_come_from_the_environment(front, monkeypatch, capsys):
    """``TWSTOCK_URL`` stands for the option."""
    monkeypatch.setenv("TWSTOCK_URL", front.url)
    assert main(["lookup", "GameStart"]) == DONE
    assert "GameStart" in capsys.readouterr().out


def test_who_names_a_wrong_url_is_told(monkeypatch, capsys):
    """The error says whether the option or the variable is wrong. An empty variable counts as
    absent.
    """
    assert main(["lookup", "A", "--url", "here:8080"]) == USAGE
    words = "expected http://HOST:PORT, got 'here:8080'\n"
    assert capsys.readouterr().err == f"twstock: --url: {words}"
    monkeypatch.setenv("TWSTOCK_URL", "here:8080")
    assert main(["lookup", "A"]) == USAGE
    assert capsys.readouterr().err == f"twstock: TWSTOCK_URL: {words}"
    assert main(["lookup", "A", "--url", "here:8080"]) == USAGE
    assert capsys.readouterr().err == f"twstock: --url: {words}"
    monkeypatch.setenv("TWSTOCK_URL", "")
    monkeypatch.setattr(cli, "DEFAULT_URL", "http://127.0.0.1:9")
    assert main(["lookup", "A"]) == UNREACHABLE


def test_control_characters_of_a_name_are_not_printed(run):
    """A terminal would obey them."""
    assert "\x1b" not in run("lookup", "A\x1b[2J")[1]


def test_control_characters_of_an_error_are_not_printed(run, front):
    """Anybody may be answering at that address."""
    front.strange = {"error": {"code": 404, "message": "\x1b[2J\x07no"}}
    front.strange_status = 404
    assert run("lookup", "A") == (REFUSED, "", "twstock: ?[2J?no\n")


def test_what_is_no_http_is_no_front_end(capsys):
    """The URL may be that of a gRPC port of the services behind the front-ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"\0\0\x18\x04\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert main(["lookup", "A", "--url", url]) == UNREACHABLE
        thread.join()
    said = f"twstock: {url} is not a front-end: it answers in another form\n"
    assert capsys.readouterr().err == said


def test_an_output_that_is_closed_takes_nothing_and_breaks_nothing(run, front, monkeypatch):
    """With ``2>&-``, what is meant for standard error does not end up on standard output, and the
    exit status stays.
    """

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stderr", None)
    assert run("lookup", "Nobody")[:2] == (REFUSED, "")
    sys.stderr.close()
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr("twstock.rest.Session.cluster", interrupt)
    assert run("status", "--watch")[0] == DONE
    sys.stdout.close()


@pytest.mark.parametrize("buffered", [True, False])
def test_help_that_nobody_takes_is_no_traceback(full, capsys, buffered):
    """The error and the exit status are those of any other output, also for ``up``, which parses
    its own options.
    """
    full(buffered)
    assert main(["up", "--help"]) == UNWRITTEN
    assert capsys.readouterr().err.startswith("twstock: standard output: ")


def test_progress_is_for_terminals(monkeypatch, capsys):
    """On a terminal, long work shows how far it is; elsewhere it prints nothing."""
    with Progress("requests", 2) as progress:
        progress.step()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Progress("requests", 2) as progress:
        progress.step()
    assert capsys.readouterr().err == "\r1/2 requests\r1/2 requests\n"


def test_what_long_work_says_is_for_everybody(monkeypatch, capsys):
    """Messages also go into a script's log. On a terminal they overwrite the count."""
    with Progress("entries") as progress:
        progress.say("waits")
    assert capsys.readouterr().err == "waits\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Progress("entries") as progress:
        progress.say("waits")
    assert capsys.readouterr().err == "\rwaits\x1b[K\n\r0 entries\n"


@pytest.fixture
def token(tmp_path):
    """A file with the right token."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    return str(file)


@pytest.mark.parametrize(
    ("words", "path", "body"),
    [
        (
            ("add", "A/B", "2.50", "10"),
            "/admin/stocks",
            {"name": "A/B", "price": "2.50", "quantity": 10},
        ),
        (("restock", "A/B", "5"), "/admin/stocks/A%2FB/restock", {"quantity": 5}),
        (("price", "A/B", "0.1"), "/admin/stocks/A%2FB/price", {"price": "0.1"}),
        (("halt", "A/B"), "/admin/stocks/A%2FB/halt", {}),
        (("resume", "A/B"), "/admin/stocks/A%2FB/resume", {}),
    ],
)
def test_each_change_is_posted(run, front, token, words, path, body):
    """With the token from the file, to its own path; a price is sent as it was typed."""
    status, out, _ = run("admin", *words, "--token-file", token)
    assert status == DONE
    assert out.splitlines()[0] == "change number 1"
    assert out.splitlines()[2].split()[0] == "GameStart"
    [change] = front.changes
    assert (change["kind"], change["body"]) == (path, body)


def test_a_stock_that_is_halted_is_told_to_be(run, token):
    """A column says so, which is only there for halted stocks."""
    out = run("admin", "halt", "GameStart", "--token-file", token)[1]
    assert out.splitlines()[1].split()[-1] == "halted"
    assert out.splitlines()[2].split()[-1] == "yes"
    out = run("admin", "resume", "GameStart", "--token-file", token)[1]
    assert "halted" not in out
    out = run("admin", "halt", "GameStart", "--token-file", token, "--json")[1]
    assert json.loads(out)["data"]["stock"]["halted"] is True


def test_a_change_is_asked_again_with_the_same_key(run, front, token):
    """Like an order: a lost answer must not make it happen twice."""
    front.faults = [503, 0]
    assert run("admin", "restock", "GameStart", "5", "--token-file", token)[0] == DONE
    assert len(front.changes) == 1
    assert len(front.keys) >= 3
    assert len(set(front.keys)) == 1


def test_a_wrong_token_exits_1(run, tmp_path):
    """The error is that of the front-end."""
    file = tmp_path / "token"
    file.write_text("not-the-token")
    found = run("admin", "halt", "GameStart", "--token-file", str(file))
    assert found == (REFUSED, "", "twstock: expected the admin token\n")


def test_the_token_file_may_come_from_the_environment(front, token, monkeypatch, capsys):
    """``TWSTOCK_ADMIN_TOKEN_FILE`` stands for the option; it names the file, and is not the token
    itself.
    """
    monkeypatch.setenv("TWSTOCK_ADMIN_TOKEN_FILE", token)
    assert main(["admin", "halt", "GameStart", "--url", front.url]) == DONE
    assert "change number 1" in capsys.readouterr().out


@pytest.mark.parametrize("option", [(), ("--token-file", "")])
def test_an_empty_name_of_a_token_file_counts_as_none(option, run, monkeypatch):
    """``TWSTOCK_ADMIN_TOKEN_FILE`` and ``--token-file`` without a file would name a directory."""
    monkeypatch.setenv("TWSTOCK_ADMIN_TOKEN_FILE", "")
    words = "name its file with --token-file or $TWSTOCK_ADMIN_TOKEN_FILE"
    assert run("admin", "halt", "A", *option) == (USAGE, "", f"twstock: no token: {words}\n")


def test_changes_need_no_token(run, front):
    """All changes are listed in a table, or as JSON."""
    front.changes = [{"change_number": 1, "kind": "halt", "name": "A", "version": 2}]
    status, out, _ = run("admin", "changes")
    assert status == DONE
    assert out.splitlines()[0].split()[:4] == ["change", "number", "kind", "name"]
    assert out.splitlines()[1].split() == ["1", "halt", "A", "-", "-", "2"]
    assert json.loads(run("admin", "changes", "--json")[1]) == {
        "data": front.changes,
        "next": None,
    }
