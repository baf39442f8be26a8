"""Clients of the feed that read, disconnect, and reconnect elsewhere with the last id they saw."""

import contextlib
import http.client
import random
import threading

from tests.sse import Reader

TIMEOUT_S = 3.0
PAUSE_S = 0.05
READ_BYTES_MAX = 4096
BROKEN = (OSError, http.client.HTTPException, ValueError)


class Viewer:
    """One client, which runs as long as the context; ``known`` is all that it received.

    It reads in pieces of random size and closes the connection at random, in the middle of
    an event perhaps; every connection is to a random front-end.
    """

    def __init__(self, cluster, seed, query=""):
        self.known = Reader()
        self.connections = 0
        self.faults = []
        self._cluster = cluster
        self._query = query
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._guard)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self._stop.set()
        self._thread.join(4 * TIMEOUT_S)
        assert kind is not None or not self.faults, self.faults

    def last(self):
        """The number of the last trade that it received; 0: none."""
        numbers = self.known.numbers()
        return numbers[-1] if numbers else 0

    def _guard(self):
        try:
            while not self._stop.wait(PAUSE_S):
                with contextlib.suppress(*BROKEN):
                    self._watch()
        except BaseException as error:
            self.faults.append(repr(error))

    def _watch(self):
        front = self._chance.choice(self._cluster.config.fronts).id
        connection = http.client.HTTPConnection(*self._cluster.address(front), timeout=TIMEOUT_S)
        heard = Reader(self.known.last_event_id)
        headers = {"Last-Event-ID": heard.last_event_id} if heard.last_event_id else {}
        try:
            connection.request("GET", f"/events{self._query}", headers=headers)
            response = connection.getresponse()
            assert response.status == 200, response.status
            self.connections += 1
            for _ in range(self._chance.randrange(1, 40)):
                data = response.read1(self._chance.randrange(1, READ_BYTES_MAX))
                heard.feed(data)
                if not data or self._stop.is_set():
                    break
        finally:
            connection.close()
            self.known.events += heard.events
            self.known.last_event_id = heard.last_event_id
