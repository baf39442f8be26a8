"""Do the tests notice? ``python -m tests.mutants`` plants one bug at a time and runs tests
that have to fail.

Each bug is an edit of one file in a copy of the repository. A bug that no test notices
survives, and makes the exit code 1; so does one whose text is not found exactly once, for
then the table is out of date. The core's
bugs are listed here, all others in ``tests/mutants_services.py``.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import mutants_client, mutants_services
from tests.planted import Mutant

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("twstock", "twisted", "tests", "deploy", "pyproject.toml")
TIME_LIMIT_S = 300


REPLICATION = "twstock/replication/"
ELECTION = ("tests/test_election.py",)
REPLICA = ("tests/test_replica.py",)
LEADERSHIP = ("tests/test_leadership.py",)
HAND_OVER = ("tests/test_hand_over.py",)
SIMULATION = ("tests/test_simulation.py",)
LOG = ("tests/test_log.py",)
SEALS = ("tests/test_seals.py",)
ARCHIVE = ("tests/test_archive.py",)
PRUNING = ("tests/test_pruning.py",)
SNAPSHOTS = ("tests/test_snapshots.py",)
REJOIN = ("tests/test_rejoin.py",)
LIVE_PEERS = ("tests/test_livepeers.py",)
MEMBER = ("tests/test_member.py",)

MUTANTS = (
    Mutant(
        "a vote is not persisted before the reply",
        REPLICATION + "replica.py",
        "            self._vote = request.source\n            self._writes.state_changed()\n",
        "            self._vote = request.source\n",
        ELECTION,
    ),
    Mutant(
        "a vote is not persisted before the reply (simulated)",
        REPLICATION + "replica.py",
        "            self._vote = request.source\n            self._writes.state_changed()\n",
        "            self._vote = request.source\n",
        SIMULATION,
    ),
    Mutant(
        "two votes in a term",
        REPLICATION + "replica.py",
        "is_free = self._vote in (0, request.source) and self._leader_id == 0",
        "is_free = self._leader_id == 0",
        ELECTION,
    ),
    Mutant(
        "two votes in a term (simulated)",
        REPLICATION + "replica.py",
        "is_free = self._vote in (0, request.source) and self._leader_id == 0",
        "is_free = True",
        SIMULATION,
    ),
    Mutant(
        "no up-to-date check",
        REPLICATION + "log.py",
        "return (self.last_term, self.last_index) <= (last_term, last_index)",
        "return True",
        ELECTION,
    ),
    Mutant(
        "no up-to-date check (simulated)",
        REPLICATION + "log.py",
        "return (self.last_term, self.last_index) <= (last_term, last_index)",
        "return True",
        SIMULATION,
    ),
    Mutant(
        "up to date means longer",
        REPLICATION + "log.py",
        "return (self.last_term, self.last_index) <= (last_term, last_index)",
        "return self.last_index <= last_index",
        SIMULATION,
    ),
    Mutant(
        "an old pre-vote is not answered",
        REPLICATION + "replica.py",
        "        granted = self._may_vote(request, now)\n",
        "        if request.term < self._term:\n            return\n"
        "        granted = self._may_vote(request, now)\n",
        ELECTION,
    ),
    Mutant(
        "an old pre-vote is answered with its own term",
        REPLICATION + "replica.py",
        "term = request.term if granted else self._term",
        "term = request.term",
        ELECTION,
    ),
    Mutant(
        "voters do not stay with their leader",
        REPLICATION + "election.py",
        "return now < self._loyal_until or now - self._heard_at < self._timings.election_s",
        "return now < self._loyal_until",
        ELECTION,
    ),
    Mutant(
        "voters do not stay with their leader (simulated)",
        REPLICATION + "election.py",
        "return now < self._loyal_until or now - self._heard_at < self._timings.election_s",
        "return now < self._loyal_until",
        SIMULATION,
    ),
    Mutant(
        "voters vote right after a restart",
        REPLICATION + "election.py",
        "return now < self._loyal_until or now - self._heard_at < self._timings.election_s",
        "return now - self._heard_at < self._timings.election_s",
        ELECTION,
    ),
    Mutant(
        "a leader that resigns forgets its leases",
        REPLICATION + "replica.py",
        "            self._timer.heard(self._membership.id, min(self._lead.contact_at, now))\n",
        "",
        ELECTION,
    ),
    Mutant(
        "a transfer is held up by loyalty",
        REPLICATION + "replica.py",
        "(not request.transfer and self._is_loyal(now))",
        "self._is_loyal(now)",
        ELECTION,
    ),
    Mutant(
        "a transfer starts with a pre-vote",
        REPLICATION + "replica.py",
        "self._campaign(now, pre_vote=False, transfer=True)",
        "self._campaign(now, pre_vote=True, transfer=True)",
        ELECTION,
    ),
    Mutant(
        "no staggered time-outs",
        REPLICATION + "election.py",
        "return before * self._timings.stagger_s",
        "return 0 * before * self._timings.stagger_s",
        ELECTION,
    ),
    Mutant(
        "stale news of a lost leader is believed",
        REPLICATION + "replica.py",
        " or term not in (None, self._term):",
        ":",
        ELECTION,
    ),
    Mutant(
        "the own vote counts before it is on disk",
        REPLICATION + "replica.py",
        "        elif self._writes.state_is_durable:\n            self._lead_term(now)\n",
        "        else:\n            self._lead_term(now)\n",
        LEADERSHIP,
    ),
    Mutant(
        "pre-votes void the votes of the present term",
        REPLICATION + "replica.py",
        "        if pre_vote:\n            self._timer.reset(now)\n",
        "        self._ballots.clear()\n        if pre_vote:\n            self._timer.reset(now)\n",
        ELECTION,
    ),
    Mutant(
        "a candidate's patience begins before its own vote is on disk",
        REPLICATION + "election.py",
        "        self.reset(now + patience_s)\n",
        "",
        SIMULATION,
    ),
    Mutant(
        "a candidate's patience takes no account of slow disks",
        REPLICATION + "election.py",
        "        self.reset(now + patience_s)\n",
        "        self.reset(now)\n",
        ELECTION,
    ),
    Mutant(
        "a disk that hung once is waited for as long again",
        REPLICATION + "election.py",
        "min(now - self._votes_since, SLOW_MAX * self._timings.election_s)",
        "now - self._votes_since",
        ELECTION,
    ),
    Mutant(
        "a term without a vote puts a campaign off",
        REPLICATION + "replica.py",
        "        if self._vote:\n            self._timer.voted(now)\n",
        "        self._timer.voted(now)\n",
        ELECTION,
    ),
    Mutant(
        "a majority is half",
        REPLICATION + "election.py",
        "return len(self.votes) >= membership.majority",
        "return 2 * len(self.votes) >= len(membership.members)",
        SIMULATION,
    ),
    Mutant(
        "a candidate keeps its votes when its log changes",
        REPLICATION + "replica.py",
        "            self._ballots.clear()  # votes were asked for with another log\n",
        "",
        REPLICA,
    ),
    Mutant(
        "a late duplicate truncates",
        REPLICATION + "log.py",
        "if entry.index > self.last_index or self.term_at(entry.index) != entry.term:",
        "if True:",
        REPLICA,
    ),
    Mutant(
        "a late duplicate truncates (simulated)",
        REPLICATION + "log.py",
        "if entry.index > self.last_index or self.term_at(entry.index) != entry.term:",
        "if entry.index > settled:",
        SIMULATION,
    ),
    Mutant(
        "a conflict is not replaced",
        REPLICATION + "log.py",
        "if entry.index > self.last_index or self.term_at(entry.index) != entry.term:",
        "if entry.index > self.last_index:",
        SIMULATION,
    ),
    Mutant(
        "the term before is not compared",
        REPLICATION + "log.py",
        "return 0 <= index <= self.last_index and self.term_at(index) == term",
        "return 0 <= index <= self.last_index",
        SIMULATION,
    ),
    Mutant(
        "an append is acknowledged before it is on disk",
        REPLICATION + "writes.py",
        "and message.index > self.durable_index:",
        "and message.index > self.durable_index + 10**9:",
        REPLICA,
    ),
    Mutant(
        "an append is acknowledged before it is on disk (simulated)",
        REPLICATION + "writes.py",
        "and message.index > self.durable_index:",
        "and message.index > self.durable_index + 10**9:",
        SIMULATION,
    ),
    Mutant(
        "messages leave before the term is on disk",
        REPLICATION + "writes.py",
        "            return False\n        return self.state_is_durable\n",
        "            return False\n        return True\n",
        REPLICA,
    ),
    Mutant(
        "a write claims what has been replaced",
        REPLICATION + "writes.py",
        "deque((write, min(claim, before)) for write, claim in self._claims)",
        "deque((write, claim) for write, claim in self._claims)",
        REPLICA,
    ),
    Mutant(
        "a write claims what has been replaced (simulated)",
        REPLICATION + "writes.py",
        "deque((write, min(claim, before)) for write, claim in self._claims)",
        "deque((write, claim) for write, claim in self._claims)",
        SIMULATION,
    ),
    Mutant(
        "what is replaced stays durable (simulated)",
        REPLICATION + "writes.py",
        "            self.durable_index = min(self.durable_index, before)\n",
        "",
        SIMULATION,
    ),
    Mutant(
        "entries are applied before they are durable",
        REPLICATION + "replica.py",
        "last = min(self.commit, self._writes.durable_index)",
        "last = self.commit",
        REPLICA,
    ),
    Mutant(
        "a heartbeat commits more than it matches",
        REPLICATION + "replica.py",
        "self._learn_commit(min(request.commit, request.prev_index + len(request.entries)))",
        "self._learn_commit(min(request.commit, self.last_index))",
        SIMULATION,
    ),
    Mutant(
        "entries leave memory before they are durable",
        REPLICATION + "replica.py",
        "self._log.forget(self._handed_out)",
        "self._log.forget(self.commit)",
        LOG,
    ),
    Mutant(
        "entries leave memory before they are committed",
        REPLICATION + "replica.py",
        "self._log.forget(self._handed_out)",
        "self._log.forget(self._writes.durable_index)",
        LOG,
    ),
    Mutant(
        "what is handed out from disk may not be committed",
        REPLICATION + "replica.py",
        "(e for e in self._log.slice(first, *sizes) if e.index <= last)",
        "(e for e in self._log.slice(first, *sizes))",
        LOG,
    ),
    Mutant(
        "a replaced entry's term stays",
        REPLICATION + "log.py",
        "        del self._run_starts[run:], self._run_terms[run:]\n",
        "",
        LOG,
    ),
    Mutant(
        "the window stays where it was when entries before it are replaced",
        REPLICATION + "log.py",
        "        self._start = min(self._start, first)\n",
        "",
        LOG,
    ),
    Mutant(
        "a seal is believed without a look at the segment",
        REPLICATION + "segments.py",
        "return seal if checksum == seal.checksum else None",
        "return seal",
        SEALS,
    ),
    Mutant(
        "a seal is believed that is older than its segment",
        REPLICATION + "seals.py",
        "return own and joined and not",
        "return own and not",
        SEALS,
    ),
    Mutant(
        "a mark in a sealed segment is not compared",
        REPLICATION + "seals.py",
        "not (marked and mark != self.end)",
        "True",
        SEALS,
    ),
    Mutant(
        "what a majority has is taken for what every member has (simulated)",
        REPLICATION + "leadership.py",
        "return min(self._watermarks.commit, *held)",
        "return min(self._watermarks.commit, sorted(held)[len(held) // 2])",
        SIMULATION,
    ),
    Mutant(
        "entries that a leader has not on its own disk count as everybody's",
        REPLICATION + "leadership.py",
        "held = [durable_index, *(progress.match for progress in self.followers.values())]\n"
        "        return min(",
        "held = [2**62, *(progress.match for progress in self.followers.values())]\n"
        "        return min(",
        LEADERSHIP,
    ),
    Mutant(
        "what every member has need not be committed",
        REPLICATION + "leadership.py",
        "return min(self._watermarks.commit, *held)",
        "return min(held)",
        LEADERSHIP,
    ),
    Mutant(
        "followers are not told what every member has",
        REPLICATION + "leadership.py",
        "            everywhere=self._watermarks.everywhere,\n",
        "",
        PRUNING,
    ),
    Mutant(
        "a follower is sent what was dropped",
        REPLICATION + "leadership.py",
        "return self._log.first_index <= index <= self._log.last_index",
        "return index <= self._log.last_index",
        PRUNING,
    ),
    Mutant(
        "what a single snapshot stands in for is dropped",
        REPLICATION + "snapshots.py",
        "return indices[0] if len(indices) == KEPT and",
        "return indices[-1] if indices and",
        SNAPSHOTS,
    ),
    Mutant(
        "a damaged snapshot is used",
        REPLICATION + "snapshots.py",
        "if snapshot is not None and snapshot.is_intact():",
        "if snapshot is not None:",
        SNAPSHOTS,
    ),
    Mutant(
        "a snapshot of another place in the log is used",
        REPLICATION + "snapshots.py",
        "snapshot if snapshot is not None and snapshot.index == index else None",
        "snapshot",
        SNAPSHOTS,
    ),
    Mutant(
        "a snapshot of another cluster is used",
        REPLICATION + "snapshots.py",
        "(magic, version, whose, state_bytes + runs_bytes) != (_MAGIC, FORMAT, cluster, at)",
        "(magic, version, state_bytes + runs_bytes) != (_MAGIC, FORMAT, at)",
        SNAPSHOTS,
    ),
    Mutant(
        "a snapshot is flushed at once",
        REPLICATION + "snapshots.py",
        "                os.fdatasync(file.fileno())\n",
        "",
        SNAPSHOTS,
    ),
    Mutant(
        "SQLite flushes a snapshot at once",
        REPLICATION + "snapshots.py",
        "PRAGMA synchronous=OFF",
        "PRAGMA synchronous=NORMAL",
        SNAPSHOTS,
    ),
    Mutant(
        "all snapshots are kept",
        REPLICATION + "snapshots.py",
        "self.indices()[:-KEPT]",
        "()",
        SNAPSHOTS,
    ),
    Mutant(
        "a snapshot that a quota refuses ends the process",
        REPLICATION + "database.py",
        "            if not (isinstance(error, OSError) and is_full(error)):\n"
        "                self._has_undone(connection, error)\n"
        "            snapshots.clear()",
        "            snapshots.clear()\n"
        "            if not (isinstance(error, OSError) and is_full(error)):\n"
        "                self._has_undone(connection, error)\n"
        "            pass",
        SNAPSHOTS,
    ),
    Mutant(
        "a disk that takes no more files ends the process",
        REPLICATION + "database.py",
        '        sqlite3.SQLITE_CANTOPEN,\n    }\n)  # fmt: skip\n"""How',
        '    }\n)  # fmt: skip\n"""How',
        SNAPSHOTS,
    ),
    Mutant(
        "a part of a snapshot stays",
        REPLICATION + "database.py",
        "            snapshots.clear()",
        "            pass",
        SNAPSHOTS,
    ),
    Mutant(
        "a snapshot is made of wrong rows",
        REPLICATION + "database.py",
        "                check_rows(connection, self._rest)  #",
        "                #",
        SNAPSHOTS,
    ),
    Mutant(
        "a snapshot is made of what is left of a table",
        "twstock/rows.py",
        '    if found != "ok":\n        raise CorruptTables(found)\n    for (table,)',
        "    for (table,)",
        SNAPSHOTS,
    ),
    Mutant(
        "a snapshot is made at a wrong place",
        REPLICATION + "database.py",
        "                position, _ = self._read_applied(connection)\n",
        '                (position,) = connection.execute("SELECT max(position) FROM applied"'
        ").fetchone()\n",
        SNAPSHOTS,
    ),
    Mutant(
        "what SQLite left of the old tables is added to a snapshot",
        REPLICATION + "snapshots.py",
        'for old in (target.name, target.name + "-wal", target.name + "-shm"):',
        "for old in (target.name,):",
        SNAPSHOTS,
    ),
    Mutant(
        "a full disk at the start is a bug",
        REPLICATION + "database.py",
        "    except OSError as error:\n        raise StorageUnavailable",
        "    except ZeroDivisionError as error:\n        raise StorageUnavailable",
        SNAPSHOTS,
    ),
    Mutant(
        "tables that are behind a snapshot are kept",
        REPLICATION + "database.py",
        "default=0) > self.saved_index",
        "default=0) > self.saved_index == 0",
        SNAPSHOTS,
    ),
    Mutant(
        "tables that are ahead of a snapshot are replaced",
        REPLICATION + "database.py",
        "if snapshot is not None and snapshot.index > self.saved_index:",
        "if snapshot is not None:",
        SNAPSHOTS,
    ),
    Mutant(
        "a log that begins after the tables end is opened",
        REPLICATION + "member.py",
        "if applied < loaded.log.first_index - 1:",
        "if False:",
        PRUNING,
    ),
    Mutant(
        "entries leave the log that not every member has",
        REPLICATION + "pruning.py",
        "if log.first_index <= index <= self._replica.everywhere:",
        "if log.first_index <= index:",
        PRUNING,
    ),
    Mutant(
        "a segment is dropped that has a later entry",
        REPLICATION + "segments.py",
        "lambda end: end.last_index <= index",
        "lambda end: end.last_index <= index + 1",
        PRUNING,
    ),
    Mutant(
        "segments go before it is durable what they were",
        REPLICATION + "segments.py",
        "        if not self._directory.make_optional(DROPPED, encode_dropped(dropped)):\n"
        "            return False\n"
        "        self._dropped = dropped\n",
        "        self._directory.unlink_segments(end.segment)\n"
        "        if not self._directory.make_optional(DROPPED, encode_dropped(dropped)):\n"
        "            return False\n"
        "        self._dropped = dropped\n",
        PRUNING,
    ),
    Mutant(
        "what a full disk refused to drop is told twice",
        REPLICATION + "segments.py",
        "        if not self._directory.make_optional(DROPPED, encode_dropped(dropped)):\n"
        "            return False\n"
        "        self._dropped = dropped\n",
        "        self._dropped = dropped\n"
        "        if not self._directory.make_optional(DROPPED, encode_dropped(dropped)):\n"
        "            return False\n",
        PRUNING,
    ),
    Mutant(
        "nothing is dropped under constant load",
        REPLICATION + "storage.py",
        "            self._log.drop(self._released)\n",
        "",
        PRUNING,
    ),
    Mutant(
        "a snapshot that a full disk refused is tried at every tick",
        REPLICATION + "pruning.py",
        "self._tried_at, self._is_making = ended, True",
        "self._is_making = True",
        PRUNING,
    ),
    Mutant(
        "entries that leave the disk can still be asked for",
        REPLICATION + "pruning.py",
        "            log.release(index)\n",
        "",
        PRUNING,
    ),
    Mutant(
        "nobody hears why no more snapshots are made",
        REPLICATION + "pruning.py",
        "lambda failure: failure.trap(Unavailable)",
        "lambda failure: None",
        PRUNING,
    ),
    Mutant(
        "a snapshot goes before the next one is there",
        REPLICATION + "snapshots.py",
        "        snapshot = self._finish(index, up_to(runs, index))\n"
        "        for old in self.indices()[:-KEPT]:\n"
        "            (self._directory / name(old)).unlink()\n",
        "        for old in self.indices()[: 1 - KEPT]:\n"
        "            (self._directory / name(old)).unlink()\n"
        "        snapshot = self._finish(index, up_to(runs, index))\n",
        SNAPSHOTS,
    ),
    Mutant(
        "a snapshot gets its name before its hash is on disk",
        REPLICATION + "snapshots.py",
        "            file.flush()\n            os.fsync(file.fileno())\n",
        "",
        SNAPSHOTS,
    ),
    Mutant(
        "the log is cut before the name of its snapshot is on disk",
        REPLICATION + "snapshots.py",
        "        flush_path(self._directory)\n",
        "",
        SNAPSHOTS,
    ),
    Mutant(
        "tables made of a snapshot get their name before they are on disk",
        REPLICATION + "snapshots.py",
        "            copy.flush()\n            os.fsync(copy.fileno())\n",
        "",
        SNAPSHOTS,
    ),
    Mutant(
        "what SQLite left of the old tables goes after the new ones are there",
        REPLICATION + "snapshots.py",
        '        for old in (target.name, target.name + "-wal", target.name + "-shm"):\n'
        "            target.with_name(old).unlink(missing_ok=True)\n"
        "        flush_path(target.parent)\n"
        "        unfinished.rename(target)\n",
        "        unfinished.rename(target)\n"
        '        for old in (target.name + "-wal", target.name + "-shm"):\n'
        "            target.with_name(old).unlink(missing_ok=True)\n",
        SNAPSHOTS,
    ),
    Mutant(
        "a spare that is begun again has a hole",
        REPLICATION + "spares.py",
        "        self._filled = 0\n        self._number += 1",
        "        self._number += 1",
        ("tests/test_storage.py",),
    ),
    Mutant(
        "a new spare takes the name of one that was adopted",
        REPLICATION + "spares.py",
        "self._number = max(self._number, int(number))",
        "self._number = int(number)",
        ("tests/test_storage.py",),
    ),
    Mutant(
        "a segment that is written to is taken for one that has ended",
        REPLICATION + "segments.py",
        "return self._ends[-1].last_index if self._ends else 0",
        "return self._position.last_index if self._ends else 0",
        PRUNING,
    ),
    Mutant(
        "hundreds of segments are dropped at once",
        REPLICATION + "segments.py",
        "ends = list(islice(old, DROPPED_MAX))",
        "ends = list(old)",
        PRUNING,
    ),
    Mutant(
        "the rest of many segments is dropped some other time",
        REPLICATION + "storage.py",
        "return Upkeep.GOES_ON if has_more else left",
        "return left",
        PRUNING,
    ),
    Mutant(
        "a seal stays when a crash comes while its segment is dropped",
        REPLICATION + "disk.py",
        "                    self.unlink(seal_name(number))\n                self.unlink(name)\n",
        "                    pass\n"
        "                self.unlink(name)\n"
        "                if seal_name(number) in names:\n"
        "                    self.unlink(seal_name(number))\n",
        PRUNING,
    ),
    Mutant(
        "what a full disk refused stays open",
        REPLICATION + "disk.py",
        "            finally:\n                self.close_file(fd)\n            if whole:\n",
        "            finally:\n                pass\n            if whole:\n",
        PRUNING,
    ),
    Mutant(
        "the terms of what was dropped before are forgotten",
        REPLICATION + "segments.py",
        "*(self._dropped.runs if self._dropped else ())",
        "*()",
        PRUNING,
    ),
    Mutant(
        "what was dropped is not compared with what is left",
        REPLICATION + "recovery.py",
        "        self._reach(dropped.end)\n",
        "        self.position = None\n",
        PRUNING,
    ),
    Mutant(
        "a mark from before the dropping stops the start",
        REPLICATION + "recovery.py",
        "if self.mark is None or self.mark[:2] < dropped.end[:2]:",
        "if self.mark is None:",
        PRUNING,
    ),
    Mutant(
        "another log's beginning is believed",
        REPLICATION + "storage.py",
        "if dropped is None or dropped.identity != self._meta.identity:",
        "if dropped is None:",
        PRUNING,
    ),
    Mutant(
        "segments that come back after a crash stay",
        REPLICATION + "storage.py",
        "            self._directory.unlink_segments(dropped.end.segment)\n            segments",
        "            segments",
        PRUNING,
    ),
    Mutant(
        "damage in what was dropped is not seen",
        REPLICATION + "compaction.py",
        "if len(body) < _HEAD.size or _digest(body) != digest:",
        "if len(body) < _HEAD.size:",
        PRUNING,
    ),
    Mutant(
        "who asks for a dropped entry gets those after it",
        REPLICATION + "log.py",
        "if first < self._first and first <= last:",
        "if False:",
        PRUNING,
    ),
    Mutant(
        "an entry is read back without its checksum",
        REPLICATION + "records.py",
        "if crc32(body, length) != crc or its_term",
        "if its_term",
        ARCHIVE,
    ),
    Mutant(
        "places of replaced entries stay",
        REPLICATION + "places.py",
        "if self._firsts and place.first <= self._firsts[-1]:",
        "if False:",
        ARCHIVE,
    ),
    Mutant(
        "a pull does not raise the term",
        REPLICATION + "replica.py",
        "        term = max(pulled.term, settled[-1].term)\n",
        "        term = self._term\n",
        REPLICA,
    ),
    Mutant(
        "older terms are committed by counting",
        REPLICATION + "replica.py",
        "if index > self.commit and self._log.term_at(index) == self._term:",
        "if index > self.commit:",
        LEADERSHIP,
    ),
    Mutant(
        "no no-op at the start of a term",
        REPLICATION + "replica.py",
        '        self._log.extend(self._term, EntryKind.NOOP, [b""])\n',
        "",
        LEADERSHIP,
    ),
    Mutant(
        "the own copy counts before it is on disk",
        REPLICATION + "replica.py",
        "index = lead.quorum_index(self._writes.durable_index)",
        "index = lead.quorum_index(self._log.last_index)",
        LEADERSHIP,
    ),
    Mutant(
        "the own copy counts before it is on disk (simulated)",
        REPLICATION + "replica.py",
        "index = lead.quorum_index(self._writes.durable_index)",
        "index = lead.quorum_index(self._log.last_index)",
        SIMULATION,
    ),
    Mutant(
        "an old answer starts a second chain",
        REPLICATION + "progress.py",
        "        elif known:\n            self._rejected(reply)\n",
        "        else:\n            self._rejected(reply)\n",
        LEADERSHIP,
    ),
    Mutant(
        "an old answer moves a follower back",
        REPLICATION + "progress.py",
        "self.match = max(self.match, index)",
        "self.match = index",
        LEADERSHIP,
    ),
    Mutant(
        "a broken promise starts a storm",
        REPLICATION + "progress.py",
        "        if reply.index > self.match:\n",
        "        if True:\n",
        LEADERSHIP,
    ),
    Mutant(
        "a lost append is never sent again",
        REPLICATION + "replica.py",
        "        lead.expire(now)\n",
        "",
        LEADERSHIP,
    ),
    Mutant(
        "no window",
        REPLICATION + "progress.py",
        "and len(self._flights) < window",
        "and len(self._flights) <= window + 99",
        LEADERSHIP,
    ),
    Mutant(
        "a leader without a majority stays",
        REPLICATION + "leadership.py",
        "return now - max(self._since, self.contact_at) > 2 * self._timings.election_s",
        "return False",
        LEADERSHIP,
    ),
    Mutant(
        "a lease counts from the answer",
        REPLICATION + "progress.py",
        "self.answered_at = reply.sent_at",
        "self.answered_at = now",
        LEADERSHIP,
    ),
    Mutant(
        "a lease counts from the answer (simulated)",
        REPLICATION + "progress.py",
        "self.answered_at = reply.sent_at",
        "self.answered_at = now",
        ("tests/test_simulation.py::test_an_answer_that_comes_late_makes_no_lease_longer",),
    ),
    Mutant(
        "a lease needs one answer, not a majority's",
        REPLICATION + "leadership.py",
        "return answered[needed - 1]",
        "return answered[0]",
        LEADERSHIP,
    ),
    Mutant(
        "a lease before the no-op is committed",
        REPLICATION + "standing.py",
        "lead.hand_over is not None or self.commit < lead.first_index:",
        "lead.hand_over is not None:",
        LEADERSHIP,
    ),
    Mutant(
        "a lease during a hand-over",
        REPLICATION + "standing.py",
        "if lead is None or lead.hand_over is not None or self.commit",
        "if lead is None or self.commit",
        HAND_OVER,
    ),
    Mutant(
        "leases are not waited out",
        REPLICATION + "leadership.py",
        "elif now >= hand_over.drained_at and commit",
        "elif commit",
        HAND_OVER,
    ),
    Mutant(
        "leases are not waited out (simulated)",
        REPLICATION + "leadership.py",
        "elif now >= hand_over.drained_at and commit",
        "elif commit",
        SIMULATION,
    ),
    Mutant(
        "proposals go on during a hand-over",
        REPLICATION + "replica.py",
        "        if lead is None or lead.hand_over is not None:\n            raise",
        "        if lead is None:\n            raise",
        HAND_OVER,
    ),
    Mutant(
        "a hand-over never gives up",
        REPLICATION + "leadership.py",
        "if now >= hand_over.gives_up_at or not target",
        "if not target",
        HAND_OVER,
    ),
    Mutant(
        "a hand-over does not wait for the target",
        REPLICATION + "leadership.py",
        "elif now >= hand_over.drained_at and commit == target.applied == last:",
        "elif now >= hand_over.drained_at and commit == last:",
        HAND_OVER,
    ),
    Mutant(
        "a follower that was away is sent the whole log",
        REPLICATION + "progress.py",
        "self._probe_after(max(self.match, begun))",
        "self._probe_after(self.match)",
        LEADERSHIP,
    ),
    Mutant(
        "of streamed appends that are lost only the last is sent again",
        REPLICATION + "progress.py",
        "begun = self._flights[0].prev_index if self._flights else self.next - 1",
        "begun = self.next - 1",
        LEADERSHIP,
    ),
    Mutant(
        "each tick begins a new term while the vote is on its way to disk",
        REPLICATION + "replica.py",
        "self._could_serve) and self._writes.state_is_durable:",
        "self._could_serve):",
        ("tests/test_member.py",),
    ),
    Mutant(
        "a hand-over to a member without tables",
        REPLICATION + "progress.py",
        "and has_log and has_tables and",
        "and has_log and",
        HAND_OVER,
    ),
    Mutant(
        "a hand-over to a member whose disk is full",
        REPLICATION + "progress.py",
        "has_tables and self._takes_commands",
        "has_tables",
        HAND_OVER,
    ),
    Mutant(
        "a hand-over does not wait until its target has applied the log",
        REPLICATION + "leadership.py",
        "commit == target.applied == last:",
        "commit == target.match == last:",
        HAND_OVER,
    ),
    Mutant(
        "an old answer tells how far a follower is",
        REPLICATION + "progress.py",
        "if reply.sent_at >= self.answered_at:",
        "if True:",
        HAND_OVER,
    ),
    Mutant(
        "who could not serve campaigns first",
        REPLICATION + "election.py",
        "if others and not could_serve:",
        "if False:",
        ELECTION,
    ),
    Mutant(
        "a single replica waits for others",
        REPLICATION + "election.py",
        "if others and not could_serve:",
        "if not could_serve:",
        ELECTION,
    ),
    Mutant(
        "a replica without tables seems to be able to serve",
        REPLICATION + "standing.py",
        "return self._takes_commands and unapplied",
        "return self._takes_commands or unapplied",
        ELECTION,
    ),
    Mutant(
        "nobody tells a replica that its disk is full",
        REPLICATION + "participant.py",
        "        replica.set_takes_commands(takes_commands(writer.room_bytes) and not hangs)\n",
        "",
        ("tests/test_member.py",),
    ),
    Mutant(
        "a hand-over gives up before the leases are over",
        REPLICATION + "leadership.py",
        "HandOver(target, drained_at, drained_at + 3",
        "HandOver(target, drained_at, now + 3",
        HAND_OVER,
    ),
    Mutant(
        "a full follower is sent everything again for each heartbeat",
        REPLICATION + "progress.py",
        "        if reply.takes_commands:\n            self._quiet_until = -inf\n",
        "        self._quiet_until = -inf\n",
        LEADERSHIP,
    ),
    Mutant(
        "a single member gives up the lead that nobody can take",
        REPLICATION + "participant.py",
        "if replica.role is Role.LEADER and hangs and others:",
        "if replica.role is Role.LEADER and hangs:",
        ("tests/test_member.py",),
    ),
    Mutant(
        "a disk that finishes flushes hangs",
        REPLICATION + "writer.py",
        "        if flushes != self._flushes:\n",
        "        if False:\n",
        ("tests/test_writer.py",),
    ),
    Mutant(
        "a follower whose disk hangs says that it takes commands",
        REPLICATION + "participant.py",
        "takes_commands(writer.room_bytes) and not hangs",
        "takes_commands(writer.room_bytes)",
        ("tests/test_member.py",),
    ),
    Mutant(
        "no flap guard",
        REPLICATION + "election.py",
        "self._timings.stable_s * 2**doublings",
        "self._timings.stable_s",
        HAND_OVER,
    ),
    Mutant(
        "a leader of no use waits as long as any other",
        REPLICATION + "election.py",
        "doublings = 0 if is_urgent else len(self._hand_overs)",
        "doublings = len(self._hand_overs)",
        HAND_OVER,
    ),
    Mutant(
        "a leader of no use stays",
        REPLICATION + "leadership.py",
        "        is_lost = reach is Reach.LOST\n",
        "        is_lost = False\n",
        HAND_OVER,
    ),
    Mutant(
        "a leader of no use gives way to anybody",
        REPLICATION + "leadership.py",
        "other is Reach.GOOD or other is own is Reach.UNSURE",
        "other is not Reach.LOST or own is Reach.LOST",
        HAND_OVER,
    ),
    Mutant(
        "the lead goes to a higher id that is of no use",
        REPLICATION + "leadership.py",
        " or other is own is Reach.UNSURE",
        " or own is Reach.UNSURE",
        HAND_OVER,
    ),
    Mutant(
        "the lead goes to a higher id that may be of no use",
        REPLICATION + "leadership.py",
        " or other is own is Reach.UNSURE",
        " or other is Reach.UNSURE",
        HAND_OVER,
    ),
    Mutant(
        "the lead goes to a higher id that no front-end has called",
        REPLICATION + "leadership.py",
        "        return unheard\n",
        "        return True\n",
        ("tests/test_reach.py", *HAND_OVER),
    ),
    Mutant(
        "without front-ends the highest id gets the lead no more",
        REPLICATION + "leadership.py",
        "        return unheard\n",
        "        return False\n",
        ("tests/test_reach.py", *HAND_OVER),
    ),
    Mutant(
        "a leader that lost the catalog does not know that there are no front-ends",
        REPLICATION + "participant.py",
        ", unheard=contacts.unheard)",
        ")",
        ("tests/test_reach.py",),
    ),
    Mutant(
        "a leader that no front-end has called keeps the lead",
        REPLICATION + "leadership.py",
        "(peer > above or (reach is Reach.UNHEARD and progress.reach is Reach.GOOD))",
        "peer > above",
        ("tests/test_reach.py", *HAND_OVER),
    ),
    Mutant(
        "a replica that stood still misses whoever called meanwhile",
        REPLICATION + "reach.py",
        "        if paused_s > 0:\n",
        "        if paused_s > inf:\n",
        ("tests/test_reach.py",),
    ),
    Mutant(
        "standing still proves a contact",
        REPLICATION + "reach.py",
        "            self._since += excused_s\n",
        "",
        ("tests/test_reach.py",),
    ),
    Mutant(
        "a leader that stops tells that nobody calls it",
        REPLICATION + "participant.py",
        "        if not self._stopping:  # nobody",
        "        if True:  # nobody",
        ("tests/test_reach.py",),
    ),
    Mutant(
        "a restarted replica that no front-end has called is good",
        REPLICATION + "reach.py",
        "Reach.UNHEARD if self.unheard else Reach.GOOD",
        "Reach.GOOD",
        ("tests/test_reach.py",),
    ),
    Mutant(
        "a follower does not tell its reach",
        REPLICATION + "replica.py",
        "                self._reach,\n",
        "                Reach.UNSURE,\n",
        HAND_OVER,
    ),
    Mutant(
        "a contact is good until it is lost",
        REPLICATION + "reach.py",
        "silent_s <= self._limit_s / 2 and",
        "",
        ("tests/test_reach.py",),
    ),
    Mutant(
        "a contact is good at once",
        REPLICATION + "reach.py",
        " and now - self._since >= self._limit_s",
        "",
        ("tests/test_reach.py",),
    ),
    Mutant(
        "a group without front-ends is out of reach",
        REPLICATION + "reach.py",
        "            return None\n",
        "            return Reach.LOST\n",
        ("tests/test_reach.py",),
    ),
    Mutant(
        "whoever asks counts as a front-end",
        REPLICATION + "assembly.py",
        "        elif probe.front_id:\n",
        "        else:\n",
        ("tests/test_reach.py",),
    ),
    Mutant(
        "a damaged snapshot stands in for what left the log",
        REPLICATION + "snapshots.py",
        " and all(map(self._is_intact, indices)) else 0",
        " else 0",
        ("tests/test_snapshots.py",),
    ),
    Mutant(
        "one good contact is enough",
        REPLICATION + "reach.py",
        "        for worse in (Reach.LOST, Reach.UNSURE):\n",
        "        for worse in (Reach.LOST,):\n",
        ("tests/test_reach.py",),
    ),
    Mutant(
        "a leader goes on leading after a hand-over",
        REPLICATION + "replica.py",
        "            self._outbox.append(transfer)\n"
        "            return self._follow(self._term, 0, now)\n",
        "            self._outbox.append(transfer)\n",
        HAND_OVER,
    ),
    Mutant(
        "the highest id does not get its place back (simulated)",
        REPLICATION + "leadership.py",
        "            if heir := self._preferred(guard, now, is_full, reach, unheard):\n"
        "                self.begin_hand_over(heir, now)\n",
        "",
        SIMULATION,
    ),
    Mutant(
        "a leader takes commands that the disks of others do not",
        REPLICATION + "leadership.py",
        "others + 1 >= self._membership.majority or not any(p.refuses for p in followers)",
        "others >= 0",
        ("tests/test_member.py",),
    ),
    Mutant(
        "followers that are silent have full disks",
        REPLICATION + "leadership.py",
        "others + 1 >= self._membership.majority or not any(p.refuses for p in followers)",
        "others + 1 >= self._membership.majority",
        LEADERSHIP,
    ),
    Mutant(
        "a message given up late counts as a refusal of what was taken",
        REPLICATION + "progress.py",
        "        self._refused = self._waits_since is not None",
        "        self._refused = True",
        LEADERSHIP,
    ),
    Mutant(
        "a follower that is gone has room",
        REPLICATION + "progress.py",
        "return not self.refuses and self.silent_s(now) <= 2 * self._timings.election_s",
        "return not self.refuses",
        ("tests/test_member.py",),
    ),
    Mutant(
        "a leader whose disk is full gives way only to a higher id",
        REPLICATION + "leadership.py",
        "is_useless = is_lost or (is_full and self._majority_can_take_over(now))",
        "is_useless = is_lost",
        HAND_OVER,
    ),
    Mutant(
        "a leader whose disk is full gives way although no majority has room",
        REPLICATION + "leadership.py",
        "        return able >= self._membership.majority\n",
        "        return able > 0\n",
        HAND_OVER,
    ),
    Mutant(
        "no pre-vote",
        REPLICATION + "replica.py",
        "            self._campaign(now, pre_vote=True)\n",
        "            self._campaign(now, pre_vote=False)\n",
        ELECTION,
    ),
    Mutant(
        "a pre-vote counts as a vote",
        REPLICATION + "replica.py",
        "ballot = self._ballots.get(reply.pre_vote)",
        "ballot = self._ballots.get(reply.pre_vote) or self._ballots.get(False)",
        SIMULATION,
    ),
    Mutant(
        "a lost leader is not forgotten",
        REPLICATION + "election.py",
        "        self._heard_at = -inf\n        self._campaign_at = min",
        "        self._campaign_at = min",
        ELECTION,
    ),
    Mutant(
        "a leader takes over what is pulled",
        REPLICATION + "replica.py",
        "        if self._lead is None:  # a leader",
        "        if True:  # a leader",
        REPLICA,
    ),
    Mutant(
        "a newer term in a refusal is ignored",
        REPLICATION + "replica.py",
        "            self._follow(reply.term, 0, now)\n        elif self._lead",
        "            pass\n        elif self._lead",
        LEADERSHIP,
    ),
    Mutant(
        "what was applied is applied again",
        REPLICATION + "standing.py",
        "        self._handed_out = commit\n",
        "        self._handed_out = 0\n",
        REPLICA,
    ),
    Mutant(
        "an unreachable follower is streamed to",
        REPLICATION + "replica.py",
        "            self._lead.followers[peer].lost(now)\n",
        "            pass\n",
        LEADERSHIP,
    ),
    Mutant(
        "heartbeats follow the own log",
        REPLICATION + "leadership.py",
        "self._append(peer, progress.match, (), now)",
        "self._append(peer, self._log.last_index, (), now)",
        LEADERSHIP,
    ),
    Mutant(
        "an append under way is as good as a heartbeat",
        REPLICATION + "progress.py",
        "        self._flights.append(Flight(sequence, self.next - 1, last_index, now))\n",
        "        self._heartbeat_at = now\n"
        "        self._flights.append(Flight(sequence, self.next - 1, last_index, now))\n",
        LEADERSHIP,
    ),
    Mutant(
        "a torn term is not raised",
        REPLICATION + "standing.py",
        "        if log.last_term > self._term:",
        "        if False:",
        REPLICA,
    ),
    Mutant(
        "a hung target is waited for",
        REPLICATION + "leadership.py",
        " or not target.keeps_up(now):",
        ":",
        HAND_OVER,
    ),
    Mutant(
        "two leaders in a term go unnoticed",
        REPLICATION + "replica.py",
        "if request.term == self._term and self._leader_id not in (0, request.source):",
        "if False:",
        REPLICA,
    ),
    Mutant(
        "a lost member goes on with any of the logs",
        REPLICATION + "rejoin.py",
        "    return ends.index(max(ends))\n",
        "    return 0\n",
        SIMULATION,
    ),
    Mutant(
        "a lost member believes one that has lost its promises, too",
        REPLICATION + "copies.py",
        "            if own.get(member, incarnation) != incarnation:\n",
        "            if member not in own | {self._member: 0}:\n",
        REJOIN,
    ),
    Mutant(
        "a lost member asks whom its configuration lists, and nobody else",
        REPLICATION + "livepeers.py",
        "        if set(status.members) != {me.id, *self._others}:\n",
        "        if me.id not in status.members:\n",
        LIVE_PEERS,
    ),
    Mutant(
        "a second rejoin takes the files of the first one away",
        REPLICATION + "rejoin.py",
        "        unfinished.mkdir(mode=0o700)\n",
        "        unfinished.mkdir(mode=0o700, exist_ok=True)\n",
        REJOIN,
    ),
    Mutant(
        "a lost member's new files are mixed with those of one that was started too early",
        REPLICATION + "rejoin.py",
        '        _check_empty(target, "is the member running? stop it and begin again")\n',
        "",
        REJOIN,
    ),
    Mutant(
        "a lost member goes on with the longest log",
        REPLICATION + "rejoin.py",
        "    ends = [kept.end for kept in others]\n",
        "    ends = [(0, kept.last_index) for kept in others]\n",
        REJOIN,
    ),
    Mutant(
        "a lost member votes again",
        REPLICATION + "rejoin.py",
        "for kept in others), member)",
        "for kept in others), 0)",
        REJOIN,
    ),
    Mutant(
        "a lost member forgets the term of its vote",
        REPLICATION + "rejoin.py",
        "HardState(max(kept.state.term for kept in others), member)",
        "HardState(others[most_up_to_date(others)].state.term, member)",
        REJOIN,
    ),
    Mutant(
        "a lost member takes what is committed for enough (simulated)",
        REPLICATION + "livepeers.py",
        "                if self._has_enough:\n                    return\n",
        "                return\n",
        SIMULATION,
    ),
    Mutant(
        "a lost member waits for whatever the others have by now",
        REPLICATION + "livepeers.py",
        "min(self._enough, max(kept.end for kept in told))",
        "max(kept.end for kept in told)",
        LIVE_PEERS,
    ),
    Mutant(
        "a lost member does not wait for newer terms",
        REPLICATION + "livepeers.py",
        "    return Kept(HardState(term), term, last_index)\n",
        "    return Kept(HardState(term), 0, last_index)\n",
        LIVE_PEERS,
    ),
    Mutant(
        "a lost member does not wait for what one of the others alone has",
        REPLICATION + "livepeers.py",
        "    return Kept(HardState(term), term, last_index)\n",
        "    return Kept(HardState(term), term, 0)\n",
        LIVE_PEERS,
    ),
    Mutant(
        "a lost member forgets a term that was told before",
        REPLICATION + "livepeers.py",
        "                self._told += told\n",
        "                self._told = told\n",
        LIVE_PEERS,
    ),
    Mutant(
        "a lost member mixes two logs",
        REPLICATION + "livepeers.py",
        "            if (pulled.prev_index, pulled.prev_term) != (last.index, last.term):\n",
        "            if pulled.prev_index != last.index:\n",
        LIVE_PEERS,
    ),
    Mutant(
        "a lost member believes a snapshot that is damaged",
        REPLICATION + "rejoin.py",
        "snapshot.index == index and snapshot.is_intact()",
        "snapshot.index == index",
        REJOIN,
    ),
    Mutant(
        "a lost member believes a snapshot of another place in the log",
        REPLICATION + "rejoin.py",
        "snapshot.index == index and snapshot.is_intact()",
        "snapshot.is_intact()",
        REJOIN,
    ),
    Mutant(
        "a lost member keeps a snapshot that it does not believe",
        REPLICATION + "rejoin.py",
        "    path.unlink()\n",
        "",
        REJOIN,
    ),
    Mutant(
        "a lost member takes a snapshot that is not joined to the log",
        REPLICATION + "copies.py",
        "not dropped <= found.index <= copy.log.last_index",
        "False",
        REJOIN,
    ),
    Mutant(
        "a lost member begins with the first entry though it has a snapshot",
        REPLICATION + "copies.py",
        "        self.begins_after = dropped\n",
        "",
        REJOIN,
    ),
    Mutant(
        "a lost member's log begins after its snapshot",
        REPLICATION + "copies.py",
        "        self.begins_after = dropped\n",
        "        self.begins_after = kept.index\n",
        REJOIN,
    ),
    Mutant(
        "a lost member's log begins after the snapshot that it is sent",
        REPLICATION + "livepeers.py",
        "                term = up_to(snapshot.runs, self.begins_after)[-1].term\n",
        "                self.begins_after = snapshot.index\n"
        "                term = up_to(snapshot.runs, self.begins_after)[-1].term\n",
        LIVE_PEERS,
    ),
    Mutant(
        "a lost member takes a snapshot that lacks what others have dropped",
        REPLICATION + "livepeers.py",
        "        if first.index < dropped:\n",
        "        if False:\n",
        LIVE_PEERS,
    ),
    Mutant(
        "a lost member asks only who has dropped most for a snapshot",
        REPLICATION + "livepeers.py",
        "            except Unavailable as error:  # another one may have one, too\n",
        "            except ZeroDivisionError as error:\n",
        LIVE_PEERS,
    ),
    Mutant(
        "a lost member has the leader send its snapshot",
        REPLICATION + "livepeers.py",
        "(-s.first_index, s.id == s.leader_id)",
        "(-s.first_index, s.id != s.leader_id)",
        LIVE_PEERS,
    ),
    Mutant(
        "a lost member mixes two snapshots",
        REPLICATION + "livepeers.py",
        "FetchSnapshot(self._me, index, offset)",
        "FetchSnapshot(self._me, 0, offset)",
        LIVE_PEERS,
    ),
    Mutant(
        "a lost member does not know the term of the last entry in a snapshot",
        REPLICATION + "livepeers.py",
        "Entry(self.begins_after, term, EntryKind.NOOP)",
        "Entry(self.begins_after, 0, EntryKind.NOOP)",
        LIVE_PEERS,
    ),
    Mutant(
        "a lost member asks again and again who has dropped what it wants",
        REPLICATION + "livepeers.py",
        "(s.first_index <= last.index + 1, s.id != s.leader_id, s.commit)",
        "(s.id != s.leader_id, s.commit)",
        LIVE_PEERS,
    ),
    Mutant(
        "who asks for entries that were dropped ends the process",
        REPLICATION + "peercalls.py",
        "        if fetch.after_index + 1 < begins:\n",
        "        if False:\n",
        MEMBER,
    ),
    Mutant(
        "anybody is told a snapshot",
        REPLICATION + "peercalls.py",
        "        self._check_peer(fetch.peer)\n        snapshots",
        "        snapshots",
        MEMBER,
    ),
    Mutant(
        "a snapshot that cannot be read is an error of ours",
        REPLICATION + "peercalls.py",
        "    except OSError as error:\n",
        "    except ZeroDivisionError as error:\n",
        MEMBER,
    ),
    Mutant(
        "a member of an older version has dropped entries",
        "twstock/rpc/wire/replicas.py",
        "max(1, pb.status.first_index)",
        "pb.status.first_index",
        ("tests/test_wire.py",),
    ),
    Mutant(
        "a lost member rejoins while its old self is at work",
        "twstock/commands/rejoin.py",
        '    raise StorageError(f"{address} answers: stop {name} first, for good")\n',
        "",
        ("tests/test_rejoin_processes.py",),
    ),
)


