"""One session's state, and how its image is read and its answers are encoded."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from dls.contract import NO_IMAGE
from dls.errors import Conflict
from dls.server.engines.base import Segmentation
from dls.server.sessions.applied import AppliedRequests
from dls.server.sessions.arrivals import Arrival
from dls.server.sessions.files import SessionFiles
from dls.server.sessions.incoming import IncomingImage
from dls.server.sessions.journal import Record
from dls.server.volume import Box, Geometry, Mask, Prompt, Volume
from dls.server.wire import masks, upload


class Held(Protocol):
    """What the engine holds of a session."""

    def close(self) -> None:
        """Free its memory."""


@dataclass
class Session:
    """One client's image and the prompts on it.

    The session is asleep when `segmentation` is None: the engine holds nothing of it, and its files hold everything.
    """

    id: str
    files: SessionFiles
    requests: AppliedRequests = field(default_factory=AppliedRequests)
    """The requests that were applied."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    segmentation: Segmentation | None = None
    occupied: Box | None = None
    """Box outside which the segmentation's mask is 0 everywhere; None for an empty mask."""
    is_ended: bool = False
    """Whether the session's files are being removed or are gone; requests that waited for its lock find nothing."""
    arriving: weakref.WeakSet[IncomingImage] = field(default_factory=weakref.WeakSet)
    """Images that are being received for the session."""
    uploads: dict[str, tuple[Arrival, asyncio.Event]] = field(default_factory=dict)
    """The uploads that have a name, by their names; each with an event that is set when it has ended."""
    last_used: int = 0
    """Position of the session's last use in the order of all uses."""
    used_at: float = 0.0
    """Time of the session's last use, in seconds since 1970."""
    engine_seconds: float = 0.0
    """Seconds that the engine took for the last prompt."""
    reserved: int = 0
    """Bytes of memory that the session takes, or that are reserved for an image being opened."""

    @contextlib.contextmanager
    def uploading(self, name: str, arrival: Arrival) -> Iterator[None]:
        """Let an upload be found by its name, if it has one, while the context is open."""
        if not name:
            yield
            return
        ended = asyncio.Event()
        self.uploads[name] = arrival, ended
        try:
            yield
        finally:
            ended.set()
            if self.uploads.get(name) == (arrival, ended):
                del self.uploads[name]

    def arriving_files(self) -> set[str]:
        """Return the names of the files to which images are written now."""
        return {each.path.name for each in self.arriving if each.is_open}

    async def end_upload(self, name: str) -> None:
        """End the upload of that name, if there is one: its client goes on over another connection."""
        if name in self.uploads:
            arrival, ended = self.uploads[name]
            arrival.replace()
            await ended.wait()

    @property
    def is_awake(self) -> bool:
        """Whether the engine holds the session's image."""
        return self.segmentation is not None

    def detach(self) -> Held | None:
        """Put the session to sleep, and return what the engine holds of it, which is to be closed."""
        held, self.segmentation = self.segmentation, None
        return held

    @property
    def has_image(self) -> bool:
        """Whether an image was uploaded."""
        return self.files.manifest.image is not None

    @property
    def geometry(self) -> Geometry:
        """The image's grid; raises Conflict if no image was uploaded yet."""
        image = self.files.manifest.image
        if image is None:
            raise Conflict(NO_IMAGE)
        return image.geometry


def read_image(files: SessionFiles, geometry: Geometry) -> Volume:
    """Read a session's image from its file."""
    size = 4 * geometry.voxels
    sink = upload.ImageSink(size)
    inflater = upload.Inflater(sink, size)
    inflater.expect(size)
    files.read_image(inflater.feed)
    inflater.finish()
    return sink.volume(geometry)


def encode_answer(mask: Mask, occupied: Box | None) -> bytes:
    """Return the body that answers a prompt with the mask."""
    return masks.encode_answer(masks.encode_mask(mask, occupied))


def record_answer(mask: Mask, occupied: Box | None, files: SessionFiles, prompt: Prompt, request: str) -> bytes:
    """Store the prompt and the mask in the session's files, and return the body that answers the prompt.

    Both are stored before the client sees the answer; raises Exhausted if they can't be. Storing comes last, so that
    nothing is stored if there is no memory for the answer.
    """
    member = masks.encode_mask(mask, occupied)
    body = masks.encode_answer(member)
    files.append(Record(prompt, request, masks.read_crc(member)), member)
    return body


def compare_masks(first: Mask, second: Mask) -> tuple[int, float]:
    """Return the number of voxels in which the masks differ, and their Dice coefficient."""
    different = int(np.count_nonzero(first != second))
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return different, 1 - different / total if total else 1.0
