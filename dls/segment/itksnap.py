"""A client that sends requests as ITK-SNAP does."""

from __future__ import annotations

import base64
import gzip
import json
import secrets
import time
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dls.errors import SegmentError
from dls.segment import http
from dls.segment.http import Address, ReportSent
from dls.segment.prompts import Box, Lasso, Point, Prompt, Scribble, fill_lasso

if TYPE_CHECKING:
    from dls.segment.prompts import Mask


@dataclass
class ItkSnapClient:
    """A client that opens a new connection for every request, as ITK-SNAP does."""

    address: Address
    session: str = ""
    """ID of the session; empty before `start`."""
    shape: tuple[int, ...] = ()
    """Shape (z, y, x) of the image; empty before `upload`."""
    metadata: bytes = b""
    """JSON that describes the image; ITK-SNAP sends it with each drawing too."""
    times: list[tuple[str, float, int]] = field(default_factory=list)
    """For each request its name, its seconds and the size of the response in bytes."""
    interactions: tuple[str, ...] = ()
    """The kinds of prompt that the session's model takes, where `choose_model` chose it."""

    def choose_model(self) -> str:
        """Return the id of the server's first model for volumes of one channel; raises SegmentError for none."""
        models = self._measure("models", "GET", "/v2/models").json()
        try:
            for model in models["models"]:
                if model["dimensions"] == 3 and 1 in model["channels"]:
                    self.interactions = tuple(model["interactions"])
                    return str(model["id"])
        except (KeyError, TypeError):
            pass
        raise SegmentError("The server has no model for volumes of one channel.")

    def _measure(
        self,
        name: str,
        method: str,
        path: str,
        form: tuple[bytes, str] = (b"", ""),
        sent: ReportSent = lambda done, total: None,
        timeout: float = http.TIMEOUT,
    ) -> http.Response:
        """Send one request, and add its time and size to `times`."""
        started = time.monotonic()
        body, content_type = form
        headers = {"Content-Type": content_type} if content_type else {}
        response = http.request(self.address, method, path, body, headers, sent, timeout)
        self.times.append((name, time.monotonic() - started, len(response.data)))
        return response

    def start(self, model: str) -> None:
        """Start a session with the model of that name."""
        fields = self._measure("start session", "GET", f"/v2/start_session/{model}").json()
        self.session = str(fields["session_id"])

    def upload(
        self,
        volume: npt.NDArray[Any],
        spacing: tuple[float, float, float],
        sent: ReportSent = lambda done, total: None,
    ) -> None:
        """Send the image, shape (z, y, x), with its spacing (z, y, x) in mm."""
        self.shape = volume.shape
        description = {
            "dimensions": list(reversed(volume.shape)),
            "spacing": list(reversed(spacing)),
            "origin": [0, 0, 0],
            "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1],
            "components_per_pixel": 1,
            "component_type": "float32",
        }
        self.metadata = json.dumps(description).encode()
        path = f"/upload_raw/{self.session}?filename=upload.nii.gz"
        self._measure("upload", "POST", path, self._encode_form(volume), sent)

    def add(self, prompt: Prompt) -> Mask:
        """Send a prompt, and return the mask; raises SegmentError for a kind that the model does not take."""
        kind = type(prompt).__name__.lower()
        if isinstance(prompt, Box) or (self.interactions and kind not in self.interactions):
            raise SegmentError(f"The server's model takes no {kind}.", f"It takes: {', '.join(self.interactions)}.")
        if isinstance(prompt, Point):
            return self.point(prompt.z, prompt.y, prompt.x, foreground=prompt.foreground)
        assert isinstance(prompt, Scribble | Lasso)
        return self.draw(kind, drawn_voxels(prompt), foreground=prompt.foreground)

    def point(self, z: int, y: int, x: int, *, foreground: bool = True) -> Mask:
        """Send a point prompt at a voxel, and return the mask, shape (z, y, x)."""
        query = f"point={x}&point={y}&point={z}&foreground={str(foreground).lower()}"
        return self._decode_mask(self._measure("point", "GET", f"/v2/process_point_interaction/{self.session}?{query}"))

    def draw(self, kind: str, drawing: npt.NDArray[np.bool_], *, foreground: bool = True) -> Mask:
        """Send a drawing of the kind `scribble` or `lasso`, and return the mask; both of shape (z, y, x)."""
        path = f"/process_{kind}_interaction/{self.session}?foreground={str(foreground).lower()}"
        return self._decode_mask(self._measure(kind, "POST", path, self._encode_form(drawing)))

    def reset(self) -> None:
        """Remove all prompts of the session."""
        self._measure("reset", "GET", f"/reset_interactions/{self.session}")

    def end(self) -> None:
        """End the session."""
        self._measure("end session", "GET", f"/v2/end_session/{self.session}", timeout=http.END_SECONDS)

    def _encode_form(self, values: npt.NDArray[Any]) -> tuple[bytes, str]:
        boundary = "-" * 24 + secrets.token_hex(8)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="image.gz"\r\n'
            "Content-Type: application/gzip\r\n\r\n"
        ).encode()
        middle = (
            f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="metadata"\r\n'
            "Content-Type: application/json\r\n\r\n"
        ).encode()
        end = f"\r\n--{boundary}--\r\n".encode()
        body = b"".join((head, gzip.compress(_float_bytes(values), 1), middle, self.metadata, end))
        return body, f"multipart/form-data; boundary={boundary}"

    def _decode_mask(self, response: http.Response) -> Mask:
        try:
            data = gzip.decompress(base64.b64decode(response.json()["result"]))
            return np.frombuffer(data, np.uint8).reshape(self.shape)
        except (KeyError, TypeError, ValueError, OSError, EOFError, zlib.error):
            raise SegmentError("The server's answer holds no mask of the image's size.") from None


def _float_bytes(values: npt.NDArray[Any]) -> memoryview:
    return memoryview(np.ascontiguousarray(values, "<f4").data).cast("B")


def drawn_voxels(prompt: Scribble | Lasso) -> npt.NDArray[np.bool_]:
    """Return what was drawn, as ITK-SNAP sends it: a lasso with its inside."""
    drawn = prompt.voxels.astype(bool)
    return fill_lasso(drawn) if isinstance(prompt, Lasso) else drawn
