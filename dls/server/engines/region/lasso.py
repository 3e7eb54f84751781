"""What a lasso says beyond its voxels: what lies around it, and how large the object is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dls.server.volume import Bool, Float32

Ints = NDArray[np.int64]


def _plane(drawn: Ints, pad: int) -> tuple[Bool, Ints]:
    """Return the drawn voxels as a padded mask, thin axes left thin, and its origin."""
    extent = drawn.max(0) - drawn.min(0)
    pads = np.where(extent > 0, pad, 0)
    low = drawn.min(0) - pads
    mask = np.zeros(tuple(extent + 1 + 2 * pads), bool)
    mask[tuple((drawn - low).T)] = True
    return mask, low


def core(drawn: Ints) -> Ints:
    """Return the deeper half of a lasso, which a rough outline is sure to hold."""
    mask, low = _plane(drawn, 1)
    depth = ndimage.distance_transform_edt(mask.squeeze()).reshape(mask.shape)
    return np.argwhere(depth >= 0.4 * depth.max()) + low


def ring(drawn: Ints, shape: Ints) -> Ints:
    """Return the voxels in the slice of a lasso that lie clear of its outline."""
    mask, low = _plane(drawn, 8)
    size = np.sqrt(mask.sum())
    away = ndimage.distance_transform_edt(~mask.squeeze()).reshape(mask.shape)
    margin = 2.0 + 0.04 * size
    ring = np.argwhere((away > margin) & (away <= margin + 2.5)) + low
    return ring[((ring >= 0) & (ring < shape)).all(1)]


def inflated(volume: Float32, spacing: tuple[float, float, float], drawn: Ints) -> tuple[Bool, Ints]:
    """Return a body as thick as the outline is wide, of the outline's own intensities, and its origin.

    For objects that do not stand out (a thalamus, say): there, the person who drew it knows more than the image.
    """
    axis = int(np.argmin(drawn.max(0) - drawn.min(0)))
    plane, low = _plane(drawn, 1)
    flat = plane.max(axis)
    depth = ndimage.distance_transform_edt(flat, sampling=[s for k, s in enumerate(spacing) if k != axis])
    radius = float(depth.max())
    reach = int(radius / spacing[axis])
    away = np.abs(np.arange(-reach, reach + 1)) * spacing[axis]
    # A slice at this distance through a body that is round in profile keeps what is deeper than this.
    keep = radius - np.sqrt(np.maximum(radius**2 - away**2, 0))
    body = np.moveaxis(depth[..., None] > keep, -1, axis)
    low = low - np.where(np.arange(3) == axis, reach, 0)
    inner = np.maximum(-low, 0)
    outer = np.minimum(np.array(volume.shape) - low, body.shape)
    body = body[tuple(slice(a, b) for a, b in zip(inner, outer, strict=True))]
    low = low + inner
    return body & _alike(volume, body, low, core(drawn)), low


def _alike(volume: Float32, body: Bool, low: Ints, sample: Ints) -> Bool:
    """Return where the image has the intensities of the sample, small gaps closed."""
    crop = volume[tuple(slice(int(a), int(a) + n) for a, n in zip(low, body.shape, strict=True))]
    values = ndimage.gaussian_filter(crop, 0.7, truncate=3.0)
    least, most = np.quantile(values[tuple((sample - low).T)], [0.02, 0.98])
    slack = 0.25 * (most - least)
    alike: Bool = ndimage.binary_closing((values >= least - slack) & (values <= most + slack))
    return alike
