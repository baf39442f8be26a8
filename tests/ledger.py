"""Checks a history of the answers that clients got against the order log.

Pure, O(n log n). A history is a list of attempts to trade, several of which may carry the
same key, and a list of lookups. The promises have these names:

- S1 conservation: what is left of a stock is what its orders leave of it.
- S2 no quantity is ever negative.
- S3 durability: an acknowledged order is there, as it was placed.
- S4 transaction numbers are 1, 2, 3, ... in real time.
- S5 a key trades once, with the same answer each time.
- S6 what was refused has no effect.
- S7 fresh lookups: a trade that was acknowledged before is seen, and what was seen stays seen.
- S8 true lookups: what is seen was true after some order, and that order had been asked for.

Administrators may change stocks meanwhile. Each trade and change of a stock raises its version,
and each change says which version it made, so both together are one sequence:

- S1 shares that were added count as if there from the start.
- A1 nothing is traded between a halt and the next resume.
- A2 changes are numbered 1, 2, 3, ...; the change of a key is made once, as it was asked for, and
  answered with the same number each time; what was refused was not made.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from twstock.market import ChangeKind, StockChange
from twstock.verify import Line


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to trade and its outcome: ``ok`` with a number, ``refused``, or ``unknown``.

    ``started`` and ``ended`` are seconds of one clock; the end of an ``unknown`` one is not used.
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
    """One lookup of a stock and its answer."""

    name: str
    started: float
    ended: float
    version: int
    quantity: int
    halted: bool = False


@dataclass(frozen=True, slots=True)
class Administered:
    """One request to change a stock and its outcome, as in Attempt; ``version``: the stock's
    when it was answered.
    """

    key: str
    kind: str
    name: str
    quantity: int
    ended: float
    outcome: str
    number: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """A stock after one of its versions was made, by an order (its number) or a change (0)."""

    quantity: int
    halted: bool
    number: int


def steps(
    name: str,
    version: int,
    quantity: int,
    log: Iterable[Line],
    changes: Iterable[StockChange],
) -> tuple[list[Step], list[str]]:
    """A stock from ``version`` on, version by version, and violations of S1 and A1, in words."""
    made = {c.version: c for c in changes if c.name == name}
    lines = [line for line in log if line.name == name]
    found = [Step(quantity, False, 0)]
    wrong = []
    orders = iter(lines)
    for at in range(version + 1, version + 1 + len(lines) + len(made)):
        before, change = found[-1], made.pop(at, None)
        if change is not None:
            halted = change.kind is ChangeKind.HALT or (
                before.halted and change.kind is not ChangeKind.RESUME
            )
            found.append(Step(before.quantity + change.quantity, halted, 0))
            continue
        line = next(orders, None)
        if line is None:
            wrong.append(f"S1: {name} has no version {at}, and a later one")
            break
        if before.halted:
            wrong.append(f"A1: order {line.number} of {name} was traded while it was halted")
        sold = line.quantity * (1 if line.side == "sell" else -1)
        found.append(Step(before.quantity + sold, before.halted, line.number))
    return found, wrong


def check(
    attempts: Sequence[Attempt],
    log: Sequence[Line],
    initial: Mapping[str, int],
    final: Mapping[str, int],
    changes: Sequence[StockChange] = (),
    versions: Mapping[str, int] | None = None,
) -> list[str]:
    """Every violation, in words.

    ``log`` and ``changes`` hold the orders and the changes since the history began; ``initial`` and
    ``final`` the quantities of the stocks then, and now that trading is over; ``versions`` the
    versions then, where they were not 0. A stock that was added began with quantity 0.
    """
    by_key: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        by_key.setdefault(attempt.key, []).append(attempt)
    return [
        *_numbers(log),
        *_quantities(log, initial, final, changes, versions or {}),
        *_answers(by_key.values()),
        *_durable(attempts, log),
        *_explained(by_key.values(), log),
        *_real_time(by_key.values()),
    ]


def check_changes(told: Iterable[Administered], changes: Sequence[StockChange]) -> list[str]:
    """A2: every violation, in words; ``changes`` are all that the catalog has made."""
    found = [
        f"A2: change {change.number} is in place {place}"
        for place, change in enumerate(changes, 1)
        if change.number != place
    ]
    made = {change.number: (str(change.kind), change.name, change.quantity) for change in changes}
    keys: dict[int, set[str]] = {}
    numbers: dict[str, set[int]] = {}
    for one in told:
        if one.outcome == "ok":
            keys.setdefault(one.number, set()).add(one.key)
            if made.get(one.number) != (one.kind, one.name, one.quantity):
                found.append(f"A2: {one} is {made.get(one.number)}")
        if one.outcome != "unknown":
            numbers.setdefault(one.key, set()).add(one.number)
    found += [f"A2: change {n} has the keys {k}" for n, k in keys.items() if len(k) > 1]
    found += [f"A2: key {k} was told {n}" for k, n in numbers.items() if len(n) > 1]
    return found


def _numbers(log: Sequence[Line]) -> list[str]:
    """S4: the numbers of the log follow one another without a gap."""
    return [
        f"S4: order {after.number} follows order {before.number}"
        for before, after in pairwise(log)
        if after.number != before.number + 1
    ]


def _quantities(
    log: Sequence[Line],
    initial: Mapping[str, int],
    final: Mapping[str, int],
    changes: Sequence[StockChange],
    versions: Mapping[str, int],
) -> list[str]:
    """S1: what is left is what there was and was added minus what was bought plus what was sold.
    S2: it is never negative, after any order of the log. A1: none was halted then.
    """
    found = []
    names = initial.keys() | final.keys() | {line.name for line in log}
    for name in sorted(names | {change.name for change in changes}):
        begun, first = initial.get(name, 0), versions.get(name, 0)
        sequence, wrong = steps(name, first, begun, log, changes)
        found += wrong
        for step in sequence:
            if step.quantity < 0:
                found.append(f"S2: order {step.number} leaves {step.quantity} of {name}")
        left = sequence[-1].quantity
        if left != final.get(name):
            found.append(f"S1: {name} is {final.get(name)}, its orders make it {left}")
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
    """S5, S6: the log has no more orders that no client was told of than there are unknown
    outcomes.
    """
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
    changes: Sequence[StockChange] = (),
    told: Sequence[Administered] = (),
) -> list[str]:
    """S7 and S8: every violation, in words.

    ``log`` and ``changes`` hold the orders and the changes since the history began, ``initial``
    each stock's version and quantity then; stocks that are missing there were added meanwhile.
    ``told`` are the answers that administrators got.
    """
    began, ended = _times(attempts)
    lines = list(log)
    seen: dict[str, list[Look]] = {}
    for look in looks:
        seen.setdefault(look.name, []).append(look)
    found = []
    for name, of_stock in seen.items():
        first, quantity = initial.get(name, (0, 0))
        sequence, _ = steps(name, first, quantity, lines, changes)
        numbers = [step.number for step in sequence]
        acknowledged = [
            (ended[number], first + k) for k, number in enumerate(numbers) if number in ended
        ]
        acknowledged += [(o.ended, o.version) for o in told if (o.name, o.outcome) == (name, "ok")]
        found += _fresh(of_stock, acknowledged)
        starts = [began.get(number, 0.0) for number in numbers]
        found += _true(of_stock, first, sequence, starts)
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


def _fresh(looks: Sequence[Look], acknowledged: Iterable[tuple[float, int]]) -> list[str]:
    """A lookup shows what was acknowledged, or shown to anybody, before it began."""
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
    looks: Iterable[Look], first: int, sequence: Sequence[Step], starts: Sequence[float]
) -> list[str]:
    """S8: what a lookup shows was true after some order, which had been asked for by then."""
    found = []
    for look in looks:
        k = look.version - first
        step = sequence[k] if 0 <= k < len(sequence) else None
        if step is None or (step.quantity, step.halted) != (look.quantity, look.halted):
            found.append(f"S8: {look.name} never was {look.quantity} at version {look.version}")
        elif starts[k] > look.ended:
            found.append(f"S8: {look.name} {look.version} was shown before anybody asked for it")
    return found
