"""Who may see the page: programs of this computer's browser that have the key, and no other web page.

The page without the key says only what every user of this computer can find out. The key is made anew for each run and
stands behind the `#` of the address that is printed: a browser sends that part to nobody. The page's script keeps it in
the storage of its own origin, which no other port shares (as a cookie would be shared), and sends it in a header, which
no other web page can do.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

KEY_HEADER = "x-dls-page-key"
"""Header with the page's key, in lower case."""
NAMES = ("localhost", "127.0.0.1", "[::1]")
"""Host names of the page's addresses. Any other one could be a web page's own name that leads to this computer."""

FOREIGN_NAME = "The page is at http://localhost:{}/ and goes by no other name."
FOREIGN_PAGE = "Other web pages may not use this one. Type its address into the browser."

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
HEADERS = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)
"""Headers of every answer of the page."""


def find_fault(headers: Mapping[str, str], port: int) -> str | None:
    """Return why a request for the page is refused, in a sentence, or None; names of headers are in lower case."""
    host = headers.get("host", "").lower()
    if host not in {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set()):
        return FOREIGN_NAME.format(port)
    if headers.get("origin", f"http://{host}").lower() != f"http://{host}":
        return FOREIGN_PAGE
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return FOREIGN_PAGE
    return None


def has_key(headers: Mapping[str, str], key: str) -> bool:
    """Return whether the request carries the page's key."""
    return hmac.compare_digest(headers.get(KEY_HEADER, "").encode(), key.encode())


def page_url(port: int, key: str | None) -> str:
    """Return the page's address; with the key, where no secret is asked for in its place."""
    return f"http://localhost:{port}/" + (f"#key={key}" if key else "")
