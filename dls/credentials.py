"""Secrets and the credentials that carry them, the same at the local port and at the server.

ITK-SNAP sends Basic credentials (RFC 7617), official clients of nnInteractive send their API key as a Bearer token (RFC
6750).

Standard library only, because both sides import this module.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets

ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
"""Characters of secrets that are made: easy to read aloud and to type, and without a special meaning in a URL."""
LENGTH = 24
"""Number of those characters: 120 bits."""
USER = "snap"
"""User name of the credentials; only the password, which is the secret, is looked at."""

_SECRET_FIELD = re.compile(r'(\\*"secret\\*"\s*:\s*\\*")[^"\\]*')
"""The field of a server's state file, or of its answer, that holds the server's secret, in JSON."""


def redact(text: str) -> str:
    """Return the text without the secrets of servers' state files in it, fit to be shown."""
    return _SECRET_FIELD.sub(r"\1…", text)


def make_secret() -> str:
    """Return a new secret of 120 bits."""
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))


def encode_token(secret: str) -> str:
    """Return the token of an Authorization header that carries the secret."""
    return base64.b64encode(f"{USER}:{secret}".encode()).decode()


def carries_secret(authorization: str | bytes, secret: str) -> bool:
    """Return whether the value of an Authorization header carries the secret, as its password or as its token."""
    value = authorization.encode("latin-1", "replace") if isinstance(authorization, str) else authorization
    scheme, _, token = value.partition(b" ")
    if scheme.lower() == b"bearer":
        return hmac.compare_digest(token.strip(b" "), secret.encode())
    if scheme.lower() != b"basic":
        return False
    try:
        _, _, password = base64.b64decode(token, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(password, secret.encode())


def server_field(secret: str | None, host: str = "localhost") -> str:
    """Return what to type into ITK-SNAP's Server field."""
    return f"{USER}:{secret}@{host}" if secret else host
