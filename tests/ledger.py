"""Judges a history of what clients were told against the order log.

Pure, O(n log n). A history is a list of attempts to trade, several of which may carry the
same key, and a list of look-ups. The promises have these names:

- S1 conservation: what is left of a stock is what its orders make it.
- S2 no quantity is ever negative.
- S3 durability: an acknowledged order is there, as it was placed.
- S4 transaction numbers are 1, 2, 3, ... in real time.
- S5 a key trades once, with the same answer each time.
- S6 what was refused has no effect.
- S7 fresh look-ups: a trade that was acknowledged before is seen, and what was seen stays.
- S8 true look-ups: what is seen was so after some order, and that order had been asked for.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from twstock.verify import Line


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to trade and its outcome: ``ok`` with a number, ``refused``, or ``unknown``.

    ``started`` and ``ended`` are seconds of one clock; ``unknown`` has no end that counts.
    """

    key: str
    name: str
    side: str
    quantity: int
    started: float
    ended: float
    outcome: str
    number: int = 0

    @property
    def body(self) -> tuple[str, str, int]:
        """What the order log shows of it."""
        return self.name, self.side, self.quantity


@dataclass(frozen=True, slots=True)
class Look:
    """One look-up of a stock and its answer."""

    name: str
    started: float
    ended: float
    version: int
    quantity: int


def check(
    attempts: Sequence[Attempt],
    log: Sequence[Line],
    initial: Mapping[str, int],
    final: Mapping[str, int],
) -> list[str]:
    """Every violation, in words.

    ``log`` holds the orders since the history began, ``initial`` and ``final`` the quantities
    of the stocks then and, trading being over, now.
    """
    by_key: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        by_key.setdefault(attempt.key, []).append(attempt)
    return [
        *_numbers(log),
        *_quantities(log, initial, final),
        *_answers(by_key.values()),
        *_durable(attempts, log),
        *_explained(by_key.values(), log),
        *_real_time(by_key.values()),
    ]


def _numbers(log: Sequence[Line]) -> list[str]:
    """S4: the numbers of the log follow one another without a gap."""
    return [
        f"S4: order {after.number} follows order {before.number}"
        for before, after in pairwise(log)
        if after.number != before.number + 1
    ]


def _quantities(
    log: Sequence[Line], initial: Mapping[str, int], final: Mapping[str, int]
) -> list[str]:
    """S1: what is left is what there was minus what was bought plus what was sold.
    S2: it is never negative, at any order of the log.
    """
    found = []
    now = dict(initial)
    for line in log:
        now[line.name] = now.get(line.name, 0) + (
            line.quantity * (1 if line.side == "sell" else -1)
        )
        if now[line.name] < 0:
            found.append(f"S2: order {line.number} leaves {now[line.name]} of {line.name}")
    for name in sorted(now.keys() | final.keys()):
        if now.get(name) != final.get(name):
            found.append(f"S1: {name} is {final.get(name)}, its orders make it {now.get(name)}")
    return found


def _answers(groups: Collection[list[Attempt]]) -> list[str]:
    """S5: one key, one answer. S6: an order that was refused is not executed later."""
    found = []
    for group in groups:
        numbers = {a.number for a in group if a.outcome == "ok"}
        if len(numbers) > 1:
            found.append(f"S5: key {group[0].key} has the numbers {sorted(numbers)}")
        if numbers and any(a.outcome == "refused" for a in group):
            found.append(f"S6: key {group[0].key} was refused, and is order {min(numbers)}")
    keys: dict[int, set[str]] = {}
    for group in groups:
        for attempt in group:
            if attempt.outcome == "ok":
                keys.setdefault(attempt.number, set()).add(attempt.key)
    found += [f"S4: number {n} was given to {len(k)} keys" for n, k in keys.items() if len(k) > 1]
    return found


def _durable(attempts: Iterable[Attempt], log: Sequence[Line]) -> list[str]:
    """S3: every acknowledged order is in the log with the same fields."""
    lines = {line.number: line for line in log}
    found = []
    for attempt in attempts:
        if attempt.outcome != "ok":
            continue
        line = lines.get(attempt.number)
        if line is None:
            found.append(f"S3: acknowledged order {attempt.number} is lost")
        elif (line.name, line.side, line.quantity) != attempt.body:
            found.append(f"S3: order {attempt.number} was {attempt.body}, the log has ({line})")
    return found


