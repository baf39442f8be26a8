"""What holds for all tests."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from twisted.logger import globalLogPublisher

# How long an example takes says more about the machine than about the code.
settings.register_profile("twstock", deadline=None)
settings.load_profile("twstock")


@pytest.fixture(autouse=True)
def _no_failure_is_logged(request: pytest.FixtureRequest) -> Iterator[None]:
    """An error that is only logged fails the test, Deferreds that nobody looks at among them; but
    for tests that are marked ``logs_failures``, which are about such an error.
    """
    found: list[Any] = []

    def observe(event: Any) -> None:
        if "log_failure" in event:
            found.append(event["log_failure"].getTraceback())

    globalLogPublisher.addObserver(observe)
    yield
    globalLogPublisher.removeObserver(observe)
    if request.node.get_closest_marker("logs_failures") is None:
        assert not found, "\n".join(found)
