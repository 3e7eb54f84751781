"""A client of nnInteractive's own protocol, which takes boxes too: the server's session is called a lease there."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dls.errors import SegmentError
from dls.extras import install_hint
from dls.segment import http
from dls.segment.http import Address, ReportSent
from dls.segment.itksnap import drawn_voxels
from dls.segment.prompts import Box, Lasso, Point, Prompt, Scribble

if TYPE_CHECKING:
    from dls.segment.prompts import Mask

CHUNK_BYTES = 1 << 30
"""Plain bytes of a chunk of a packed array; blosc2 takes less than 2 GiB at a time."""
FLAT = "Models of nnInteractive take flat boxes: give two corners that are equal on one axis."
NOT_SERVED = (404, 405, 501)
"""Statuses of a server that does not speak this protocol."""
_HEAD, _CHUNK, _COUNT = struct.Struct("<4sBBBB"), struct.Struct("<QQ"), struct.Struct("<I")
MAGIC, VERSION, ZSTD = b"NNIA", 1, 1


@dataclass
class LeaseClient:
    """A session of nnInteractive's own protocol, with one image and one mask."""

    address: Address
    token: str = ""
    """The lease's token; empty before `start`."""
    mask: Mask = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))

    def start(self) -> None:
        """Begin a lease; raises SegmentError where the server or its engine takes no boxes."""
        _import_blosc2()
        try:
            fields = self._post("claim").json()
        except SegmentError as error:
            if error.status not in NOT_SERVED:
                raise
            raise SegmentError(
                "The server's engine takes no boxes.",
                "Use --engine nninteractive, or another kind of prompt.",
                status=error.status,
            ) from error
        self.token = str(fields["lease_token"])

    def upload(
        self,
        volume: npt.NDArray[Any],
        spacing: tuple[float, float, float],
        sent: ReportSent = lambda done, total: None,
    ) -> None:
        """Send the image, shape (z, y, x), and begin an empty mask; the protocol has no spacing."""
        self._post("set_image", pack(np.ascontiguousarray(volume, np.float32)[None]), {}, sent)
        self._post("set_target_buffer", {"shape": list(volume.shape), "dtype": "uint8"})
        self.mask = np.zeros(volume.shape, np.uint8)

    def reset(self) -> None:
        """Remove all prompts, and empty the mask."""
        self._post("reset_interactions")
        self.mask[:] = 0

    def add(self, prompt: Prompt) -> Mask:
        """Send a prompt, and return the mask."""
        assert isinstance(prompt, Point | Box | Scribble | Lasso)
        fields: dict[str, Any] = {"include_interaction": prompt.foreground}
        if isinstance(prompt, Point):
            fields["coordinates"] = [prompt.z, prompt.y, prompt.x]
            response = self._post("add_point_interaction", fields)
        elif isinstance(prompt, Box):
            pairs = zip(prompt.low, prompt.high, strict=True)
            fields["bbox_coords"] = [[min(pair), max(pair) + 1] for pair in pairs]
            try:
                response = self._post("add_bbox_interaction", fields)
            except SegmentError as error:
                is_flat = any(low == high for low, high in zip(prompt.low, prompt.high, strict=True))
                error.hint = error.hint or ("" if is_flat else FLAT)
                raise
        else:
            drawn = drawn_voxels(prompt)
            bounds = [(int(at.min()), int(at.max()) + 1) for at in np.nonzero(drawn)]
            fields["interaction_bbox"] = [list(pair) for pair in bounds]
            crop = drawn[tuple(slice(*pair) for pair in bounds)].astype(np.uint8)
            response = self._post(f"add_{type(prompt).__name__.lower()}_interaction", pack(crop), fields)
        self._paste(response)
        return self.mask

    def end(self) -> None:
        """End the lease."""
        self._post("release", timeout=http.END_SECONDS)

    def _paste(self, response: http.Response) -> None:
        try:
            box = json.loads(response.headers["x-meta"])["bbox"]
            if box is not None:
                place = tuple(slice(int(low), int(high)) for low, high in box)
                self.mask[place] = unpack(response.data)
        except (KeyError, TypeError, ValueError, IndexError, struct.error) as error:
            raise SegmentError("The server's answer holds no mask of the image's size.") from error

    def _post(
        self,
        operation: str,
        body: dict[str, Any] | bytes | None = None,
        meta: dict[str, Any] | None = None,
        sent: ReportSent = lambda done, total: None,
        timeout: float = http.TIMEOUT,
    ) -> http.Response:
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        headers = {"Content-Type": kind}
        if self.token:
            headers["X-Lease-Token"] = self.token
        if meta is not None:
            headers["X-Meta"] = json.dumps(meta)
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        return http.request(self.address, "POST", f"/{operation}", data, headers, sent, timeout)


def _import_blosc2() -> Any:
    try:
        import blosc2
    except ImportError as error:
        raise SegmentError(
            "A box needs the package blosc2, which is not installed here.", install_hint("segment")
        ) from error
    return blosc2


def pack(array: npt.NDArray[Any]) -> bytes:
    """Pack an array as the protocol has it (the format is described in `dls/server/wire/nnia.py`)."""
    blosc2 = _import_blosc2()
    array = np.ascontiguousarray(array)
    name, data = array.dtype.name.encode(), memoryview(array.data).cast("B")
    parts = [
        _HEAD.pack(MAGIC, VERSION, ZSTD, array.ndim, len(name)),
        name,
        struct.pack(f"<{array.ndim}q", *array.shape),
    ]
    starts = range(0, len(data), CHUNK_BYTES)
    parts.append(_COUNT.pack(len(starts)))
    for start in starts:
        plain = data[start : start + CHUNK_BYTES]
        # The size of an element has to be its real one: blosc2 can't read back zeros of a length that is no multiple.
        packed = blosc2.compress2(
            plain, typesize=array.dtype.itemsize, codec=blosc2.Codec.ZSTD, clevel=1, filters=[blosc2.Filter.SHUFFLE]
        )
        parts += [_CHUNK.pack(len(plain), len(packed)), packed]
    return b"".join(parts)


def unpack(data: bytes) -> npt.NDArray[Any]:
    """Return the array that `data` holds; raises ValueError or struct.error for something else."""
    blosc2 = _import_blosc2()
    magic, version, _, ndim, length = _HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise ValueError("no packed array")
    at = _HEAD.size
    dtype = np.dtype(data[at : at + length].decode())
    at += length
    shape = struct.unpack_from(f"<{ndim}q", data, at)
    at += 8 * ndim
    (chunks,) = _COUNT.unpack_from(data, at)
    at += _COUNT.size
    plain = bytearray()
    for _ in range(chunks):
        _, packed = _CHUNK.unpack_from(data, at)
        at += _CHUNK.size
        plain += blosc2.decompress2(data[at : at + packed])
        at += packed
    if len(plain) != math.prod(shape) * dtype.itemsize:
        raise ValueError("a packed array of another length than its shape")
    return np.frombuffer(plain, dtype).reshape(shape)
