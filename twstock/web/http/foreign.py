"""Detects requests made by pages of other origins (cross-site request forgery).

Any page that a trader has open may send a front-end a form, or a ``fetch`` that needs no CORS
preflight. Browsers say where a request comes from (Fetch Metadata, W3C; ``Origin``, RFC 6454);
other programs send neither field, and need not.
"""

from collections.abc import Sequence

SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""These change nothing (RFC 9110 section 9.2.1), so any page may use them."""
_OWN_SITES = frozenset({b"same-origin", b"none"})
"""``none``: the user made the request, not a page."""


def is_foreign(
    sites: Sequence[bytes] | None, origins: Sequence[bytes] | None, hosts: Sequence[bytes] | None
) -> bool:
    """Whether a page of another origin made a request, by the values of ``Sec-Fetch-Site``,
    ``Origin`` and ``Host``.

    The first takes precedence, because behind a proxy ``Host`` may not be what the browser sent.
    Browsers send it only over TLS or to their own machine; otherwise the other two decide.
    """
    if sites:
        return not _OWN_SITES.issuperset(sites)
    if not origins:
        return False
    # "null" stands for an origin that is kept secret: without "://", it equals no Host.
    _, _, named = origins[0].partition(b"://")
    return len(origins) > 1 or not hosts or not named or named.lower() != hosts[0].lower()
