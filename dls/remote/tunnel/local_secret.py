"""The secret of the local port: every user of this computer can connect to it, and the secret keeps the others out."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Iterable

from dls.contract import USER
from dls.errors import TargetError

ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
"""Characters of a secret that is made: easy to read aloud and to type, and without a special meaning in a URL."""
LENGTH = 24
"""Number of those characters: 120 bits."""


def choose_secret(wanted: bool | str) -> str | None:
    """Return the secret for the port: a new one for True, none for False. Raises TargetError for an unusable text."""
    if isinstance(wanted, str):
        # What ITK-SNAP's Server field takes between "snap:" and "@" without any encoding.
        if not re.fullmatch(r"[A-Za-z0-9._~-]+", wanted):
            raise TargetError("The local secret can't be used.", "A secret is made of letters, digits and - . _ ~")
        return wanted
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH)) if wanted else None


def is_authorized(headers: Iterable[tuple[bytes, bytes]], secret: str) -> bool:
    """Return whether one of the headers carries the secret as the password of Basic credentials (RFC 7617)."""
    for key, value in headers:
        scheme, _, token = value.partition(b" ")
        if key.lower() == b"authorization" and scheme.lower() == b"basic":
            try:
                _, _, password = base64.b64decode(token, validate=True).partition(b":")
            except (binascii.Error, ValueError):
                continue
            if hmac.compare_digest(password, secret.encode()):
                return True
    return False


def server_field(secret: str | None) -> str:
    """Return what to type into ITK-SNAP's Server field."""
    return f"{USER}:{secret}@localhost" if secret else "localhost"
