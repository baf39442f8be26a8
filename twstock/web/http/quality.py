"""What a client accepts, and prefers: content negotiation (RFC 9110 section 12). Pure."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

_PIECE = rb'(?:[^%b"]|"(?:[^"\\]|\\.)*"?)+'
_ELEMENT = re.compile(_PIECE % b",", re.DOTALL)
_PARAMETER = re.compile(_PIECE % b";", re.DOTALL)
_QUALITY = re.compile(rb"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_REMEMBERED_BYTES_MAX = 256
"""Longer fields are parsed each time: if they were remembered, clients could fill the memory."""


def qualities(field: bytes) -> Mapping[bytes, float]:
    """Each media range, or coding, of a field like Accept, in lower case, with its quality;
    parameters make no difference here.
    """
    return _remembered(field) if len(field) <= _REMEMBERED_BYTES_MAX else _read(field)


def _read(field: bytes) -> Mapping[bytes, float]:
    found = {}
    for element in _ELEMENT.findall(field):
        name, *parameters = _PARAMETER.findall(element) or [b""]
        found[name.strip(b" \t").lower()] = _quality([each.strip(b" \t") for each in parameters])
    return found


_remembered = lru_cache(maxsize=256)(_read)


def accepts_gzip(fields: Sequence[bytes]) -> bool:
    """Whether the fields of Accept-Encoding name gzip, and rank it no lower than no coding."""
    codings = qualities(b",".join(fields))
    return codings.get(b"gzip", 0.0) > 0 and codings[b"gzip"] >= codings.get(b"identity", 0.0)


def _quality(parameters: Sequence[bytes]) -> float:
    """The weight among the parameters, 1 without one, 0 for one that is not valid."""
    for parameter in parameters:
        if parameter[:2].lower() == b"q=":
            value = parameter[2:]
            return float(value) if _QUALITY.fullmatch(value) else 0.0
    return 1.0
