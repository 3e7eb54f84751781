"""Replace the values of an image that no engine can compute with."""

from __future__ import annotations

import logging

import numpy as np

from dls.server.volume import Float32

MAX_MAGNITUDE = np.float32(1e18)
"""Largest magnitude of a voxel: its square is still a float32."""

log = logging.getLogger("dls.server")


def sanitize(image: Float32) -> None:
    """Set NaN and infinities to 0 and clip the other values to ±1e18, in place; logs how many voxels it changed."""
    changed = sum(_sanitize_slice(plane) for plane in image)  # slice by slice, to save memory
    if changed:
        log.info("%d voxels are not finite numbers, or beyond 1e18; they count as 0 or 1e18", changed)


def _sanitize_slice(plane: Float32) -> int:
    usable = np.abs(plane) <= MAX_MAGNITUDE
    if usable.all():
        return 0
    np.nan_to_num(plane, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    np.clip(plane, -MAX_MAGNITUDE, MAX_MAGNITUDE, out=plane)
    return int(usable.size - np.count_nonzero(usable))
