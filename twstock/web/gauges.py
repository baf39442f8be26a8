"""The metrics of a front-end: its requests, its cache, its queues, its connections."""

from collections.abc import Iterator

from twstock.tally import Family, counter, gauge
from twstock.web.cache import Cache
from twstock.web.http.site import ApiSite
from twstock.web.tiers import CatalogTier, OrderTier
from twstock.web.upstream.roster import Roster


def front_families(
    cache: Cache, catalog: CatalogTier, orders: OrderTier, site: ApiSite, roster: Roster, now: float
) -> Iterator[Family]:
    """All of them; ``now`` is a reading of CLOCK_BOOTTIME, by which the lease is judged."""
    yield from site.traffic.families()
    yield from _of_cache(cache, now)
    yield _one("twstock_orders_waiting", "Orders without an answer.", len(orders.queue))
    tiers = {"catalog": catalog, "order": orders}
    yield gauge(
        "twstock_reads_waiting",
        "Lookups, pages and queries that a group has not answered yet.",
        (({"group": group}, tier.asking) for group, tier in tiers.items()),
    )
    yield _one("twstock_connections", "Open connections of clients.", len(site.channels))
    ready = not roster.reasons()
    yield _one("twstock_front_ready", "Whether lookups and orders can be served.", ready)
    yield gauge(
        "twstock_known_leader",
        "The id of the leader that the front-end knows, 0 for none.",
        (
            ({"group": group}, tier.watch.leader.id if tier.watch.leader else 0)
            for group, tier in tiers.items()
        ),
    )


def _of_cache(cache: Cache, now: float) -> Iterator[Family]:
    counters = cache.counters
    yield _many("twstock_cache_hits_total", "Lookups answered from the cache.", counters.hits)
    yield _many("twstock_cache_misses_total", "Lookups asked of the catalog.", counters.misses)
    yield _many(
        "twstock_cache_evictions_total", "Stocks that made room for others.", counters.evictions
    )
    yield _many(
        "twstock_cache_invalidations_total",
        "Invalidations of stocks by the catalog.",
        counters.invalidations,
    )
    yield _one("twstock_cache_entries", "Stocks in the cache.", len(cache))
    yield _one("twstock_cache_size", "Stocks that the cache has room for.", cache.size)
    held = cache.holds_lease(now)
    yield _one("twstock_cache_lease_held", "Whether the cache may be used.", held)


def _one(name: str, text: str, value: float) -> Family:
    return gauge(name, text, [({}, int(value))])


def _many(name: str, text: str, value: int) -> Family:
    return counter(name, text, [({}, value)])
