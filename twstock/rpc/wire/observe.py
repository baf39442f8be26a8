"""What a member counts, as protobuf and back."""

from typing import Any

from twstock.pb import observe_pb2
from twstock.rpc import calls
from twstock.rpc.wire.base import OK, to_bytes
from twstock.tally import Family, Sample

SAMPLES_MAX = 10_000
"""More than any member has: a peer that sends more is not one of ours."""


def observe(_: calls.Observe) -> bytes:
    return to_bytes(observe_pb2.FamiliesRequest())


def to_observe(data: bytes) -> calls.Observe:
    observe_pb2.FamiliesRequest.FromString(data)
    return calls.Observe()


def observed(a: calls.Observed) -> bytes:
    families = [_family(family) for family in a.families]
    return to_bytes(observe_pb2.FamiliesResponse(code=OK, member=a.member, families=families))


def to_observed(data: bytes) -> calls.Observed:
    pb = observe_pb2.FamiliesResponse.FromString(data)
    if sum(len(family.samples) for family in pb.families) > SAMPLES_MAX:
        raise ValueError(f"more than {SAMPLES_MAX} samples")
    return calls.Observed(pb.member, tuple(map(_to_family, pb.families)))


def _family(family: Family) -> Any:
    return observe_pb2.Family(
        name=family.name,
        kind=family.kind,
        help=family.help,
        samples=[
            observe_pb2.Sample(name=sample.name, labels=sample.labels, value=sample.value)
            for sample in family.samples
        ],
    )


def _to_family(pb: Any) -> Family:
    samples = tuple(Sample(sample.name, dict(sample.labels), sample.value) for sample in pb.samples)
    return Family(pb.name, pb.kind, pb.help, samples)
