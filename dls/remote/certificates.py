"""The authorities whose certificates this computer trusts."""

from __future__ import annotations

import ssl
from pathlib import Path

MACOS_CERTIFICATES = Path("/etc/ssl/cert.pem")
"""Where macOS has certificates that python.org's Python does not look for."""


def default_context(also_at: Path = MACOS_CERTIFICATES) -> ssl.SSLContext:
    """Return a context that trusts what this computer trusts; where Python has no authority, those of that file."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"] and also_at.is_file():
        context.load_verify_locations(also_at)
    return context
