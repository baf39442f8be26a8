"""Whole states as values that compare and hash: of the catalog, and of the leader's sessions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from twstock.catalog.changes import CatalogRows, KeyedChange
from twstock.catalog.sessions import Session, Sessions
from twstock.catalog.state import CatalogState
from twstock.market import Stock

T = TypeVar("T")


def rows_of(state: CatalogState) -> CatalogRows:
    """Everything that a catalog's state holds: a state that starts from it is the same."""
    remembered, administration = state._remembered, state._administration
    return CatalogRows(
        state.stocks(),
        tuple(remembered.kept.values()),
        tuple(remembered.refused.values()),
        state._fence,
        state._batch,
        remembered.recorded,
        remembered.last_number,
        state._last_at_ms,
        state._digest,
        tuple(KeyedChange(key, change) for key, change in administration._keys.items()),
        tuple(administration.refused.values()),
        state._bounds,
    )


@dataclass(frozen=True, slots=True)
class SessionsSnapshot:
    """All of the sessions' state except the ``lapsed`` ones. A session, also a ``deaf`` one, is its
    front-end's id and its fields.
    """

    opens_at: float
    is_open: bool
    sessions: tuple[tuple[Any, ...], ...]
    published: tuple[Stock, ...]
    pending: tuple[tuple[Stock, ...], ...]
    deaf: tuple[tuple[Any, ...], ...] = ()


def sessions_snapshot(of: Sessions) -> SessionsSnapshot:
    """The state of a leader's sessions."""
    pending = (tuple(stocks) for stocks in of._pending.values())
    return SessionsSnapshot(
        of._opens_at,
        of._is_open,
        _fields(of._sessions),
        tuple(sorted(of._published.values(), key=_name)),
        tuple(sorted(pending, key=lambda stocks: stocks[0].name)),
        _fields(of._deaf),
    )


def restored(made: Sessions, snapshot: SessionsSnapshot) -> Sessions:
    """New sessions, put into the state of ``snapshot``."""
    made._opens_at, made._is_open = snapshot.opens_at, snapshot.is_open
    made._sessions, made._deaf = _sessions(snapshot.sessions), _sessions(snapshot.deaf)
    made._published = {stock.name: stock for stock in snapshot.published}
    made._pending = {stocks[0].name: list(stocks) for stocks in snapshot.pending}
    return made


def _fields(sessions: Mapping[int, Session]) -> tuple[tuple[Any, ...], ...]:
    rows = (
        (f, s.name, s.url, s.lease_until, _sorted(s.held), _sorted(s.owed), _sorted(s.told))
        for f, s in sessions.items()
    )
    return tuple(sorted(rows))


def _sessions(rows: tuple[tuple[Any, ...], ...]) -> dict[int, Session]:
    return {
        front_id: Session(name, url, until, dict(held), dict(owed), dict(told))
        for front_id, name, url, until, held, owed, told in rows
    }


def _sorted(table: Mapping[str, T]) -> tuple[tuple[str, T], ...]:
    return tuple(sorted(table.items(), key=lambda item: item[0]))


def _name(stock: Stock) -> str:
    return stock.name
