"""gRPC health checking and reflection, for tools that know nothing of twstock.

The two libraries are an extra (``pip install twstock[grpc]``); without them a server serves its
own calls and nothing else. Both keep a stream open for as long as their client likes, and each
stream a thread: so there are ``rpc_watches_max`` threads for them and no more, apart from those
that serve calls.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import grpc

from twstock.clocks import Clock
from twstock.repeating import repeating

LOOK_EVERY_S = 0.1
"""How often it is looked whether the member serves."""
_SERVING, _NOT_SERVING = 1, 2
"""``ServingStatus`` of grpc.health.v1.HealthCheckResponse."""
_HEALTH, _REFLECTION = "grpc_health.v1.health", "grpc_reflection.v1alpha.reflection"

Serving = Callable[[], Mapping[str, bool]]
"""Which services can be used now, by their full names; the empty name stands for the process."""


def _library(name: str) -> Any:
    try:
        return import_module(name), import_module(f"{name}_pb2_grpc")
    except ImportError:
        return None


class Health:
    """What a server tells of itself, in the words of the two libraries, where they are there."""

    def __init__(self, serving: Serving, clock: Clock, watches_max: int) -> None:
        self._serving = serving
        self._room = threading.BoundedSemaphore(watches_max)
        self._looking = repeating(self._look, clock, "telling of health")
        self._servicer: Any = None
        self._known: dict[str, bool] = {}

    def add_to(self, server: grpc.Server, services: Sequence[str]) -> None:
        """Serve both beside ``services``, and begin to look."""
        names = list(services)
        health, reflection = _library(_HEALTH), _library(_REFLECTION)
        if health is not None:
            module, stubs = health
            self._servicer = self._bounded(module.HealthServicer, "Watch")(
                # With a thread for each, a watcher that reads nothing holds up itself alone.
                experimental_non_blocking=False
            )
            stubs.add_HealthServicer_to_server(self._servicer, server)
            names.append(module.SERVICE_NAME)
            self._looking.start(LOOK_EVERY_S)
        if reflection is not None:
            module, stubs = reflection
            names.append(module.SERVICE_NAME)
            servicer = self._bounded(module.ReflectionServicer, "ServerReflectionInfo")(names)
            stubs.add_ServerReflectionServicer_to_server(servicer, server)

    def stop(self) -> None:
        """From now on nothing serves, and whoever watches is told."""
        if self._looking.running:
            self._looking.stop()
            self._servicer.enter_graceful_shutdown()

    def _look(self) -> None:
        for name, serves in self._serving().items():
            if self._known.get(name) is not serves:
                self._known[name] = serves
                self._servicer.set(name, _SERVING if serves else _NOT_SERVING)

    def _bounded(self, servicer: Any, stream: str) -> Any:
        """A servicer whose streams find room, or are refused."""
        unbounded = getattr(servicer, stream)

        def bounded(this: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            if not self._room.acquire(blocking=False):
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams")
            try:
                answers = unbounded(this, request, context)
                # Nobody tells the library of the end of a stream that has ended already.
                if context.is_active():
                    yield from answers
            finally:
                self._room.release()

        return type(servicer.__name__, (servicer,), {stream: bounded})
