"""``twstock verify`` and ``twstock export`` find what differs, wherever it is."""

from types import SimpleNamespace

import pytest

from twstock.commands.export import Behind, export
from twstock.consistency import MESSAGE_BYTES_LIMIT
from twstock.market import ChangeKind, Order, Side, Stock, StockChange, Trade
from twstock.rest import Unreachable
from twstock.rpc.security import PlainWay
from twstock.verify import DIFFERENCES_MAX, Line, Remote, verify

LOG = [
    Line(1, "X", "buy", 3),
    Line(2, "Y", "sell", 4),
    Line(3, "X", "sell", 1),
]
STOCKS = [
    Stock("X", 1599, quantity=8, volume=4, version=2, initial_quantity=10),
    Stock("Y", 205, quantity=14, volume=4, version=1, initial_quantity=10),
    Stock("Z, Inc", 5, quantity=10, volume=0, version=0, initial_quantity=10),
]


class FakeRemote:
    """A member with a log, stocks and changes; if ``down``, nobody answers."""

    def __init__(self, name, log=(), stocks=None, down=False, changes=(), later=()):
        self.name, self.log, self._stocks, self.down = name, list(log), stocks, down
        self._changes, self._later = changes, later
        self.leads = self.ready = True

    def _check(self):
        if self.down:
            raise Unreachable(f"{self.name}: connection refused")

    def orders(self):
        """The log with what was added later."""
        self._check()
        yield from self.log
        for trade in self._later:
            yield Line(trade.number, trade.order.name, trade.order.side, trade.order.quantity)

    def trades(self, after):
        """What was added later."""
        assert after == (self.log[-1].number if self.log else 0)
        yield from self._later

    def last_transaction(self):
        """The last number."""
        self._check()
        return self.log[-1].number if self.log else 0

    def status(self):
        """What it tells of itself."""
        role = "leader" if self.leads else "follower"
        return SimpleNamespace(
            role=role, ready=self.ready, last_transaction=self.last_transaction()
        )

    def stocks(self):
        """The stocks, if it leads."""
        self._check()
        if self._stocks is None:
            raise Unreachable(f"{self.name}: not the leader")
        yield from self._stocks

    def changes(self):
        """The changes, if it leads."""
        list(self.stocks())
        yield from self._changes


def replicas(*logs):
    """One order replica for each log; None: it is down."""
    return [FakeRemote(f"order-{k}", g or (), down=g is None) for k, g in enumerate(logs, start=1)]


def finding(*logs, stocks=STOCKS, changes=()):
    """What ``verify`` finds without waiting for anybody."""
    leader = FakeRemote("catalog-2", stocks=stocks, changes=changes)
    catalogs = [FakeRemote("catalog-1"), leader]
    return verify(replicas(*logs), catalogs, patience_s=0.0, sleep=lambda _: None)


def test_the_same_everywhere():
    """The logs are equal and account for the stocks, so the exit status is 0."""
    found = finding(LOG, LOG, LOG)
    assert (found.exit_status(), found.orders, found.stocks) == (0, 3, 3)
    assert finding([], [], [], stocks=STOCKS[2:]).exit_status() == 0


@pytest.mark.parametrize(
    ("logs", "words"),
    [
        ((LOG, LOG[:2], LOG), "order-2 lacks order 3"),
        ((LOG[:2], LOG, LOG), "order-1 lacks order 3"),
        ((LOG, LOG, [*LOG[:2], Line(3, "X", "sell", 2)]), "order-3 has (3 sell 2 X)"),
        ((LOG, LOG, [*LOG[:2], Line(4, "X", "sell", 1)]), "order-3 has order 4 where 3 belongs"),
    ],
)
def test_logs_that_differ(logs, words):
    """The replica and the number are named."""
    found = finding(*logs)
    assert found.exit_status() == 1
    assert any(words in difference for difference in found.differences)


@pytest.mark.parametrize("field", ["quantity", "volume", "version"])
def test_a_stock_that_differs(field):
    """The stock and the figure are named."""
    changed = STOCKS[0]._asdict()
    changed[field] += 1
    found = finding(LOG, LOG, LOG, stocks=[Stock(**changed), *STOCKS[1:]])
    assert found.exit_status() == 1
    assert found.differences[0].startswith(f"X: {field} is {changed[field]}")


