"""The one table between our errors and gRPC's status codes.

A call that fails on its way (connection lost, deadline passed) brings no answer from the server, so
the caller cannot know whether it took effect: ``OutcomeUnknown``. A server that knows says so in
the trailing metadata, under ``OUTCOME``.
"""

from collections.abc import Iterable, Sequence

from grpc import StatusCode

from twstock import errors

OUTCOME = "twstock-outcome"
LEADER = "twstock-leader"
DETAILS_CHARS_MAX = 500
"""How much of an error's message is sent: it may quote a request of any size, and gRPC's clients
take a status of at most 8 KiB, in which a character may need twelve bytes (percent-encoded UTF-8).
"""
UNEXPECTED = "internal error"
"""All that a caller is told of an error that was not raised on purpose."""
REQUEST_ID = "twstock-request-id"
"""The metadata key for an id of a request on whose behalf a call is made, for the log."""

CODE_OF_INT = {code.value[0]: code for code in StatusCode}

_CODES: dict[type[errors.TwstockError], StatusCode] = {
    errors.NotLeader: StatusCode.FAILED_PRECONDITION,
    errors.StaleEpoch: StatusCode.ABORTED,
    errors.KeyReused: StatusCode.ALREADY_EXISTS,
    errors.Unavailable: StatusCode.UNAVAILABLE,
    errors.OutcomeUnknown: StatusCode.UNKNOWN,
    errors.Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    errors.DiskFull: StatusCode.RESOURCE_EXHAUSTED,
    errors.NotReceived: StatusCode.DEADLINE_EXCEEDED,
    errors.InvalidRequest: StatusCode.INVALID_ARGUMENT,
    errors.Forbidden: StatusCode.PERMISSION_DENIED,
}
CERTAIN = frozenset(_CODES.values()) - {StatusCode.UNKNOWN, StatusCode.DEADLINE_EXCEEDED}
"""The codes with which a server of ours says that an order in a batch had no effect."""

_OUTCOMES: dict[type[errors.TwstockError], str] = {
    errors.NotLeader: "none",
    errors.StaleEpoch: "none",
    errors.KeyReused: "none",
    errors.Unavailable: "none",
    errors.InvalidRequest: "none",
    errors.NotReceived: "none",
    errors.Forbidden: "none",
    errors.Overloaded: "overloaded",
    errors.DiskFull: "disk-full",
}


def code_of(error: BaseException) -> StatusCode:
    """The status code of an error raised on purpose; INTERNAL for any other."""
    return _CODES.get(type(error), StatusCode.INTERNAL)  # type: ignore[arg-type]


def details_of(error: BaseException) -> str:
    """The message of an error raised on purpose, perhaps cut."""
    return str(error)[:DETAILS_CHARS_MAX]


def metadata_of(error: errors.TwstockError) -> Sequence[tuple[str, str]]:
    """The trailing metadata that lets the caller's side rebuild the error."""
    outcome = _OUTCOMES.get(type(error), "unknown")
    if isinstance(error, errors.NotLeader):
        return ((OUTCOME, outcome), (LEADER, str(error.leader_id)))
    return ((OUTCOME, outcome),)


def error_of(
    code: StatusCode, details: str, metadata: Iterable[tuple[str, str | bytes]]
) -> errors.TwstockError:
    """The error that a failed call stands for."""
    fields = dict(metadata)
    outcome = fields.get(OUTCOME)
    if outcome is None or outcome == "unknown":
        return errors.OutcomeUnknown(details)
    match code:
        case StatusCode.FAILED_PRECONDITION:
            return errors.NotLeader(_leader_id(fields.get(LEADER, "0")))
        case StatusCode.ABORTED:
            return errors.StaleEpoch(details)
        case StatusCode.ALREADY_EXISTS:
            return errors.KeyReused()
        case StatusCode.RESOURCE_EXHAUSTED if outcome == "disk-full":
            return errors.DiskFull(details)
        case StatusCode.RESOURCE_EXHAUSTED:
            return errors.Overloaded(details)
        case StatusCode.INVALID_ARGUMENT:
            field, _, problem = details.partition(": ")
            return errors.InvalidRequest(field, problem)
        case _:
            return errors.Unavailable(details)


def _leader_id(text: str | bytes) -> int:
    try:
        return int(text)
    except ValueError:  # the peer is no member
        return 0
