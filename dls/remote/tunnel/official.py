"""The routes of nnInteractive's own HTTP protocol, and what its client makes of an answer. No sockets, no threads.

Official clients are napari-nninteractive, the extension of 3D Slicer and MITK, which use the client of nnInteractive
2.6 or speak as it does. They keep connections open and repeat nothing.
"""

from __future__ import annotations

import json
import re

import h11

from dls.remote.tunnel.headers import Headers

HEARTBEAT, HEALTHZ, LEASE_STATUS = b"/heartbeat", b"/healthz", b"/lease_status"
CLAIM, SET_IMAGE = b"/claim", b"/set_image"
ROUTES = frozenset(
    (
        *(HEARTBEAT, HEALTHZ, LEASE_STATUS, CLAIM, SET_IMAGE),
        *(b"/capabilities", b"/release", b"/set_target_buffer", b"/set_do_autozoom"),
        *(b"/reset_interactions", b"/undo", b"/predict"),
        *(b"/add_%s_interaction" % kind for kind in (b"bbox", b"point", b"scribble", b"lasso", b"initial_seg")),
    )
)
"""The paths of the protocol; the server knows requests for them by their names, and applies none twice."""
_LEASE = re.compile(rb"[0-9a-f]{32}")


def path_of(target: bytes) -> bytes:
    """Return the path of a request's target."""
    return target.partition(b"?")[0]


def find_lease(headers: Headers) -> bytes:
    """Return the token of the lease that a request is for; b"" where it has none, or one that no server gives."""
    token = next((value for key, value in headers if key.lower() == b"x-lease-token"), b"")
    return token if _LEASE.fullmatch(token) else b""


def is_pasted(response: h11.Response) -> bool:
    """Whether the client takes a changed box of the mask from this response: from a prediction that did run."""
    meta = next((value for key, value in response.headers if key == b"x-meta"), b"")
    if response.status_code != 200 or not meta:
        return False
    try:
        fields = json.loads(meta)
    except (ValueError, RecursionError):
        return False
    return isinstance(fields, dict) and fields.get("ran_prediction") is True
