"""Access control: a secret wherever other people can reach the port, and never a web page."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from dls.credentials import carries_secret

HOW_TO_AUTHORIZE = (
    "Copy the Server field as dls printed it: snap:SECRET@host; napari, 3D Slicer and MITK take the SECRET as API key."
)
"""What a user can do about a request without the secret."""


@dataclass(frozen=True)
class Refusal:
    """A refused request's HTTP status and the sentence that explains it."""

    status: int
    message: str


@dataclass(frozen=True)
class Policy:
    """The rules by which requests are allowed or refused."""

    secret: str | None = field(default=None, repr=False)
    open: bool = False
    """Whether requests without the secret are allowed from everywhere."""
    hosts: frozenset[str] = frozenset()
    """Host names, in lower case, under which clients may address this server."""

    def check(self, headers: Mapping[str, str], *, over_socket: bool) -> Refusal | None:
        """Return why the request is refused, or None if it is allowed.

        `headers` have names in lower case; `over_socket` says that the request came over the Unix socket, which file
        permissions protect.
        """
        origin = headers.get("origin")
        is_foreign = origin is not None and not _same_origin(origin, headers.get("host", ""))
        # A request for an image or by a link has no Origin header, but browsers send Sec-Fetch-Site with it.
        if is_foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return Refusal(403, "Web pages may not use this server.")
        if self.is_authorized(headers):
            return None
        # What a viewer sends where nothing is asked for, an old API key say, is no reason to refuse it.
        if self.secret is not None and not self.open and not over_socket:
            what = "The secret is wrong." if "authorization" in headers else "This server needs a secret."
            return Refusal(401, f"{what} {HOW_TO_AUTHORIZE}")
        # Browsers send no Sec-Fetch-Site over plain HTTP, except to this computer itself.
        if "sec-fetch-site" not in headers and _is_from_browser(headers):
            return Refusal(403, "Web pages may not use this server.")
        # Without a secret, a web page could reach this server by a host name that resolves to 127.0.0.1.
        if not self._is_own_name(headers.get("host", "")):
            return Refusal(403, "This server does not go by that name. Allow it with --allow-host.")
        return None

    def is_authorized(self, headers: Mapping[str, str]) -> bool:
        """Return whether the request carries the secret, as Basic credentials or as a Bearer token."""
        return self.secret is not None and carries_secret(headers.get("authorization", ""), self.secret)

    def _is_own_name(self, host: str) -> bool:
        name = _hostname(host)
        if name in ("", "localhost") or name.endswith(".localhost") or name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _is_from_browser(headers: Mapping[str, str]) -> bool:
    """Return whether the request looks like a browser's, as every one of them begins its User-Agent with "Mozilla"."""
    return headers.get("user-agent", "").startswith("Mozilla/") or "referer" in headers


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return "?"


def _same_origin(origin: str, host: str) -> bool:
    scheme, _, authority = origin.partition("://")
    return scheme in ("http", "https") and bool(host) and authority.lower() == host.lower()
