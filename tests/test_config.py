"""The configuration: text and back, and errors that name what is wrong."""

from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twstock.access import Admin
from twstock.config import (
    DEFAULT_TIMINGS,
    Address,
    Cluster,
    Front,
    Limits,
    Replica,
    default_cluster,
    parse,
    parse_address,
)
from twstock.consistency import (
    CACHE_SIZE_MAX,
    ENTRY_BYTES,
    HEARTBEATS_MIN,
    MESSAGE_BYTES_LIMIT,
    PROBES_MIN,
    ROW_BYTES,
    SEGMENT_BYTES_MIN,
)
from twstock.errors import ConfigError
from twstock.market import (
    CALL_ITEMS_MAX,
    PRICE_CENTS_MAX,
    QUANTITY_MAX,
    Batch,
    ChangeKind,
    Order,
    Side,
    Stock,
    StockChange,
    Trade,
)
from twstock.replication.messages import Entry, EntryKind, Membership, Timings
from twstock.rpc import calls
from twstock.rpc.wire import methods, replicas, trading
from twstock.rpc.wire.commands import encode_catalog_command, encode_order_record
from twstock.tomltext import render

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
HOSTS = st.sampled_from(["127.0.0.1", "localhost", "::1", "fe80::1", "stock.example"])
SECONDS = st.floats(1e-6, 1e6)
ADMINS = (
    st.just(Admin())
    | st.builds(Admin, st.sampled_from([Path("/base/token"), Path('/base/a "b"')]))
    | st.builds(Admin, st.none(), st.from_regex(r"[A-Za-z0-9._~+/=-]{8,512}", fullmatch=True))
)
NUMBERS = st.integers(1, 2**40)
GOOD = """
[[front]]
id = 1
http = "127.0.0.1:8080"
internal = "127.0.0.1:50055"
[[catalog]]
id = 1
grpc = "127.0.0.1:50051"
[[order]]
id = 1
grpc = "127.0.0.1:50052"
"""


def overrides(defaults):
    """Values like ``defaults``, some of them others."""
    kinds = {f.name: type(getattr(defaults, f.name)) for f in fields(defaults)}
    changes = {name: NUMBERS if kind is int else SECONDS for name, kind in kinds.items()}
    return st.fixed_dictionaries({}, optional=changes).map(lambda c: replace(defaults, **c))


@st.composite
def clusters(draw):
    """Clusters of any shape whose ids and addresses are their own."""
    ports = iter(draw(st.lists(st.integers(1, 65535), min_size=16, max_size=16, unique=True)))
    ids = st.lists(st.integers(1, 1000), min_size=1, max_size=4, unique=True)

    def address():
        return Address(draw(HOSTS), next(ports))

    return Cluster(
        draw(TEXT),
        Path("/base") / draw(st.sampled_from(["data", 'a "b"', "c\\d", "tab\there", "ü"])),
        tuple(Front(k, address(), address()) for k in draw(ids)),
        tuple(Replica(k, address()) for k in draw(ids)),
        tuple(Replica(k, address()) for k in draw(ids)),
        draw(st.none() | st.just(Path("/base/stocks.csv"))),
        draw(overrides(DEFAULT_TIMINGS).map(with_lease)),
        draw(overrides(Limits()).map(with_room)),
        draw(ADMINS),
        tls=draw(st.none() | st.just(Path("/base/tls"))),
    )


def with_room(limits):
    """The same limits, made to fit: segments and messages that are large enough, the default lease
    of the cache, and time for several probes.
    """
    return replace(
        limits,
        segment_bytes=max(limits.segment_bytes, SEGMENT_BYTES_MIN),
        cache_size=min(limits.cache_size, CACHE_SIZE_MAX),
        message_bytes_max=MESSAGE_BYTES_LIMIT,
        page_max=min(limits.page_max, 2**19),
        batch_orders_max=min(limits.batch_orders_max, CALL_ITEMS_MAX),
        fetch_entries_max=min(limits.fetch_entries_max, CALL_ITEMS_MAX),
        cache_lease_s=Limits().cache_lease_s,
        out_of_reach_s=max(limits.out_of_reach_s, PROBES_MIN * limits.probe_every_s, 1.0),
    )


