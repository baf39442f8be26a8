"""Planted bugs in the typed client."""

from tests.planted import Mutant

CLIENT = "twstock/client/"
MEMORY = ("tests/test_client.py",)
FEED = ("tests/test_client_feed.py",)

MUTANTS = (
    Mutant(
        "a change with a key of the caller's own has certainly not happened",
        CLIENT + "admin.py",
        "doubtful = own_key is not None",
        "doubtful = False",
        ("tests/test_client_admin.py",),
    ),
    Mutant(
        "a change that was made before is told as new",
        "twstock/forms.py",
        'self.headers.get("idempotency-replayed") == "true"',
        "False",
        ("tests/test_client_admin.py", "tests/test_client.py"),
    ),
    Mutant(
        "an amount goes with its exponent",
        CLIENT + "admin.py",
        'format(amount, "f") if isinstance(amount, Decimal) else str(amount)',
        "str(amount)",
        ("tests/test_client_admin.py",),
    ),
    Mutant(
        "an order that may have been executed is said not to have been",
        CLIENT + "fronts.py",
        "doubtful = doubtful or error.sent",
        "doubtful = error.sent",
        MEMORY,
    ),
    Mutant(
        "a doubt is forgotten when somebody else answers",
        CLIENT + "fronts.py",
        "replace(answer, doubtful=True) if doubtful else answer",
        "answer",
        (*MEMORY, "tests/test_client_admin.py"),
    ),
    Mutant(
        "an answer that decides nothing ends a doubt",
        CLIENT + "answers.py",
        "OutcomeUnknown(str(error), key) if answer.doubtful else error",
        "error",
        MEMORY,
    ),
    Mutant(
        "whoever answers in another form ends a doubt",
        "twstock/forms.py",
        '_error(self.body).get("code") != self.status or self.message == NO_SUCH_PATH',
        "False",
        (*MEMORY, "tests/test_cli.py"),
    ),
    Mutant(
        "a wrong token ends the doubt about a change",
        CLIENT + "answers.py",
        "if answer.status in _TURNS_AWAY and not answer.doubtful:",
        "if answer.status in _TURNS_AWAY:",
        ("tests/test_client_admin.py",),
    ),
    Mutant(
        "a doubt about a whole batch is about none of its orders",
        CLIENT + "batch.py",
        "            self._doubtful.update(asked)\n",
        "            pass\n",
        MEMORY,
    ),
    Mutant(
        "an order under a key of ones own is certain",
        CLIENT + "client.py",
        "doubtful=ticket.key is not None",
        "doubtful=False",
        MEMORY,
    ),
    Mutant(
        "a front-end that is not there is waited for",
        CLIENT + "client.py",
        "        if isIPAddress(host):\n",
        "        if False:\n",
        MEMORY,
    ),
    Mutant(
        "a cancelled request is asked again",
        CLIENT + "waiting.py",
        "lambda _: give_up(CancelledError())",
        "lambda _: work.cancel()",
        MEMORY,
    ),
    Mutant(
        "Retry-After is not read",
        CLIENT + "attempts.py",
        "retry_after_s if retry_after_s is not None else self._backoff_s(front)",
        "self._backoff_s(front)",
        MEMORY,
    ),
    Mutant(
        "the doubt about an order of a batch is forgotten",
        CLIENT + "batch.py",
        "            self._doubtful.add(k)\n",
        "            pass\n",
        MEMORY,
    ),
    Mutant(
        "settled orders of a batch are sent again",
        CLIENT + "batch.py",
        "for k in range(len(self._tickets)) if k not in self._results]",
        "for k in range(len(self._tickets)) if len(self._results) < len(self._tickets)]",
        MEMORY,
    ),
    Mutant(
        "a price goes through a float",
        CLIENT + "fronts.py",
        "read_answer(response.code, headers, content, Decimal)",
        "read_answer(response.code, headers, content, lambda text: Decimal(float(text)))",
        MEMORY,
    ),
    Mutant(
        "the feed begins anew after a loss",
        CLIENT + "feed.py",
        "        self._last_id = stream.last_id\n",
        "",
        FEED,
    ),
    Mutant(
        "a slow reader does not stop the connection",
        CLIENT + "feed.py",
        "            self._transport().pauseProducing()\n",
        "",
        FEED,
    ),
    Mutant(
        "a connection that was stopped stays stopped",
        CLIENT + "feed.py",
        "            self._transport().resumeProducing()\n",
        "            pass\n",
        FEED,
    ),
    Mutant(
        "a silent connection is waited for for ever",
        CLIENT + "feed.py",
        "self._wait_for(within(inflow.arrival(), self._silence_s, self._fronts.clock))",
        "self._wait_for(inflow.arrival())",
        FEED,
    ),
    Mutant(
        "the id of an event that did not end counts",
        CLIENT + "eventstream.py",
        "                self._id = value\n",
        "                self._id = self.last_id = value\n",
        ("tests/test_eventstream.py",),
    ),
    Mutant(
        "a line end that was cut in two ends two lines",
        CLIENT + "eventstream.py",
        'self._after_cr = received.endswith(b"\\r")',
        "self._after_cr = False",
        ("tests/test_eventstream.py",),
    ),
)
