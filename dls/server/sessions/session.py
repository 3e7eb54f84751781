"""One session: what it is, its image as its file has it, and its answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from dls.errors import Conflict
from dls.server.engines.base import Segmentation
from dls.server.sessions.journal import Record
from dls.server.sessions.store import SessionFiles
from dls.server.volume import Box, Geometry, Mask, Prompt, Volume
from dls.server.wire import masks, upload


@dataclass
class Session:
    """One client's image and what has been drawn on it."""

    id: str
    kept: SessionFiles
    last_request: str = ""
    """The request whose prompt was the last to be answered; sent again, it is not applied again."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    segmentation: Segmentation | None = None
    drawn: Box | None = None
    """Holds all that is not 0 in the segmentation's mask."""
    last_used: int = 0
    bytes: int = 0
    """The memory it holds, or is about to."""

    @property
    def geometry(self) -> Geometry:
        """The image's grid; raises Conflict before an image has come."""
        image = self.kept.manifest.image
        if image is None:
            raise Conflict("This session has no image yet. Send the image again from ITK-SNAP.")
        return image.geometry


def read_image(kept: SessionFiles, geometry: Geometry) -> Volume:
    """Read a session's image back from its file."""
    size = 4 * geometry.voxels
    sink = upload.ImageSink(size)
    inflater = upload.Inflater(sink, size)
    inflater.expect(size)
    kept.image(inflater.feed)
    inflater.finish()
    return sink.volume(geometry)


def answered(mask: Mask, drawn: Box | None, kept: SessionFiles | None, prompt: Prompt, request: str) -> bytes:
    """Encode the mask, and keep the prompt that gave it before anybody is told."""
    member = masks.encode_mask(mask, drawn)
    if kept is not None:
        kept.append(Record(prompt, request, masks.checksum(member)))
    return masks.answer(member)
