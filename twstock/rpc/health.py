"""gRPC health checking and reflection, for tools that know nothing of twstock.

The two libraries are an extra (``pip install twstock[grpc]``); without them a server serves its
own calls and nothing else. In both, a client may keep a stream open for as long as it likes, and
each stream keeps a thread: so ``rpc_watches_max`` threads are reserved for these streams, and they
get no others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import grpc

from twstock.clocks import Clock
from twstock.repeating import repeating
from twstock.rpc.arrivals import Arrival, Place, Room
from twstock.rpc.departures import Departures

CHECKS_MAX = 16
"""How many checks are answered at once, each in no time."""
LOOK_EVERY_S = 0.1
"""How often to look whether the member serves."""
_SERVING, _NOT_SERVING = 1, 2
"""``ServingStatus`` of grpc.health.v1.HealthCheckResponse."""
_HEALTH, _REFLECTION = "grpc_health.v1.health", "grpc_reflection.v1alpha.reflection"

Serving = Callable[[], Mapping[str, bool]]
"""Which services can be used now, by their full names; the empty name stands for the process."""


def _library(name: str) -> Any:
    try:
        return import_module(name), import_module(f"{name}_pb2")
    except ImportError:
        return None


class Health:
    """Serves health checks and reflection, as far as their libraries are installed."""

    def __init__(self, serving: Serving, clock: Clock, watches_max: int) -> None:
        self._serving = serving
        self._checks = Room(CHECKS_MAX, "too many checks")
        self._streams = Room(watches_max, "too many streams")
        self._looking = repeating(self._look, clock, "telling of health")
        self._servicer: Any = None
        self._known: dict[str, bool] = {}

    def add_to(self, server: grpc.Server, services: Sequence[str], departures: Departures) -> None:
        """Serve both along with ``services``, and begin to look whether the member serves."""
        names = list(services)
        health, reflection = _library(_HEALTH), _library(_REFLECTION)
        if health is not None:
            module, pb2 = health
            # With a thread for each watcher, one that reads nothing only holds up itself.
            self._servicer = module.HealthServicer(experimental_non_blocking=False)
            names.append(module.SERVICE_NAME)
            server.add_generic_rpc_handlers((self._health(module.SERVICE_NAME, pb2, departures),))
            self._looking.start(LOOK_EVERY_S)
        if reflection is not None:
            module, pb2 = reflection
            names.append(module.SERVICE_NAME)
            servicer = module.ReflectionServicer(names)
            server.add_generic_rpc_handlers((self._reflection(module.SERVICE_NAME, pb2, servicer),))

    def stop(self) -> None:
        """Report from now on that nothing serves, to watchers at once."""
        if self._looking.running:
            self._looking.stop()
            self._servicer.enter_graceful_shutdown()

    def _look(self) -> None:
        for name, serves in self._serving().items():
            if self._known.get(name) is not serves:
                self._known[name] = serves
                self._servicer.set(name, _SERVING if serves else _NOT_SERVING)

    def _health(self, service: str, pb2: Any, departures: Departures) -> grpc.GenericRpcHandler:
        """Both calls, served with a stream of requests like all others (``arrivals``)."""
        request, encode = pb2.HealthCheckRequest, pb2.HealthCheckResponse.SerializeToString

        def check(requests: Iterator[bytes], context: Any) -> Any:
            path = f"/{service}/Check"
            with Arrival(self._checks, path, requests, context) as arrival:
                answer = self._servicer.Check(
                    _parsed(request, arrival.request(context.time_remaining()), context), context
                )
                departures.add(context, answer.ByteSize())
                return answer

        def watch(requests: Iterator[bytes], context: Any) -> Iterator[Any]:
            path = f"/{service}/Watch"
            with Arrival(self._streams, path, requests, context) as arrival:
                answers = self._servicer.Watch(
                    _parsed(request, arrival.request(context.time_remaining()), context), context
                )
                # The library does not notice if the stream had ended before.
                if context.is_active():
                    yield from answers

        calls = {
            "Check": grpc.stream_unary_rpc_method_handler(check, response_serializer=encode),
            "Watch": grpc.stream_stream_rpc_method_handler(watch, response_serializer=encode),
        }
        return grpc.method_handlers_generic_handler(service, calls)

    def _reflection(self, service: str, pb2: Any, servicer: Any) -> grpc.GenericRpcHandler:
        request = pb2.ServerReflectionRequest

        def inform(requests: Iterator[bytes], context: Any) -> Iterator[Any]:
            with Place(self._streams, context):
                questions = (_parsed(request, data, context) for data in requests)
                yield from servicer.ServerReflectionInfo(questions, context)

        call = grpc.stream_stream_rpc_method_handler(
            inform, response_serializer=pb2.ServerReflectionResponse.SerializeToString
        )
        return grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": call})


def _parsed(message: Any, data: bytes, context: Any) -> Any:
    try:
        return message.FromString(data)
    except Exception:  # protobuf's; gRPC itself answers with the same words, but logs it, too
        context.abort(grpc.StatusCode.INTERNAL, "Exception deserializing request!")