def plant(mutant: Mutant, root: Path) -> bool:
    """Copy what the tests need to ``root`` and plant the bug; False if its place is not found."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, root / name)
    path = root / mutant.file
    text = path.read_text()
    path.write_text(text.replace(mutant.old, mutant.new))
    return text.count(mutant.old) == 1


def run_tests(root: Path, tests: Sequence[str]) -> str:
    """Run ``tests`` on the copy in ``root``: "passed", "failed" or why they did not run."""
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    # Half of the time would go to importing a plugin that none of these tests needs.
    options = ("-q", "-x", "-p", "no:schemathesis", "--hypothesis-profile=planted")
    command = [sys.executable, "-m", "pytest", *options, *tests]
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=environment,
            timeout=TIME_LIMIT_S,
            check=False,
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return "took too long"
    if done.returncode in (0, 1):
        return "failed" if done.returncode else "passed"
    return f"did not run\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def judge(mutant: Mutant) -> str:
    """Plant the bug and run its tests: "killed" is as it should be. By the time limit is not quite:
    the machine was too busy, or a test hangs that should fail.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        if not plant(mutant, Path(name)):
            return "NOT FOUND ONCE"
        outcome = run_tests(Path(name), mutant.tests)
    verdicts = {
        "failed": "killed",
        "took too long": "killed by the time limit",
        "passed": "SURVIVED",
    }
    return verdicts.get(outcome, f"TESTS {outcome}")


def control(chosen: Sequence[Mutant]) -> str:
    """The outcome of all tests without any bug: a test that fails anyway proves nothing."""
    tests = sorted({test for mutant in chosen for test in mutant.tests})
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        plant(Mutant("none", REPLICATION + "log.py", "", "", ()), Path(name))
        return run_tests(Path(name), tests)


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge all bugs, or those whose name has one of the given texts in it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("text", nargs="*", help="only bugs with this text in the name or file")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (2)")
    options = parser.parse_args(arguments)
    chosen = [
        mutant
        for mutant in MUTANTS + mutants_services.MUTANTS + mutants_client.MUTANTS
        if not options.text or any(t in mutant.name or t in mutant.file for t in options.text)
    ]
    if not chosen:
        parser.error(f"no bug has {' or '.join(map(repr, options.text))} in its name or file")
    if (outcome := control(chosen)) != "passed":
        print(f"without any bug, the tests: {outcome}")
        return 1
    survived = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for mutant, verdict in zip(chosen, pool.map(judge, chosen), strict=True):
            survived += not verdict.startswith("killed")
            print(f"{mutant.name:60} {Path(mutant.file).name:14} {verdict}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} killed")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
