"""Whether a page of another origin makes a request: a browser would trade for it, too.

Any page that a trader has open may send a form, or a ``fetch`` that needs no leave, to a
front-end. Browsers say where a request comes from (Fetch Metadata, W3C; ``Origin``, RFC 6454);
other programs send neither field, and are not asked for it.
"""

from collections.abc import Sequence

SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""These change nothing (RFC 9110 section 9.2.1), so any page may use them."""
_OWN_SITES = frozenset({b"same-origin", b"none"})
"""``none``: the user began the request, and no page did."""


def is_foreign(
    sites: Sequence[bytes] | None, origins: Sequence[bytes] | None, hosts: Sequence[bytes] | None
) -> bool:
    """Whether a browser says so in the values of ``Sec-Fetch-Site``, ``Origin`` and ``Host``.

    The first is believed before the others: behind a proxy ``Host`` may be another one than the
    browser knows. It comes only over TLS and from this machine; elsewhere the others tell.
    """
    if sites:
        return not _OWN_SITES.issuperset(sites)
    if not origins:
        return False
    # "null" stands for an origin that is not told: it has no "://" and is nobody's Host.
    _, _, named = origins[0].partition(b"://")
    return len(origins) > 1 or not hosts or not named or named.lower() != hosts[0].lower()