@pytest.mark.parametrize("lacking", [0, 1])
def test_trades_may_go_on_meanwhile(lacking):
    """The logs are compared up to where they were at the beginning, and the stocks with all orders
    that they include. A trade that they include, but that no order records, is a difference.
    """
    later = [
        Trade(4, Order("k4", "X", Side.BUY, 2), 3, 1599, 0),
        Trade(5, Order("k5", "Y", Side.BUY, 1), 2, 205, 0),
    ]
    shown = [STOCKS[0]._replace(quantity=6, volume=6, version=3), *STOCKS[1:]]
    orders = [FakeRemote(f"order-{k}", LOG, later=later[lacking:]) for k in (1, 2)]
    catalogs = [FakeRemote("catalog-1", stocks=shown)]
    found = verify(orders, catalogs, patience_s=0.0, sleep=lambda _: None)
    assert (found.exit_status(), found.orders) == (lacking, 3)
    assert all(difference.startswith("X: ") for difference in found.differences)


def test_orders_of_a_stock_that_is_not_there():
    """Orders of a stock that the catalog does not have are a difference."""
    [difference] = finding(LOG, LOG, LOG, stocks=STOCKS[:1]).differences
    assert difference == "there are orders of Y, which the catalog does not have"


ADD, RESTOCK, PRICE, HALT, RESUME = ChangeKind
CHANGES = (
    StockChange(1, RESTOCK, "X", 0, 5, 1, 0),
    StockChange(2, PRICE, "X", 1599, 0, 2, 0),
    StockChange(3, HALT, "Y", 0, 0, 1, 0),
    StockChange(4, RESUME, "Y", 0, 0, 2, 0),
    StockChange(5, ADD, "Z, Inc", 5, 10, 1, 0),
    StockChange(6, HALT, "Z, Inc", 0, 0, 2, 0),
)
CHANGED = [
    Stock("X", 1599, quantity=8, volume=4, version=4, initial_quantity=10),
    Stock("Y", 205, quantity=14, volume=4, version=3, initial_quantity=10),
    Stock("Z, Inc", 5, quantity=10, volume=0, version=2, initial_quantity=10, halted=True),
]


def test_stocks_are_what_orders_and_changes_make_them():
    """Each change counts as a version, added shares count, and the last price is the stock's."""
    found = finding(LOG, LOG, LOG, stocks=CHANGED, changes=CHANGES)
    assert (found.differences, found.exit_status(), found.changes) == ([], 0, 6)


@pytest.mark.parametrize(
    ("place", "field", "value", "words"),
    [
        (0, "version", 5, "X: version is 5, its orders and changes make it 4"),
        (0, "price_cents", 1, "X: price is 1, its orders and changes make it 1599"),
        (0, "initial_quantity", 4, "X: initial quantity is 4, "),
        (1, "halted", True, "Y: halted is True, "),
        (2, "halted", False, "Z, Inc: halted is False, "),
        (2, "initial_quantity", 11, "Z, Inc: initial quantity is 11, "),
    ],
)
def test_a_stock_that_its_changes_do_not_make_is_found(place, field, value, words):
    """The stock and the figure are named."""
    stocks = list(CHANGED)
    stocks[place] = stocks[place]._replace(**{field: value})
    found = finding(LOG, LOG, LOG, stocks=stocks, changes=CHANGES)
    assert found.exit_status() == 1
    assert any(difference.startswith(words) for difference in found.differences)


def test_changes_without_a_stock_or_a_number_are_found():
    """A gap in the changes' numbers, and a change of an unknown stock, are differences."""
    gone = finding(LOG, LOG, LOG, stocks=CHANGED[:2], changes=CHANGES)
    assert gone.differences == ["there are changes of Z, Inc, which the catalog does not have"]
    gap = finding(LOG, LOG, LOG, stocks=CHANGED, changes=(*CHANGES[:1], *CHANGES[2:]))
    assert gap.differences[0] == "the catalog has change 3 where 2 belongs"


def test_a_missing_replica():
    """It is named, what the others have is still compared, and the exit status is 3."""
    found = finding(LOG, None, LOG)
    assert (found.exit_status(), found.missing) == (3, ["order-2: connection refused"])
    assert finding(LOG, None, LOG[:2]).exit_status() == 1
    assert finding(None, None, None).exit_status() == 3


