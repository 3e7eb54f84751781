"""Which requests may be sent again after they were cut off. No sockets, no threads."""

from __future__ import annotations

import re

from dls.remote.tunnel.official import ROUTES, path_of

_READ_ONLY = re.compile(rb"/(status|v2/models)")
# The server knows these requests by their names and applies none twice. A start_session or a claim that is applied
# twice leaves a session that nobody uses.
_NAMED = re.compile(
    rb"(/v2)?/(start_session(/[^/]*)?"
    rb"|(upload_raw|process_(point|scribble|lasso)_interaction|reset_interactions|end_session)/[^/]+)"
)


def is_repeatable(method: bytes, target: bytes) -> bool:
    """Whether a request can be sent again without harm: it changes nothing, or the server applies it only once."""
    path = path_of(target)
    if _READ_ONLY.fullmatch(path):
        return method in (b"GET", b"HEAD")
    return path in ROUTES or bool(_NAMED.fullmatch(path))
