"""Calls and their answers on a stream (``stream.proto``), as bytes and back."""

from collections.abc import Sequence
from math import inf

from google.protobuf.message import DecodeError
from grpc import StatusCode

from twstock.errors import InvalidRequest, TwstockError
from twstock.pb import stream_pb2 as stream
from twstock.rpc.status import (
    CODE_OF_INT,
    UNEXPECTED,
    code_of,
    details_of,
    error_of,
    metadata_of,
)
from twstock.rpc.wire.base import to_bytes

PATH = "/twstock.Stream/Calls"


def call(
    call_id: int, method: str, request: bytes, left_s: float, request_ids: Sequence[str] = ()
) -> bytes:
    left_ms = int(left_s * 1000) + 1
    pb = stream.StreamedCall(id=call_id, method=method, request=request, time_left_ms=left_ms)
    if request_ids:
        pb.request_ids.extend(request_ids)
    return to_bytes(pb)


def to_call(data: bytes) -> tuple[int, str, bytes, float, Sequence[str]]:
    """Its id, path, request, the time left to its deadline (in seconds; inf if it has none), and
    request ids. Raises InvalidRequest for bytes that are no call.
    """
    try:
        pb = stream.StreamedCall.FromString(data)
    except DecodeError as error:
        raise InvalidRequest("call", str(error)) from None
    left_s = pb.time_left_ms / 1000 if pb.time_left_ms else inf
    return pb.id, pb.method, pb.request, left_s, pb.request_ids


def answer(call_id: int, content: bytes) -> bytes:
    return to_bytes(stream.StreamedAnswer(id=call_id, answer=content))


def failed(call_id: int, error: Exception) -> bytes:
    """The answer for an error; an unexpected one is only called an internal error."""
    known = isinstance(error, TwstockError)
    return to_bytes(
        stream.StreamedAnswer(
            id=call_id,
            code=code_of(error).value[0],
            details=details_of(error) if known else UNEXPECTED,
            metadata=dict(metadata_of(error)) if isinstance(error, TwstockError) else {},
        )
    )


def to_answer(data: bytes) -> tuple[int, bytes | TwstockError]:
    pb = stream.StreamedAnswer.FromString(data)
    if pb.code == 0:
        return pb.id, pb.answer
    return pb.id, error_of(
        CODE_OF_INT.get(pb.code, StatusCode.UNKNOWN), pb.details, pb.metadata.items()
    )
