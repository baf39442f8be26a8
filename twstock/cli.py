"""The ``twstock`` command. Exit status: 0 done, 1 refused or not equal, 2 wrong usage,
3 the service cannot be reached or could not report the outcome of a request in time, 74 standard
output cannot be written, 130 Ctrl-C.

Each subcommand imports what it alone needs: a lookup of one stock must not wait until gRPC or
Twisted is loaded.
"""

import argparse
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import Path

from twstock import __version__
from twstock.commands import admin, backup, rejoin, replicas, tabular
from twstock.commands.command import (
    GivenUrl,
    Unwritten,
    flush,
    integer,
    parsed,
    telling,
)
from twstock.commands.progress import Progress
from twstock.commands.tabular import Row
from twstock.errors import ConfigError, OutcomeUnknown, TwstockError, told
from twstock.forms import ASK_AGAIN, is_key
from twstock.rest import Answer, Session, Unreachable, WrongUrl

Page = Sequence[Row]
DONE, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3
UNWRITTEN = os.EX_IOERR
INTERRUPTED = 128 + signal.SIGINT
DEFAULT_URL = "http://127.0.0.1:8080"
STOCK_COLUMNS = ("name", "price", "quantity", "volume", "version")
ORDER_COLUMNS = ("order_num", "name", "type", "quantity")
MEMBER_COLUMNS = (
    "service", "id", "pid", "address", "alive", "role", "term", "last_transaction", "commit", "lag",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    _replace_closed_output()
    if isinstance(sys.stdout, io.TextIOWrapper):  # an unprintable character is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            status = _begin(words)
        except SystemExit:  # help was asked for, or the arguments are wrong
            flush()
            raise
        except KeyboardInterrupt:
            status = _complain(TwstockError("interrupted"), INTERRUPTED)
        flush()
        return status
    except BrokenPipeError:  # the reader of our output has seen enough
        _drop_output()
        return DONE
    except Unwritten as error:
        _drop_output()
        return _complain(error, UNWRITTEN)
    except OSError as error:
        _drop_output()
        return _complain(TwstockError(f"standard output: {told(error)}"), UNWRITTEN)


def _replace_closed_output() -> None:
    """Replace an output that the parent process closed by /dev/null. Otherwise what is written to
    it would go to the other output, or into the connection that gets its file descriptor.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process


def _begin(words: list[str]) -> int:
    """Run the command that the arguments name. Raises Unwritten or OSError, like ``_run``."""
    if words[:1] == ["up"]:
        from twstock.cluster import up  # noqa: PLC0415

        return up(words[1:])
    if words[:1] == ["bench"]:
        return _bench(words[1:])
    options = parsed(_parser(), words)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    """Run one command whose options are parsed. Raises Unwritten or OSError if its output cannot
    be written.
    """
    try:
        return int(options.run(options))
    except Unwritten:
        raise
    except OutcomeUnknown as error:
        return _doubt(options, error)
    except WrongUrl as error:
        return _complain(TwstockError(f"{options.url_from}: {error}"), USAGE)
    except ConfigError as error:
        return _complain(error, USAGE)
    except Unreachable as error:
        return _complain(error, UNREACHABLE)
    except TwstockError as error:
        return _complain(error, REFUSED)


def _drop_output() -> None:
    """Send output that is left to /dev/null: at exit, Python would try to write it, and fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _bench(words: Sequence[str]) -> int:
    """Run the benchmark, which comes with the source and not with an installed package."""
    root = Path(__file__).resolve().parent.parent
    if not (root / "requirements-bench.txt").is_file():
        why = "the benchmark is a part of the project's source: see docs/performance.md there"
        return _complain(TwstockError(f"bench: {why}"), REFUSED)
    sys.path.insert(0, str(root))  # another package may have that name
    benchmark: Callable[..., int] = import_module("bench.__main__").main
    return benchmark(words, prog="twstock bench")


def _complain(error: Exception, status: int) -> int:
    words = "\n".join(map(tabular.cell, str(error).split("\n")))  # some come from a server
    with suppress(OSError):  # the status stands even if the words cannot be written
        print(f"twstock: {words}", file=sys.stderr)
    return status


def _doubt(options: argparse.Namespace, error: OutcomeUnknown) -> int:
    """Report the key, without which a retry could be a second trade; returns the status."""
    again = f"the same command with --key {error.key} asks again, and does it at most once"
    words = TwstockError(f"{error}; whether it was done is not known: {again}")
    status = _complain(words, UNREACHABLE)  # first: standard output may fail
    if options.json:
        doubt = {"message": str(error), "outcome": "unknown", "idempotency_key": error.key}
        _print_json({"error": doubt})
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("twstock", description="A distributed stock trading server.")
    parser.add_argument("--version", action="version", version=f"twstock {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="run a whole cluster on this machine", add_help=False)
    commands.add_parser("bench", help="measure it beside its peers on this machine", add_help=False)
    form, keyed = _form_option(), _key_option()
    remote = _remote_options(form)

    def add(
        name: str,
        run: Callable[[argparse.Namespace], int],
        words: str,
        *more: argparse.ArgumentParser,
        common: argparse.ArgumentParser = remote,
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=words, description=words, parents=[common, *more])
        command.set_defaults(run=run)
        return command

    _add_status(add("status", _status, "every member of the cluster"))
    add("lookup", _lookup, "one stock").add_argument("name", metavar="NAME")
    for side in ("buy", "sell"):
        command = add(side, _trade, f"{side} N shares of a stock", keyed)
        command.add_argument("name", metavar="NAME")
        command.add_argument("quantity", metavar="N", type=integer)
    add("order", _order, "one order").add_argument("number", metavar="N", type=integer)
    add("stocks", _stocks, "every stock")
    add("orders", _orders, "every order")
    words = "add and change stocks, for whoever has the token"
    changes = commands.add_parser("admin", help=words, description=words)
    admin.add_commands(changes, remote, keyed, _admin)
    _add_client(add("client", _client, "trade at random, and compare with what was answered"))
    replicas.add_commands(add)
    add_offline = partial(add, common=form)
    backup.add_commands(add, add_offline)
    rejoin.add_command(add_offline)
    return parser


def _form_option() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--json", action="store_true", help="for scripts")
    return options


def _remote_options(form: argparse.ArgumentParser) -> argparse.ArgumentParser:
    url = os.environ.get("TWSTOCK_URL") or DEFAULT_URL
    options = argparse.ArgumentParser(add_help=False, parents=[form])
    words = "a front-end (default: $TWSTOCK_URL or %(default)s)"
    options.add_argument("--url", action=GivenUrl, default=url, help=words)
    options.set_defaults(url_from="TWSTOCK_URL")
    return options


def _key_option() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    words = "names the request: however often it is made, it is done at most once"
    options.add_argument("--key", type=_key, metavar="KEY", help=words)
    return options


def _add_status(status: argparse.ArgumentParser) -> None:
    status.add_argument("--watch", action="store_true", help="look again and again, until Ctrl-C")
    status.add_argument(
        "--every", type=_seconds, default=1.0, metavar="S", help="how often to look (default: 1)"
    )


def _add_client(client: argparse.ArgumentParser) -> None:
    words = "how many trade at the same time (default: %(default)s)"
    client.add_argument("--clients", type=_positive, default=5, metavar="N", help=words)
    words = "of each client (default: %(default)s)"
    client.add_argument("--requests", type=_positive, default=100, metavar="N", help=words)
    words = "how likely it is that a stock is traded after it was looked up (default: %(default)s)"
    client.add_argument("-p", type=_share, default=0.6, metavar="P", help=words)
    client.add_argument("--seed", type=integer, metavar="N", help="makes the same choices again")


def _key(text: str) -> str:
    if not is_key(text):
        raise argparse.ArgumentTypeError("expected 1 to 255 visible ASCII characters")
    return text


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 up, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0.1 <= float(text) <= 86400:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected seconds from 0.1 up, got {text!r}")


def _share(text: str) -> float:
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a probability from 0 to 1, got {text!r}")


def _status(options: argparse.Namespace) -> int:
    with Session(options.url) as session:
        if options.watch:
            from twstock.commands.watch import watch  # noqa: PLC0415

            watch(session, sys.stdout, options.every, as_json=options.json)
            return DONE
        answer = session.cluster()
    if answer.ok and not options.json:
        _table(MEMBER_COLUMNS, answer.data["services"])
    return _finish(options, answer)


def _lookup(options: argparse.Namespace) -> int:
    with Session(options.url) as session:
        answer = session.lookup(options.name)
    if answer.ok and not options.json:
        _print_stocks([answer.data])
    return _finish(options, answer)


def _print_stocks(stocks: Sequence[Row]) -> None:
    """Print a table of stocks, with a column ``halted`` if any of them is."""
    halted = ("halted",) if any(stock.get("halted") for stock in stocks) else ()
    _table((*STOCK_COLUMNS, *halted), stocks)


def _admin(options: argparse.Namespace) -> int:
    if options.change == "changes":
        return _list(options, "/admin/changes", partial(_print_pages, admin.CHANGE_COLUMNS))
    answer = admin.change(options)
    if not answer.ok:
        return _finish(options, answer)
    done = f"change number {answer.data['change_number']}"
    with telling(done):
        if not options.json:
            print(done)
            _print_stocks([answer.data["stock"]])
        return _finish(options, answer)


def _trade(options: argparse.Namespace) -> int:
    with Session(options.url) as session:
        answer = session.trade(options.name, options.command, options.quantity, options.key)
    if not answer.ok:
        return _finish(options, answer)
    done = f"transaction number {answer.data['transaction_number']}"
    with telling(done):
        if not options.json:
            print(done)
        return _finish(options, answer)


def _order(options: argparse.Namespace) -> int:
    with Session(options.url) as session:
        answer = session.order(options.number)
    if answer.ok and not options.json:
        _table(ORDER_COLUMNS, [answer.data])
    return _finish(options, answer)


def _stocks(options: argparse.Namespace) -> int:
    # It takes all pages to know whether any stock is halted.
    return _list(options, "/stocks", lambda pages: _print_stocks(list(chain.from_iterable(pages))))


def _orders(options: argparse.Namespace) -> int:
    return _list(options, "/orders", partial(_print_pages, ORDER_COLUMNS))


def _list(options: argparse.Namespace, path: str, show: Callable[[Iterable[Page]], None]) -> int:
    with Session(options.url) as session:
        (_print_json_of if options.json else show)(session.pages(path))
    return DONE


def _print_json_of(pages: Iterable[Page]) -> None:
    """Print pages as one JSON document, row by row: a list may not fit into memory."""
    rows = (json.dumps(row) for page in pages for row in page)
    print('{"data": [' + next(rows, ""), end="")
    for row in rows:
        print(", " + row, end="")
    print('], "next": null}')


def _print_pages(columns: Sequence[str], pages: Iterable[Page]) -> None:
    """Print pages as one table."""
    table = tabular.Table(columns)
    for page in pages:
        for line in table.lines(page):
            print(line)


def _client(options: argparse.Namespace) -> int:
    from twstock.commands.workload import Load, run  # noqa: PLC0415

    load = Load(options.url, options.clients, options.requests, options.p, options.seed)
    with Progress("requests", load.clients * load.requests) as progress:
        tally = run(load, progress.step)
    report = tally.as_json()
    if options.json:
        print(json.dumps(report))
    else:
        rows = [{"request": kind, **row} for kind, row in report["latency_ms"].items()]
        _table(("request", "count", "mean", "p50", "p99"), rows, note="milliseconds")
        for outcome, count in sorted(tally.outcomes.items()):
            print(f"{count} trades: {outcome}")
        for problem in (*tally.mismatches, *tally.failures):
            print(problem)
        print(f"{len(tally.mismatches)} mismatches, {len(tally.failures)} failures")
    if tally.mismatches:
        return REFUSED
    return UNREACHABLE if tally.failures else DONE


def _finish(options: argparse.Namespace, answer: Answer) -> int:
    """Print the answer as JSON if asked to, else a refusal in words; returns the exit status."""
    if options.json:
        _print_json(answer.body)
    elif not answer.ok:
        _complain(TwstockError(answer.message), REFUSED)
    if answer.ok:
        return DONE
    is_for_now = answer.status in ASK_AGAIN or answer.status >= 500
    return UNREACHABLE if is_for_now else REFUSED


def _print_json(value: object) -> None:
    """Print the outcome of a request. A reader that is gone does not change the exit status."""
    try:
        print(json.dumps(value))
        flush()
    except BrokenPipeError:
        _drop_output()


def _table(columns: Sequence[str], rows: Iterable[Row], note: str = "") -> None:
    """Print rows under the names of their columns."""
    print("\n".join(tabular.lines(columns, rows)))
    if note:
        print(f"({note})")
