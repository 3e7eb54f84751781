"""The secret of the local port: every user of this computer can connect to it, and the secret keeps the others out."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dls.credentials import carries_secret, make_secret
from dls.errors import TargetError


def choose_secret(wanted: bool | str) -> str | None:
    """Return the secret for the port: a new one for True, none for False. Raises TargetError for an unusable text."""
    if isinstance(wanted, str):
        # What ITK-SNAP's Server field takes between "snap:" and "@" without any encoding.
        if not re.fullmatch(r"[A-Za-z0-9._~-]+", wanted):
            raise TargetError("The local secret can't be used.", "A secret is made of letters, digits and - . _ ~")
        return wanted
    return make_secret() if wanted else None


def is_authorized(headers: Iterable[tuple[bytes, bytes]], secret: str) -> bool:
    """Return whether one of the headers carries the secret."""
    return any(key.lower() == b"authorization" and carries_secret(value, secret) for key, value in headers)
