"""Makes and keeps the pictures of sessions, one at a time, from the sessions' files: no engine is asked or woken."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from dls.errors import RequestError
from dls.server.executors import Executors
from dls.server.pictures import drawing, samples
from dls.server.sessions.journal import Manifest
from dls.server.volume import Mask

T = TypeVar("T")

UNKNOWN_GREY = 16
"""Grey level of an image that is not read."""
MAX_IMAGES = 8
"""Small images that are kept: at most 3 MB each."""
MAX_PICTURES = 32
"""Pictures that are kept: some 60 KB each."""

log = logging.getLogger("dls.server")


class Recent(OrderedDict[str, T], Generic[T]):
    """Keeps the items that were used last."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def fetch(self, key: str, make: Callable[[], T]) -> T:
        """Return the item, which is made where it is not there."""
        if key not in self:
            self[key] = make()
        self.move_to_end(key)
        while len(self) > self._limit:
            self.popitem(last=False)
        return self[key]


def version_of(manifest: Manifest) -> str:
    """Return what changes with every image, prompt and reset of the session."""
    return f"{manifest.number}-{manifest.end.count if manifest.end else 0}"


def can_be_drawn(manifest: Manifest) -> bool:
    """Return whether there is a picture.

    An official client's image is unpacked in the engine's process alone, so its session shows the mask without it.
    """
    if manifest.image is None or manifest.image.geometry.components != 1:
        return False
    return manifest.carried is None or bool(manifest.mask)


class Gallery:
    """Makes pictures on a thread, and keeps the last ones."""

    def __init__(self, executors: Executors) -> None:
        self._executors = executors
        self._lock = asyncio.Lock()
        self._images: Recent[Mask] = Recent(MAX_IMAGES)
        self._pictures: Recent[bytes] = Recent(MAX_PICTURES)

    async def picture(self, manifest: Manifest, folder: Path) -> bytes | None:
        """Return the session's picture as a PNG; None for one whose files have changed or gone meanwhile."""
        async with self._lock:
            try:
                return await self._executors.codec(self._find, manifest, folder)
            except (OSError, RequestError) as error:
                log.debug("no picture of session %s: %s", manifest.id[:8], type(error).__name__)
                return None

    def _find(self, manifest: Manifest, folder: Path) -> bytes:
        return self._pictures.fetch(f"{manifest.id}/{version_of(manifest)}", lambda: self._make(manifest, folder))

    def _make(self, manifest: Manifest, folder: Path) -> bytes:
        assert manifest.image is not None
        path, geometry = Path(manifest.image.path), manifest.image.geometry
        mask = samples.read_mask(folder / manifest.mask, geometry.shape) if manifest.mask else None
        if manifest.carried is None:
            image = self._images.fetch(str(path), lambda: samples.read_image(path, geometry.shape))
        else:
            assert mask is not None
            image = np.full_like(mask, UNKNOWN_GREY)
        over = None if mask is None else drawing.orient(mask, geometry)
        return drawing.draw(drawing.orient(image, geometry), over)
