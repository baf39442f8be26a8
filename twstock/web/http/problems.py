"""Errors as problem details (RFC 9457), for clients that ask for them.

The usual form of errors is ``{"error": {"code", "message"}}``. A client whose Accept prefers
``application/problem+json`` to ``application/json`` gets the same as a problem. Only errors have
both forms, so their two qualities are compared (RFC 9110 section 12.5.1); if both are equal, the
usual form is sent.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

from twstock.web.answers import JSON, Answer
from twstock.web.http.quality import qualities

PROBLEM = b"application/problem+json"


def suited(answer: Answer, accept: Sequence[bytes]) -> Answer:
    """An error in the form that the fields of Accept ask for; any other answer as it is."""
    if answer.status < 400 or answer.media_type is not JSON or not accept:
        return answer
    return as_problem(answer) if is_preferred(b",".join(accept)) else answer


def as_problem(answer: Answer) -> Answer:
    """An error as problem details. The type is ``about:blank``, because the status says which
    kind of error it is; ``detail`` is the same text as ``message`` in the usual form.
    """
    fields = json.loads(answer.body)
    error = fields.pop("error")
    about = {
        "type": "about:blank",
        "title": answer.reason.decode("ascii"),
        "status": answer.status,
        "detail": error["message"],
    }
    if "outcome" in error:
        about["outcome"] = error["outcome"]
    body = json.dumps(about | fields, separators=(",", ":")).encode("ascii")
    return replace(answer, body=body, media_type=PROBLEM)


def is_preferred(accept: bytes) -> bool:
    """Whether Accept names problem details and prefers them to JSON."""
    ranges = qualities(accept)
    anything = ranges.get(b"*/*", 0.0)
    usual = ranges.get(JSON, ranges.get(b"application/*", anything))
    return ranges.get(PROBLEM, 0.0) > usual
