"""Images as they come: values that no engine can compute with."""

from __future__ import annotations

import logging

import numpy as np

from dls.server.volume import Float32

LARGEST = np.float32(1e18)
"""Its square is still a float32."""

log = logging.getLogger("dls.server")


def clean(image: Float32) -> None:
    """Set what is no finite number to 0, and what lies beyond 1e18 to that, in place; says so in the log."""
    odd = sum(_clean_slice(plane) for plane in image)  # a slice at a time, for the memory
    if odd:
        log.info("%d voxels are not finite numbers, or beyond 1e18; they count as 0 or 1e18", odd)


def _clean_slice(plane: Float32) -> int:
    usable = np.abs(plane) <= LARGEST
    if usable.all():
        return 0
    np.nan_to_num(plane, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    np.clip(plane, -LARGEST, LARGEST, out=plane)
    return int(usable.size - np.count_nonzero(usable))