def _explained(groups: Collection[list[Attempt]], log: Sequence[Line]) -> list[str]:
    """S5, S6: what nobody was told of is in the log once at most for each unknown outcome."""
    told = {a.number for group in groups for a in group if a.outcome == "ok"}
    unknown = Counter(g[0].body for g in groups if all(a.outcome == "unknown" for a in g))
    found = []
    for line in log:
        body = (line.name, line.side, line.quantity)
        if line.number in told:
            continue
        if unknown[body] == 0:
            found.append(f"S5: nobody asked for order ({line}), or asked for it once")
        unknown[body] -= 1
    return found


def _real_time(groups: Collection[list[Attempt]]) -> list[str]:
    """S4: an order that began after another was acknowledged has the larger number."""
    done = []
    for group in groups:
        answered = [a for a in group if a.outcome == "ok"]
        if answered:
            began = min(a.started for a in group)
            done.append((began, min(a.ended for a in answered), answered[0].number))
    ends = sorted((ended, number) for _, ended, number in done)
    found, highest, position = [], 0, 0
    for began, _, number in sorted(done):
        while position < len(ends) and ends[position][0] < began:
            highest = max(highest, ends[position][1])
            position += 1
        if number < highest:
            found.append(f"S4: order {number} began after order {highest} was acknowledged")
    return found


def check_looks(
    looks: Iterable[Look],
    attempts: Iterable[Attempt],
    log: Iterable[Line],
    initial: Mapping[str, tuple[int, int]],
) -> list[str]:
    """S7 and S8: every violation, in words.

    ``log`` holds the orders since the history began, ``initial`` version and quantity of each
    stock then. The orders of a stock count its versions up, one by one.
    """
    began, ended = _times(attempts)
    orders: dict[str, list[Line]] = {name: [] for name in initial}
    for line in log:
        orders[line.name].append(line)
    seen: dict[str, list[Look]] = {}
    for look in looks:
        seen.setdefault(look.name, []).append(look)
    found = []
    for name, of_stock in seen.items():
        numbers = [line.number for line in orders[name]]
        first, quantity = initial[name]
        acknowledged = [
            (ended[number], first + k) for k, number in enumerate(numbers, 1) if number in ended
        ]
        found += _fresh(of_stock, acknowledged)
        starts = [began.get(number, 0.0) for number in numbers]
        found += _true(of_stock, first, _after_each(quantity, orders[name]), starts)
    return found


def _times(attempts: Iterable[Attempt]) -> tuple[dict[int, float], dict[int, float]]:
    """When each acknowledged order was first asked for, and first acknowledged."""
    started: dict[str, float] = {}
    keys: dict[int, str] = {}
    ended: dict[int, float] = {}
    for attempt in attempts:
        key = attempt.key
        started[key] = min(attempt.started, started.get(key, attempt.started))
        if attempt.outcome == "ok":
            keys[attempt.number] = key
            ended[attempt.number] = min(attempt.ended, ended.get(attempt.number, attempt.ended))
    return {number: started[key] for number, key in keys.items()}, ended


def _after_each(quantity: int, lines: Iterable[Line]) -> list[int]:
    """The quantity at first and after each order."""
    quantities = [quantity]
    for line in lines:
        quantity += line.quantity if line.side == "sell" else -line.quantity
        quantities.append(quantity)
    return quantities


def _fresh(looks: Sequence[Look], acknowledged: Iterable[tuple[float, int]]) -> list[str]:
    """A look-up shows what was acknowledged, or shown to anybody, before it began."""
    told = sorted([*acknowledged, *((look.ended, look.version) for look in looks)])
    found, newest, position = [], 0, 0
    for look in sorted(looks, key=lambda look: look.started):
        while position < len(told) and told[position][0] < look.started:
            newest = max(newest, told[position][1])
            position += 1
        if look.version < newest:
            found.append(f"S7: {look.name} {look.version} was shown after {newest} was known")
    return found


def _true(
    looks: Iterable[Look], first: int, quantities: Sequence[int], starts: Sequence[float]
) -> list[str]:
    """What a look-up shows was so after an order that had been asked for by then."""
    found = []
    for look in looks:
        k = look.version - first
        if not 0 <= k < len(quantities) or quantities[k] != look.quantity:
            found.append(f"S8: {look.name} never was {look.quantity} at version {look.version}")
        elif k and starts[k - 1] > look.ended:
            found.append(f"S8: {look.name} {look.version} was shown before anybody asked for it")
    return found