@pytest.mark.parametrize("state", ["leads", "ready"])
def test_without_a_leader_nothing_is_known_to_differ(state):
    """Nobody leads, or the leader is not ready: what the catalog shows may be committed although no
    follower has heard of it, so stocks are not compared. Logs are.
    """
    remotes = replicas(LOG[:2], None, LOG)
    for remote in remotes:
        setattr(remote, state, False)
    found = verify(remotes, [FakeRemote("catalog-1", stocks=STOCKS)], 0.0)
    assert (found.exit_status(), found.differences, found.orders) == (3, [], 2)
    assert "an order replica that leads: the stocks were not compared" in found.missing
    remotes[0].log[0] = LOG[1]
    assert verify(remotes, [FakeRemote("catalog-1", stocks=STOCKS)], 0.0).exit_status() == 1


def test_a_missing_catalog():
    """The logs alone are not enough: the exit status is 3."""
    found = verify(replicas(LOG, LOG, LOG), [FakeRemote("catalog-1", down=True)], 0.0)
    assert found.exit_status() == 3


def test_many_differences_are_not_all_told():
    """After ``DIFFERENCES_MAX`` it says only that there are more."""
    found = finding([Line(k, "X", "buy", 1) for k in range(1, 100)], [], [])
    assert len(found.differences) == DIFFERENCES_MAX + 1
    assert found.differences[-1] == "and more"


def test_answers_may_be_as_long_as_any_member_may_send_them():
    """However large the cluster's ``message_bytes_max`` is, which is not known here."""
    opened = []

    class Recorded(PlainWay):
        def open(self, address, options):
            opened.append(dict(options))
            return super().open(address, options)

    Remote("order-1", "127.0.0.1:9", Recorded()).close()
    assert [options["grpc.max_receive_message_length"] for options in opened] == [
        MESSAGE_BYTES_LIMIT
    ]


def test_a_replica_that_lags_is_waited_for():
    """It catches up while ``verify`` sleeps, so there is no difference."""
    remotes = replicas(LOG, LOG[:1], LOG)

    def catch_up(_):
        remotes[1].log = LOG

    found = verify(remotes, [FakeRemote("catalog-1", stocks=STOCKS)], 5.0, catch_up)
    assert found.exit_status() == 0


def test_export_writes_the_same_bytes(tmp_path):
    """Each replica's log is exported up to the last order that any of them had at the beginning,
    and the stocks.
    """
    remotes = dict(enumerate(replicas(LOG, LOG, LOG), start=1))
    counted = list[None]()
    catalogs = [FakeRemote("catalog-1", stocks=STOCKS)]
    export(tmp_path / "out", remotes, catalogs, counted=lambda: counted.append(None))
    assert len(counted) == 3 * len(LOG)
    logs = {(tmp_path / f"out/order_log_{k}.csv").read_text() for k in (1, 2, 3)}
    assert logs == {"transaction_num,name,type,quantity\n1,X,buy,3\n2,Y,sell,4\n3,X,sell,1\n"}
    assert (tmp_path / "out/stocks.csv").read_text() == (
        'name,price,quantity,volume\nX,15.99,8,4\nY,2.05,14,4\n"Z, Inc",0.05,10,0\n'
    )
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_export_waits_for_a_replica_that_lags(tmp_path, monkeypatch):
    """If the replica does not catch up, the export fails and names it."""
    remotes = replicas(LOG, LOG[:1], LOG)
    catalogs = [FakeRemote("catalog-1", stocks=STOCKS)]

    def catch_up(_):
        remotes[1].log = [*LOG, Line(4, "X", "sell", 1)]

    export(tmp_path, dict(enumerate(remotes, start=1)), catalogs, catch_up)
    assert (tmp_path / "order_log_2.csv").read_text().count("\n") == 4
    monkeypatch.setattr("twstock.commands.export.PATIENCE_S", 0.0)
    behind = dict(enumerate(replicas(LOG, LOG[:1], LOG), start=1))
    with pytest.raises(Behind, match="order-2 has orders up to 1 of 3"):
        export(tmp_path, behind, catalogs, lambda _: None)
