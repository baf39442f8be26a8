"""Planted bugs outside the Raft core: the disk, the catalog, the order tier, the front-end."""

from tests.planted import Mutant

DISK = "twstock/replication/"
CATALOG = "twstock/catalog/"
ORDER = "twstock/order/"
WEB = "twstock/web/"

MUTANTS = (
    # The disk.
    Mutant(
        "a directory is believed without a flush",
        DISK + "disk.py",
        "        self.files.fdatasync(fd)\n        self.files.drop_cache(fd)\n",
        "        self.files.drop_cache(fd)\n",
        ("tests/test_storage_faults.py",),
    ),
    Mutant(
        "a log that ends below its mark is taken for torn",
        DISK + "recovery.py",
        "fault = self.fault or self._below_mark()",
        "fault = self.fault",
        ("tests/test_storage_damage.py",),
    ),
    Mutant(
        "a vote alone is not written",
        DISK + "storage.py",
        "        if hard_state != promise.hard_state:\n",
        "        if hard_state.term != promise.hard_state.term:\n",
        ("tests/test_storage.py",),
    ),
    Mutant(
        "a promise overwrites the one before",
        DISK + "meta.py",
        "1 - self._slot, False",
        "self._slot, False",
        ("tests/test_storage_faults.py",),
    ),
    # The member.
    Mutant(
        "an incarnation is learnt before the peer has one",
        DISK + "formation.py",
        "        if not status.incarnation:\n",
        "        if status.incarnation < 0:\n",
        ("tests/test_member.py",),
    ),
    Mutant(
        "a wiped member is let in",
        DISK + "formation.py",
        "        if status.knows_asker_as not in (0, me.incarnation):\n",
        "        if status.knows_asker_as < 0:\n",
        ("tests/test_member.py",),
    ),
    Mutant(
        "what must wait for the disk leaves at once",
        DISK + "driver.py",
        "        while self._held and self._held[0][0] <= self._written:\n",
        "        while self._held:\n",
        ("tests/test_member.py",),
    ),
    Mutant(
        "silence is taken for death",
        DISK + "transport.py",
        "        return all(isinstance(error, ConnectionRefusedError) for",
        "        return all(isinstance(error, OSError) for",
        ("tests/test_transport.py",),
    ),
    Mutant(
        "the channel is asked whether a peer is gone",
        DISK + "transport.py",
        "        self._threads.callInThreadWithCallback(\n"
        "            knocked, _refuses, self._addresses[peer], "
        "self._limits.control_deadline_s / 2\n"
        "        )\n",
        "        self.probe(peer, Probe()).addCallbacks(\n"
        "            lambda _: knocked(True, False), lambda f: knocked(True, 'refused' in str(f))\n"
        "        )\n",
        ("tests/test_transport.py",),
    ),
    # The catalog.
    Mutant(
        "keys are forgotten before the batch is decided",
        CATALOG + "state.py",
        "        outcomes = tuple(self._decide(order, draft) for order in batch.orders)\n",
        "        self._forget(batch.recorded)\n"
        "        outcomes = tuple(self._decide(order, draft) for order in batch.orders)\n",
        ("tests/test_exactly_once.py",),
    ),
    Mutant(
        "a batch out of turn executes",
        CATALOG + "state.py",
        "        if batch.number != self._batch.number + 1:\n",
        "        if batch.number == self._batch.number:\n",
        ("tests/test_catalog_state.py",),
    ),
    Mutant(
        "a late reader is not told of the trade that waits",
        CATALOG + "sessions.py",
        "            known.owe(waiting[-1], now)\n",
        "            pass\n",
        ("tests/test_cache_protocol.py",),
    ),
    Mutant(
        "a new catalog leader grants leases at once",
        CATALOG + "sessions.py",
        "        if not self._is_open or seconds <= 0:\n",
        "        if seconds <= 0:\n",
        ("tests/test_cache_protocol.py",),
    ),
    Mutant(
        "listed trades are not published",
        CATALOG + "service.py",
        "        await self._publish(trade.order.name for trade in listed.trades)\n",
        "",
        ("tests/test_catalog.py",),
    ),
    Mutant(
        "any answer counts as invalidated",
        CATALOG + "invalidation.py",
        "        if response.code != _OK:\n",
        "        if response.code >= 500:\n",
        ("tests/test_invalidation.py",),
    ),
    Mutant(
        "a full disk is tried at every heartbeat",
        DISK + "database.py",
        "        if self.full and now >= self._retry_at:\n",
        "        if self.full:\n",
        ("tests/test_database.py",),
    ),
    # The order tier.
    Mutant(
        "a batch is taken back in doubt",
        ORDER + "leading.py",
        "                if doubtful:\n                    raise\n",
        "",
        ("tests/test_leading.py",),
    ),
    Mutant(
        "a batch that was taken back has used its number",
        ORDER + "desk.py",
        "        self._batches -= 1\n",
        "",
        ("tests/test_desk.py",),
    ),
    Mutant(
        "what cannot be recorded is traded",
        ORDER + "service.py",
        "        self._member.check_room()\n",
        "",
        ("tests/test_order_service.py",),
    ),
    Mutant(
        "an open key goes out again",
        ORDER + "desk.py",
        "        if known is not None:\n",
        "        if known is not None and not known.same_body(order):\n",
        ("tests/test_desk.py",),
    ),
    Mutant(
        "a batch that was resent takes a new number",
        ORDER + "leading.py",
        "                return await self._market.execute(batch)\n",
        "                again = replace(batch, number=batch.number + doubtful)\n"
        "                return await self._market.execute(again)\n",
        ("tests/test_leading.py",),
    ),
    Mutant(
        "orders are taken before fence and list",
        ORDER + "leading.py",
        "        return not self._ended and not self.reason\n",
        "        return not self._ended\n",
        ("tests/test_leading.py",),
    ),
    Mutant(
        "what a lost leader sent is called without effect",
        ORDER + "leading.py",
        "            if self._desk.may_have_traded(key):\n",
        "            if False:\n",
        ("tests/test_leading.py",),
    ),
    Mutant(
        "a gap in the numbers is recorded",
        ORDER + "state.py",
        "        if trade.number != self.last_number + 1:\n",
        "        if trade.number <= self.last_number:\n",
        ("tests/test_order_service.py",),
    ),
    Mutant(
        "memory forgets what is not saved",
        ORDER + "state.py",
        " and self._first_recent <= self._saved_number:\n",
        ":\n",
        ("tests/test_order_service.py",),
    ),
    Mutant(
        "a follower denies an order",
        ORDER + "service.py",
        "        self._check_reads()\n        return None\n",
        "        return None\n",
        ("tests/test_order_service.py",),
    ),
    # The front-end.
    Mutant(
        "the lane takes a body that is too long",
        WEB + "lane.py",
        "        if length > self._body_bytes_max:\n            return None\n",
        "",
        ("tests/test_lane.py",),
    ),
    Mutant(
        "the lane overtakes the order before",
        WEB + "lane.py",
        "        if self._is_waiting:\n            self._held += data\n",
        "        if self._is_waiting and self._held:\n            self._held += data\n",
        ("tests/test_lane.py",),
    ),
    Mutant(
        "the lane takes two Content-Lengths",
        WEB + "lane.py",
        "        if name in _ONCE and name not in found:\n",
        "        if name in _ONCE:\n",
        ("tests/test_lane.py",),
    ),
    Mutant(
        "a lookup that waited behind a call is not woken",
        WEB + "gather.py",
        "                waiter.settle(answer)\n        self._pump()\n",
        "                waiter.settle(answer)\n",
        ("tests/test_gather.py",),
    ),
    Mutant(
        "answers go to other questions",
        WEB + "gather.py",
        "in zip(asked, answers, strict=True):",
        "in zip(asked, answers[::-1], strict=True):",
        ("tests/test_gather.py",),
    ),
    Mutant(
        "answers that do not match are given out",
        WEB + "gather.py",
        "        elif len(result) != len(asked):\n",
        "        elif len(result) < len(asked):\n",
        ("tests/test_gather.py",),
    ),
    Mutant(
        "a call ends with the first of its waiters",
        WEB + "gather.py",
        "        deadline = max(question.deadline for question in asked)\n",
        "        deadline = min(question.deadline for question in asked)\n",
        ("tests/test_gather.py",),
    ),
    Mutant(
        "lookups of two sessions share a call",
        WEB + "tiers.py",
        "self._gatherings.get(session) or",
        "next(iter(self._gatherings.values()), None) or",
        ("tests/test_lookups.py",),
    ),
    Mutant(
        "a session's lookups of many are not remembered",
        CATALOG + "service.py",
        "look_up(front_id, session, name, now) for name in request.names",
        "self._sessions.shown(name) for name in request.names",
        ("tests/test_catalog.py",),
    ),
    Mutant(
        "a ticket is taken when the answer comes",
        WEB + "api.py",
        "        self._cache.fill(ticket, stock)\n",
        "        self._cache.fill(ticket and self._cache.ticket(self._boottime()), stock)\n",
        ("tests/test_lookups.py",),
    ),
    Mutant(
        "a miss of the lane is not counted",
        WEB + "api.py",
        "        self._cache.missed()\n",
        "",
        ("tests/test_lane.py",),
    ),
    Mutant(
        "a stale fill is stored",
        WEB + "cache.py",
        "        if stock.version < self.minimum(stock.name):\n            return False\n",
        "",
        ("tests/test_cache.py",),
    ),
    Mutant(
        "a lapsed session keeps its cache",
        WEB + "cache.py",
        "        if fresh or not self.holds_lease(now):\n",
        "        if fresh:\n",
        ("tests/test_cache.py",),
    ),
    Mutant(
        "a doubt is forgotten",
        WEB + "orders.py",
        "        elif not definite:\n            pending.doubtful = True\n",
        "",
        ("tests/test_tiers.py",),
    ),
    Mutant(
        "an abandoned attempt leaves no doubt",
        WEB + "orders.py",
        "        for pending in attempt.orders:\n            pending.doubtful = True\n",
        "",
        ("tests/test_tiers.py",),
    ),
    Mutant(
        "after a lost answer the session goes on",
        WEB + "lease.py",
        "fresh = lease.fresh or self._broken or leader != self._holder",
        "fresh = lease.fresh",
        ("tests/test_lease.py",),
    ),
    Mutant(
        "a leader that is late is deposed",
        WEB + "leader.py",
        "member.timeouts = member.timeouts + 1 if late else _TIMEOUTS_MAX",
        "member.timeouts = _TIMEOUTS_MAX",
        ("tests/test_tiers.py",),
    ),
)