def with_lease(timings):
    """The same timings, made to fit: leases that end in time, and appends that fit into a
    segment.
    """
    return replace(
        timings,
        heartbeat_s=min(timings.election_s / 2, 1 / HEARTBEATS_MIN),
        lease_fraction=min(timings.lease_fraction, 0.9),
        lease_drain_s=max(timings.lease_drain_s, Limits().cache_lease_s),
        append_bytes_max=min(timings.append_bytes_max, SEGMENT_BYTES_MIN // 4),
        append_entries_max=min(timings.append_entries_max, CALL_ITEMS_MAX),
    )


@given(clusters())
def test_what_is_rendered_is_parsed_back(cluster):
    """``render`` and ``parse`` are each other's inverse, whatever the names hold."""
    assert parse(render(cluster)) == cluster


@given(st.text(max_size=200))
def test_any_text_is_a_cluster_or_a_config_error(text):
    """A file with anything in it never brings more than a ConfigError."""
    with suppress(ConfigError):
        parse(text)


def test_what_a_file_leaves_out_has_its_default():
    """A file that names the members alone is a whole configuration."""
    cluster = parse(GOOD, Path("/etc/twstock"))
    assert cluster.cluster_id == "default"
    assert cluster.data == Path("/etc/twstock/var")
    assert cluster.limits == Limits()
    assert cluster.timings == DEFAULT_TIMINGS
    assert cluster.catalog_csv is None
    assert cluster.tls is None


def test_relative_paths_count_from_the_file():
    """Relative paths start at the file's directory; absolute ones stay."""
    text = f'data = "here"\ncatalog_csv = "a.csv"\ntls = "."\n{GOOD}'
    cluster = parse(text, Path("/etc/twstock"))
    assert cluster.data == Path("/etc/twstock/here")
    assert cluster.catalog_csv == Path("/etc/twstock/a.csv")
    assert cluster.tls == Path("/etc/twstock")
    assert parse(f'data = "/srv"\n{GOOD}', Path("/etc/twstock")).data == Path("/srv")


def test_one_value_is_overridden_and_the_others_stay():
    """A table of limits or timings changes what it names."""
    text = f"{GOOD}\n[limits]\ncache_size = 7\nbody_timeout_s = 3\n[timings]\nelection_s = 1.5\n"
    cluster = parse(text)
    assert cluster.limits == replace(Limits(), cache_size=7, body_timeout_s=3.0)
    assert isinstance(cluster.limits.body_timeout_s, float)
    assert cluster.timings == replace(DEFAULT_TIMINGS, election_s=1.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("= 1", "not valid TOML"),
        (f"x = {'9' * 5000}", "not valid TOML"),
        (f"nonsense = 1\n{GOOD}", "nonsense: unknown key"),
        (f"cluster_id = 1\n{GOOD}", "cluster_id: expected a text"),
        (f'cluster_id = ""\n{GOOD}', "cluster_id: expected a text"),
        (f"data = true\n{GOOD}", "data: expected a text"),
        (f"tls = true\n{GOOD}", "tls: expected a text"),
        (f'tls = ""\n{GOOD}', "tls: expected a text"),
        (f"catalog_csv = 5\n{GOOD}", "catalog_csv: expected a text"),
        (f'catalog_csv = ""\n{GOOD}', "catalog_csv: expected a text"),
        (f"catalog_csv = false\n{GOOD}", "catalog_csv: expected a text"),
        (GOOD.replace("[[front]]", "[front]"), "front: expected tables written [[front]]"),
        ("order = 3", "front: the cluster needs at least one"),
        (GOOD.partition("[[catalog]]")[0], "catalog: the cluster needs at least one"),
        (GOOD.partition("[[order]]")[0], "order: the cluster needs at least one"),
        (GOOD.replace("id = 1", "id = 0", 1), "front[0].id: expected a number from 1 to"),
        (GOOD.replace("id = 1", "id = true", 1), "front[0].id: expected a number from 1 to"),
        (GOOD.replace("id = 1", 'id = "1"', 1), "front[0].id: expected a number from 1 to"),
        (GOOD.replace("id = 1", "id = 2147483648", 1), "front[0].id: expected a number from 1 to"),
        (GOOD.replace("http", "https"), "front[0].http"),
        (GOOD.replace("internal", "#"), "front[0].internal: missing"),
        (f"{GOOD}port = 3", "order[0].port: unknown key"),
        (GOOD.replace("50052", "none"), "order[0].grpc: expected HOST:PORT"),
        (GOOD.replace("50051", "65536"), "catalog[0].grpc: a port is a number from 1 to 65535"),
        (GOOD.replace("50051", "9" * 5000), "catalog[0].grpc: a port is a number from 1 to 65535"),
        (GOOD.replace(":8080", ":0"), "front[0].http: a port is a number from 1 to 65535"),
        (GOOD.replace("50055", "8080"), "front-1 internal: 127.0.0.1:8080 is also the address of"),
        (GOOD.replace("50052", "50051"), "order-1 grpc: 127.0.0.1:50051 is also the address of"),
        (
            f'{GOOD}[[order]]\nid = 1\ngrpc = "127.0.0.1:50053"',
            "order: id 1 appears twice",
        ),
        (f"limits = 3\n{GOOD}", "limits: expected a table"),
        (f"{GOOD}[limits]\ncache = 3", "limits.cache: unknown key"),
        (f"{GOOD}[limits]\ncache_size = -1", "cache_size: expected an integer from 0 up, got -1"),
        (f"{GOOD}[limits]\ncache_size = true", "limits.cache_size: expected an integer"),
        (f"{GOOD}[limits]\ncache_size = 10000001", "limits.cache_size: expected at most 10000000"),
        (f"{GOOD}[limits]\nmessage_bytes_max = 2147483648", "limits.message_bytes_max: expected"),
        (f"{GOOD}[limits]\ncache_size = 1.5", "limits.cache_size: expected an integer"),
        (f'{GOOD}[timings]\nelection_s = "1"', "timings.election_s: expected a number"),
        (f"{GOOD}[timings]\nelection = 1", "timings.election: unknown key"),
    ],
)
def test_every_error_names_its_key(text, words):
    """Whoever wrote the file is told which key is wrong, and why."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "number", ["nan", "inf", "-1.0", "-inf", f"1{400 * '0'}"], ids=lambda text: text[:5]
)
def test_a_duration_is_finite_and_not_negative(number):
    """No timer can be set to anything else."""
    with pytest.raises(ConfigError, match=r"timings\.election_s"):
        parse(f"{GOOD}[timings]\nelection_s = {number}")


@given(HOSTS, st.integers(1, 65535))
def test_an_address_reads_as_it_is_written(host, port):
    """IPv6 addresses stand in brackets."""
    assert parse_address(str(Address(host, port)), "x") == Address(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "host",
        "host:",
        "host:-1",
        "host:1x",
        "host:²",
        "[]:1",
        "http://host:1",
        " host:1",
        "ho\x00st:1",
    ],
)
def test_what_is_no_address_is_refused(text):
    """The error names where the text stood."""
    with pytest.raises(ConfigError, match=r"front\.http"):
        parse_address(text, "front.http")


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 64000), TEXT)
def test_the_default_cluster_is_a_good_one(fronts, catalogs, orders, base_port, name):
    """Whatever its size, no address is used twice and it can be written down."""
    cluster = default_cluster(
        Path("/data"),
        name,
        Address("127.0.0.1", 65000),
        base_port,
        fronts=fronts,
        catalogs=catalogs,
        orders=orders,
    )
    assert parse(render(cluster)) == cluster
    assert [front.id for front in cluster.fronts] == list(range(1, fronts + 1))


def test_the_default_cluster_must_find_ports():
    """Ports that would go past the last one are an error of the flag, not of the system."""
    with pytest.raises(ConfigError, match="base-port"):
        default_cluster(base_port=65530, orders=5)


def test_a_cluster_knows_its_members():
    """Members are found by group and id; an unknown one is a ConfigError that names it."""
    cluster = default_cluster(Path("/data"))
    assert cluster.replica("order", 2).grpc == Address("127.0.0.1", 50053)
    assert cluster.front(1).internal == Address("127.0.0.1", 50055)
    assert cluster.membership("order", 2) == Membership(2, (1, 2, 3))
    assert cluster.data_of("catalog", 1) == Path("/data/catalog-1")
    with pytest.raises(ConfigError, match="order-4 is not in the configuration"):
        cluster.replica("order", 4)
    with pytest.raises(ConfigError, match="front-2 is not in the configuration"):
        cluster.front(2)


@pytest.mark.parametrize("kind", [Limits, Timings])
def test_names_tell_the_unit(kind):
    """What ends in ``_s`` (seconds) or ``_fraction`` is a float, everything else an integer, and
    every default is above 0.
    """
    values = Limits() if kind is Limits else DEFAULT_TIMINGS
    for each in fields(kind):
        value = getattr(values, each.name)
        is_duration = each.name.endswith("_s") or each.name.endswith("_fraction")
        assert isinstance(value, float if is_duration else int), each.name
        assert value > 0, each.name


def test_segments_need_room_for_elections():
    """A log that could never take an order is refused in the configuration."""
    with pytest.raises(ConfigError, match=r"limits\.segment_bytes"):
        parse(f"{GOOD}[limits]\nsegment_bytes = 1048576")


def test_an_append_fits_into_a_segment():
    """A follower that could never take what it is sent would stay behind for ever."""
    least = f"{GOOD}[limits]\nsegment_bytes = 4194304\n[timings]\nappend_bytes_max = "
    assert parse(f"{least}1048576").timings.append_bytes_max == 1048576
    with pytest.raises(ConfigError, match=r"timings\.append_bytes_max: expected at most"):
        parse(f"{least}1048577")


CAN_DO_WITHOUT = """cache_size changes_max drain_s feed_subscribers_max feed_recent_trades
rpc_streams_max rpc_watches_max election_grace_s stagger_s jitter_s stable_s flap_window_s"""


@pytest.mark.parametrize("defaults", [Limits(), DEFAULT_TIMINGS])
def test_nothing_that_is_needed_can_be_switched_off(defaults) -> None:
    """With a wait of 0 s, or a limit of 0, a service would hang or do nothing. The settings that
    may be 0 are listed here.
    """
    table = "limits" if isinstance(defaults, Limits) else "timings"
    for name in (field.name for field in fields(defaults)):
        text = f"{GOOD}[{table}]\n{name} = 0"
        if name in CAN_DO_WITHOUT.split():
            assert getattr(getattr(parse(text), table), name) == 0
        else:
            with pytest.raises(ConfigError, match=rf"{table}\.{name}: expected an? \w+ above 0"):
                parse(text)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("[timings]\nappend_bytes_max = 2097152", r"append_bytes_max: 2097152 .* is 4194304$"),
        (
            "[timings]\nappend_entries_max = 4000\nappend_bytes_max = 2000000",
            r"append_bytes_max: 2000000 bytes in 4000 ",
        ),
        (
            "[limits]\nfetch_entries_max = 4000\n[timings]\nappend_bytes_max = 2000000",
            r"append_bytes_max: 2000000 bytes in 4000 ",
        ),
        ("[limits]\nmessage_bytes_max = 262144", r"append_bytes_max: 524288 .* is 262144$"),
        ("[limits]\nmessage_bytes_max = 1", r"append_bytes_max: 524288 .* is 1$"),
        ("[limits]\nbatch_orders_max = 2000", r"limits\.batch_orders_max: 2000 orders .* 2710000"),
        ("[limits]\npage_max = 2000", r"limits\.page_max: 2000 rows .* 2710000"),
    ],
)
def test_what_no_message_could_hold_is_refused(lines: str, words: str) -> None:
    """The log would stop at the first entry, or the list at the first page, that is too long."""
    with pytest.raises(ConfigError, match=words):
        parse(f"{GOOD}{lines}")


@pytest.mark.parametrize(
    "name", ["limits.batch_orders_max", "limits.fetch_entries_max", "timings.append_entries_max"]
)
def test_no_call_brings_more_than_every_member_takes(name: str) -> None:
    """Whatever the settings of the other members are at the moment."""
    table, key = name.split(".")
    wide = f"{GOOD}[limits]\nmessage_bytes_max = 16777216\n"
    wide += f"{key} = " if table == "limits" else f"[{table}]\n{key} = "
    assert getattr(getattr(parse(f"{wide}{CALL_ITEMS_MAX}"), table), key) == CALL_ITEMS_MAX
    with pytest.raises(ConfigError, match=rf"{name}: expected at most 4096"):
        parse(f"{wide}{CALL_ITEMS_MAX + 1}")


def test_what_is_sent_in_one_piece_may_fill_half_a_message() -> None:
    """The limit holds to the byte."""
    most = (Limits().message_bytes_max // 2) - 2000 * ENTRY_BYTES
    parse(f"{GOOD}[timings]\nappend_bytes_max = {most}")
    with pytest.raises(ConfigError, match="append_bytes_max"):
        parse(f"{GOOD}[timings]\nappend_bytes_max = {most + 1}")


LONGEST = Order("k" * 255, "\U0001f4c8" * 255, Side.SELL, QUANTITY_MAX)


def test_nothing_takes_more_of_a_message_than_is_counted() -> None:
    """Rows and entries with the largest possible contents are not encoded in more bytes than are
    counted for them.
    """
    trade = Trade(2**53, LONGEST, 2**53, PRICE_CENTS_MAX, 2**45)
    stock = Stock(LONGEST.name, PRICE_CENTS_MAX, *[QUANTITY_MAX] * 4, halted=True)
    change = StockChange(2**53, ChangeKind.RESTOCK, LONGEST.name, *[QUANTITY_MAX] * 4)
    rows = {
        "trade": lambda n: trading.synced_up(calls.SyncedUp((trade,) * n, True, whole=True)),
        "listed trade": lambda n: methods.LIST_ORDERS.encode_answer(calls.Orders((trade,) * n, 1)),
        "stock": lambda n: methods.LIST_STOCKS.encode_answer(calls.Stocks((stock,) * n, "")),
        "change": lambda n: methods.LIST_CHANGES.encode_answer(calls.Changes((change,) * n)),
        "batch": lambda n: encode_catalog_command(Batch(1, 1, 1, 1, 1, (LONGEST,) * n)),
        "record": lambda n: encode_order_record((trade,) * n),
    }
    for name, encode in rows.items():
        assert len(encode(101)) - len(encode(1)) <= 100 * ROW_BYTES, name
    for name in ("batch", "record"):  # a command may be as large as configured, and no larger
        assert len(rows[name](100)) <= 100 * ROW_BYTES, name
    entry = Entry(2**53, 2**53, EntryKind.COMMAND, b"x" * 2**20)
    [pb] = replicas.entries([entry])
    assert pb.ByteSize() + 8 - len(entry.payload) <= ENTRY_BYTES


def test_a_replica_is_not_out_of_reach_after_a_few_late_calls():
    """The leadership would move to and fro. The shortest time that is accepted is eight probes."""
    with pytest.raises(ConfigError, match=r"limits\.out_of_reach_s: expected at least 8 times"):
        parse(GOOD + "[limits]\nout_of_reach_s = 0.7\n")
    parse(GOOD + "[limits]\nout_of_reach_s = 0.8\n")


def test_a_follower_tells_often_enough_of_its_reach():
    """Followers tell with each heartbeat. If the time were shorter, a pause of all would look like
    a pause of the leader alone.
    """
    slow = GOOD + "[timings]\nelection_s = 1.5\nheartbeat_s = 0.4\n[limits]\nout_of_reach_s = "
    with pytest.raises(ConfigError, match=r"limits\.out_of_reach_s: expected at least 3 times"):
        parse(slow + "1.1\n")
    parse(slow + "1.2\n")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[timings]\nheartbeat_s = 0.3", r"timings\.heartbeat_s: expected less than election_s"),
        ("[timings]\nlease_fraction = 1.0", r"timings\.lease_fraction: expected less than 1"),
        ("[limits]\ncache_lease_s = 0.26", r"limits\.cache_lease_s: expected no more than"),
        ("[timings]\nlease_drain_s = 0.2", r"limits\.cache_lease_s: expected no more than"),
    ],
)
def test_leases_that_would_not_end_in_time_are_refused(line, words):
    """Two members could lead at once, or a cache could show what has been sold."""
    with pytest.raises(ConfigError, match=words):
        parse(f"{GOOD}{line}")


def test_the_administrator_s_token_is_named_in_one_way() -> None:
    """By a file beside the configuration, or as the token itself. Without either nobody may
    administer.
    """
    base = Path("/etc/twstock")
    assert parse(f'{GOOD}[admin]\ntoken_file = "t"\n', base).admin == Admin(base / "t")
    assert parse(f'{GOOD}[admin]\ntoken = "to-try-it"\n').admin == Admin(token="to-try-it")
    assert parse(f"{GOOD}[admin]\n").admin == parse(GOOD).admin == Admin()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("admin = 1\n" + GOOD, "admin: expected a table"),
        (GOOD + '[admin]\nfile = "t"', "admin.file: unknown key"),
        (GOOD + '[admin]\ntoken = ""', "admin.token: expected a text"),
        (GOOD + "[admin]\ntoken_file = 7", "admin.token_file: expected a text"),
        (GOOD + '[admin]\ntoken = "secret!!"', "admin.token: a token has 8 to 512"),
        (GOOD + '[admin]\ntoken = "12345678"\ntoken_file = "t"', "admin.token: expected no more"),
    ],
)
def test_what_is_wrong_with_the_administrator_s_token_is_named(text, words):
    """The error names the key and never shows the token."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value).startswith(words)
    assert "secret" not in str(caught.value)
