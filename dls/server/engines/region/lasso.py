"""Derive from a lasso the voxels around it and the likely size of the object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dls.server.volume import Bool, Float32

Ints = NDArray[np.int64]
"""Voxel coordinates of shape (N, 3), or one coordinate of shape (3,), in the order (z, y, x)."""


def _plane(drawn: Ints, pad: int) -> tuple[Bool, Ints]:
    """Return the drawn voxels as a mask, padded along the axes on which they extend, and its origin."""
    extent = drawn.max(0) - drawn.min(0)
    pads = np.where(extent > 0, pad, 0)
    low = drawn.min(0) - pads
    mask = np.zeros(tuple(extent + 1 + 2 * pads), bool)
    mask[tuple((drawn - low).T)] = True
    return mask, low


def core_voxels(drawn: Ints) -> Ints:
    """Return the voxels deep inside a lasso, which belong to the object even if the outline is rough."""
    mask, low = _plane(drawn, 1)
    depth = ndimage.distance_transform_edt(mask.squeeze()).reshape(mask.shape)
    return np.argwhere(depth >= 0.4 * depth.max()) + low


def ring_voxels(drawn: Ints, shape: Ints) -> Ints:
    """Return the voxels of a ring around a lasso in its slice, at some distance from the outline."""
    mask, low = _plane(drawn, 8)
    size = np.sqrt(mask.sum())
    distance = ndimage.distance_transform_edt(~mask.squeeze()).reshape(mask.shape)
    margin = 2.0 + 0.04 * size
    ring = np.argwhere((distance > margin) & (distance <= margin + 2.5)) + low
    return ring[((ring >= 0) & (ring < shape)).all(1)]


def inflate_lasso(volume: Float32, spacing: tuple[float, float, float], drawn: Ints) -> tuple[Bool, Ints]:
    """Return a body as thick as the outline is wide, restricted to the outline's intensities, and its origin.

    Used for objects without contrast, such as a thalamus, for which the outline is more reliable than the image.
    """
    axis = int(np.argmin(drawn.max(0) - drawn.min(0)))
    plane, low = _plane(drawn, 1)
    flat = plane.max(axis)
    depth = ndimage.distance_transform_edt(flat, sampling=[s for k, s in enumerate(spacing) if k != axis])
    radius = float(depth.max())
    slices = int(radius / spacing[axis])
    distance = np.abs(np.arange(-slices, slices + 1)) * spacing[axis]
    # The body has a round profile: a slice at this distance contains the voxels deeper than this in the outline.
    minimum_depth = radius - np.sqrt(np.maximum(radius**2 - distance**2, 0))
    body = np.moveaxis(depth[..., None] > minimum_depth, -1, axis)
    low = low - np.where(np.arange(3) == axis, slices, 0)
    inner = np.maximum(-low, 0)
    outer = np.minimum(np.array(volume.shape) - low, body.shape)
    body = body[tuple(slice(a, b) for a, b in zip(inner, outer, strict=True))]
    low = low + inner
    return body & _find_similar(volume, body, low, core_voxels(drawn)), low


def _find_similar(volume: Float32, body: Bool, low: Ints, sample: Ints) -> Bool:
    """Return the voxels with the intensities of the sample, with small gaps closed."""
    crop = volume[tuple(slice(int(a), int(a) + n) for a, n in zip(low, body.shape, strict=True))]
    values = ndimage.gaussian_filter(crop, 0.7, truncate=3.0)
    least, most = np.quantile(values[tuple((sample - low).T)], [0.02, 0.98])
    slack = 0.25 * (most - least)
    similar: Bool = ndimage.binary_closing((values >= least - slack) & (values <= most + slack))
    return similar
