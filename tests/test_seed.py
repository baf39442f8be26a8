"""Every test that the original project names, under its name, against a real cluster."""

import signal
import uuid

import grpc
import pytest

from tests.cluster_fixture import Cluster, wait_until
from twstock.commands.export import export
from twstock.pb import catalog_pb2, catalog_pb2_grpc, order_pb2, order_pb2_grpc, replication_pb2

pytestmark = pytest.mark.processes
CACHE_SIZE = 3
NO_STOCK = {"error": {"code": 404, "message": "stock not found"}}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One cluster with a small cache for all tests of this file."""
    directory = tmp_path_factory.mktemp("seed")
    with Cluster(directory, "--cache-size", str(CACHE_SIZE)) as running:
        yield running


@pytest.fixture(scope="module")
def channels(cluster):
    """A gRPC channel to every replica, by name."""
    members = [("catalog", r) for r in cluster.config.catalogs]
    members += [("order", r) for r in cluster.config.orders]
    opened = {f"{group}-{r.id}": grpc.insecure_channel(str(r.grpc)) for group, r in members}
    yield opened
    for channel in opened.values():
        channel.close()


@pytest.fixture
def catalog(channels):
    """The catalog's service as the original calls it."""
    return catalog_pb2_grpc.CatalogStub(channels["catalog-1"])


@pytest.fixture
def order_leader(cluster, channels):
    """The order leader's service as the original calls it."""
    return order_pb2_grpc.OrderStub(channels[cluster.await_leader()])


def look_up(catalog, name):
    """Lookup with the original's field only."""
    return catalog.Lookup(catalog_pb2.LookupRequest(stock_name=name), timeout=5)


def trade(catalog, name, quantity, side):
    """Trade with the original's fields only."""
    request = catalog_pb2.TradeRequest(name=name, number_of_items=quantity, type=side)
    return catalog.Trade(request, timeout=5)


def test_lookup_valid(catalog):
    """The catalog knows a stock's price and quantity."""
    found = look_up(catalog, "GameStart")
    assert (found.code, found.name, found.price) == (200, "GameStart", 15.99)
    assert found.quantity > 0


def test_lookup_invalid(catalog):
    """The catalog answers 404 for a stock that it does not know."""
    found = look_up(catalog, "NoSuchCo")
    assert (found.code, found.message) == (404, "stock not found")


def test_trade_buy_valid(catalog):
    """Buying takes from the quantity and adds to the volume."""
    before = look_up(catalog, "FishCo")
    assert trade(catalog, "FishCo", 2, "buy").code == 200
    after = look_up(catalog, "FishCo")
    assert (after.quantity, after.volume) == (before.quantity - 2, before.volume + 2)


def test_trade_sell_valid(catalog):
    """Selling adds to the quantity and to the volume."""
    before = look_up(catalog, "BoarCo")
    assert trade(catalog, "BoarCo", 3, "sell").code == 200
    after = look_up(catalog, "BoarCo")
    assert (after.quantity, after.volume) == (before.quantity + 3, before.volume + 3)


def test_trade_buy_invalid(catalog):
    """Buying more than there is is refused and changes nothing."""
    before = look_up(catalog, "MenhirCo")
    refused = trade(catalog, "MenhirCo", before.quantity + 1, "buy")
    assert (refused.code, refused.message) == (404, "not enough stocks left to buy")
    assert look_up(catalog, "MenhirCo") == before


def test_frontend_lookup_valid(cluster, catalog):
    """A lookup over HTTP has the name, price and quantity that the catalog has."""
    status, headers, body = cluster.get("/stocks/GameStart")
    known = {
        "name": "GameStart",
        "price": 15.99,
        "quantity": look_up(catalog, "GameStart").quantity,
    }
    assert status == 200
    assert body["data"].items() >= known.items()
    assert headers["content-type"].startswith("application/json")


def test_frontend_lookup_invalid(cluster):
    """A lookup of an unknown stock is 404."""
    status, _, body = cluster.get("/stocks/NoSuchCo")
    assert (status, body) == (404, NO_STOCK)


def cache_state(cluster, name):
    """What a lookup says of the cache: ``hit`` or ``miss``."""
    return cluster.get(f"/stocks/{name}")[1]["x-cache"]


def test_frontend_cache_hit(cluster):
    """A repeated lookup is answered from the cache, until a trade changes the stock."""
    wait_until(lambda: cache_state(cluster, "AAPL") == "hit", "AAPL in the cache")
    before = cluster.stock("AAPL")["quantity"]
    cluster.trade("AAPL", 1, "buy")
    status, headers, body = cluster.get("/stocks/AAPL")
    assert (status, headers["x-cache"], body["data"]["quantity"]) == (200, "miss", before - 1)


def test_frontend_cache_eviction(cluster):
    """When the cache is full the least recently used stock is evicted."""
    names = ["AMZN", "GOOGL", "META", "NVDA"][: CACHE_SIZE + 1]

    def evicted():
        """Fill the cache, keep the second fresh, and add one more: the first is gone."""
        for name in names[:CACHE_SIZE]:
            cluster.get(f"/stocks/{name}")
        kept = [cache_state(cluster, name) for name in names[:CACHE_SIZE]]
        added = cache_state(cluster, names[CACHE_SIZE])
        last = cache_state(cluster, names[CACHE_SIZE - 1])
        return kept == ["hit"] * CACHE_SIZE and (added, last) == ("miss", "hit")

    wait_until(evicted, "the cache to be in order")
    assert cache_state(cluster, names[0]) == "miss"
    assert cluster.get("/cache")[2]["data"]["evictions"] > 0


