"""Segments volumes with prompts through a server's address, and sends an image again only when it is another one."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dls.errors import DlsError, SegmentError
from dls.segment.http import Address, ReportSent
from dls.segment.itksnap import ItkSnapClient
from dls.segment.lease import LeaseClient
from dls.segment.prompts import Box, Prompt, check

if TYPE_CHECKING:
    from dls.segment.prompts import Mask, Volume

GONE = (404, 410)
"""Statuses with which the server says that it does not have the session any more."""
Spacing = tuple[float, float, float]
ReportPrompt = Callable[[int], None]
"""Called with the number of each prompt, from 1, before it is sent."""


class Segmenter:
    """Keeps one session at a server; a context manager that ends it, and with it the server's copy of the image.

    A session speaks ITK-SNAP's protocol, or nnInteractive's own one as soon as a prompt is a box.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._client: ItkSnapClient | LeaseClient | None = None
        self._image = b""
        """Digest of the image that the server has."""
        self._lock = threading.Lock()

    def segment(
        self,
        volume: Volume,
        prompts: Sequence[Prompt],
        spacing: Spacing = (1.0, 1.0, 1.0),
        *,
        sent: ReportSent = lambda done, total: None,
        applied: ReportPrompt = lambda number: None,
    ) -> Mask:
        """Return the mask (uint8, 0 and 1) that the prompts give, applied in their order; shapes are (z, y, x).

        `spacing` is that of the voxels in mm, in the order (z, y, x). Raises SegmentError for a volume, prompts or
        server that do not fit, and ConnectError or LinkError without an answer.
        """
        values = _to_floats(volume)
        check(prompts, _three(values.shape))
        has_box = any(isinstance(prompt, Box) for prompt in prompts)
        with self._lock:
            try:
                client = self._with_image(values, spacing, has_box, sent)
                return _apply(client, prompts, applied)
            except SegmentError as error:
                if error.status not in GONE:
                    raise
            self._end()  # the server has removed a session that was not used for long
            return _apply(self._with_image(values, spacing, has_box, sent), prompts, applied)

    def _with_image(
        self, values: npt.NDArray[np.float32], spacing: Spacing, has_box: bool, sent: ReportSent
    ) -> ItkSnapClient | LeaseClient:
        """Return a client whose session has the image and no prompts."""
        digest = hashlib.sha256(repr((values.shape, spacing)).encode() + hashlib.sha256(values.data).digest()).digest()
        if (
            self._client is not None
            and digest == self._image
            and (isinstance(self._client, LeaseClient) or not has_box)
        ):
            self._client.reset()
            return self._client
        self._end()
        client: ItkSnapClient | LeaseClient
        if has_box:
            client = LeaseClient(self._address)
            client.start()
        else:
            client = ItkSnapClient(self._address)
            client.start(client.choose_model())
        self._client = client
        client.upload(values, spacing, sent)
        self._image = digest
        return client

    def _end(self) -> None:
        client, self._client, self._image = self._client, None, b""
        if client is not None:
            with contextlib.suppress(DlsError):
                client.end()

    def close(self) -> None:
        """End the session at the server, if there is one, also while another thread waits for a mask."""
        self._end()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _apply(client: ItkSnapClient | LeaseClient, prompts: Sequence[Prompt], applied: ReportPrompt) -> Mask:
    mask = np.zeros(0, np.uint8)
    for number, prompt in enumerate(prompts, 1):
        applied(number)
        mask = client.add(prompt)
    return np.array(mask)


def _to_floats(volume: Volume) -> npt.NDArray[np.float32]:
    array = np.asarray(volume)
    if array.ndim != 3 or not array.size or array.dtype.kind not in "biuf":
        raise SegmentError(
            f"A volume is an array of numbers of the shape (z, y, x); this one is {array.dtype} {array.shape}."
        )
    return np.ascontiguousarray(array, np.float32)


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    z, y, x = shape
    return z, y, x