def test_post(cluster):
    """An order gets a transaction number."""
    body = {"name": "GameStart", "quantity": 1, "type": "sell"}
    status, _, answer = cluster.post("/orders", body)
    assert status == 200
    assert answer["data"]["transaction_number"] >= 1
    assert cluster.post("/orders/", body)[0] == 200


def test_get_order_valid(cluster):
    """An order can be asked for by its number."""
    number = cluster.trade("NFLX", 4, "buy")
    status, _, body = cluster.get(f"/orders/{number}")
    wanted = {"order_num": number, "name": "NFLX", "type": "buy", "quantity": 4}
    assert status == 200
    assert body["data"].items() >= wanted.items()


def refusal(cluster, path="/orders", **changes):
    """The status and message with which an order is refused; ``changes`` make it wrong."""
    body = {"name": "GameStart", "quantity": 1, "type": "buy", **changes}
    status, _, answer = cluster.post(path, body)
    assert answer["error"]["code"] == status
    return status, answer["error"]["message"]


def test_post_invalid_url(cluster):
    """An order to an unknown path is 404."""
    assert refusal(cluster, "/trades")[0] == 404


def test_post_wrong_stockname(cluster):
    """An order of an unknown stock is 404."""
    assert refusal(cluster, name="NoSuchCo") == (404, "invalid stock name")


def test_post_wrong_type(cluster):
    """An order that neither buys nor sells is 404."""
    assert refusal(cluster, type="borrow") == (404, "invalid transaction type")


def test_post_negative_quantity(cluster):
    """An order of less than one share is 404."""
    words = "num stocks traded should be non negative"
    assert refusal(cluster, quantity=-1) == (404, words)
    assert refusal(cluster, quantity=0) == (404, words)


def test_post_large_quantity(cluster):
    """An order of more shares than there are is 404."""
    assert refusal(cluster, quantity=10**6) == (404, "not enough stocks left to buy")


def test_post_transaction_increments(cluster):
    """Transaction numbers follow one another. A refusal takes none, nor does an order that is
    repeated with the same key.
    """
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = cluster.trade("ToyStonks", 1, "buy", **key)
    refusal(cluster, quantity=-1)
    assert cluster.trade("ToyStonks", 1, "buy", **key) == first
    assert [cluster.trade("ToyStonks", 1, "sell") for _ in range(3)] == [
        first + 1,
        first + 2,
        first + 3,
    ]


def test_leader_logs_trade_replicates_followers(cluster, channels, order_leader):
    """An order that the leader answered is soon on every replica."""
    request = order_pb2.OrderRequest(name="GOOGL", number_of_items=2, type="buy")
    placed = order_leader.Order(request, timeout=5)
    assert (placed.code, placed.message) == (200, "order placed successfully")
    wanted = (placed.transaction_num, "GOOGL", 2, "buy")

    def last(replica):
        asked = order_pb2.SyncUpRequest(transaction_num=placed.transaction_num - 1)
        orders = order_pb2_grpc.OrderStub(channels[replica]).SyncUp(asked, timeout=5).orders
        return [(o.transaction_num, o.name, o.number_of_items, o.type) for o in orders]

    for replica in ("order-1", "order-2", "order-3"):
        wait_until(lambda name=replica: last(name) == [wanted], f"{replica} to have the order")
        probe = order_pb2_grpc.OrderStub(channels[replica])
        assert probe.Heartbeat(replication_pb2.Empty(), timeout=5).code == 200


def test_order_csvs_same(cluster, tmp_path):
    """The logs that the replicas export, and those they keep, are the same bytes."""
    cluster.trade("META", 1, "buy")
    orders, catalogs = cluster.remotes("order"), cluster.remotes("catalog")
    export(tmp_path, dict(enumerate(orders, start=1)), catalogs)
    for remote in (*orders, *catalogs):
        remote.close()
    logs = [(tmp_path / f"order_log_{k}.csv").read_bytes() for k in (1, 2, 3)]
    assert logs[0].startswith(b"transaction_num,name,type,quantity\n1,")
    assert logs[0] == logs[1] == logs[2]
    for k in (1, 2, 3):
        kept = cluster.directory / f"order-{k}" / f"order_log_{k}.csv"
        wait_until(lambda path=kept: path.read_bytes() == logs[0], f"{kept} to be current")
    cluster.assert_verified()


def test_replica_sync_after_crash(cluster):
    """A follower that was killed catches up with the orders it missed."""
    leader = cluster.await_leader()
    follower = next(f"order-{k}" for k in (1, 2, 3) if f"order-{k}" != leader)
    cluster.signal(follower)
    numbers = [cluster.trade("RottenFishCo", 1, "sell") for _ in range(5)]
    cluster.await_healthy()
    assert [line.number for line in cluster.log(follower)][-5:] == numbers
    cluster.assert_verified()


def test_leader_crash_and_recovery(cluster):
    """After the leader was killed another one takes the next order, with the next number, and
    earlier orders can be looked up.
    """
    leader = cluster.await_leader()
    before = cluster.trade("NVDA", 1, "buy")
    cluster.signal(leader, signal.SIGKILL)
    key = {"Idempotency-Key": uuid.uuid4().hex}
    body = {"name": "NVDA", "quantity": 1, "type": "buy"}
    answer = wait_until(
        lambda: (got := cluster.post("/orders", body, key))[0] == 200 and got[2], "an order"
    )
    number = answer["data"]["transaction_number"]
    assert number == before + 1
    assert cluster.get(f"/orders/{before}")[0] == 200
    assert cluster.get(f"/orders/{number}")[2]["data"]["name"] == "NVDA"
    cluster.await_healthy()
    cluster.assert_verified()
