"""An HTTP client that sends requests as ITK-SNAP does."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dls.errors import DlsError

TIMEOUT = 300
"""Seconds to wait for a response: on a CPU a prompt can take more than half a minute."""


@dataclass
class ItkSnapClient:
    """A client that opens a new connection for every request, as ITK-SNAP does."""

    port: int
    """Port on loopback that the server or the tunnel listens on."""
    credentials: str = ""
    """`user:secret` as in ITK-SNAP's Server field; empty to send no credentials."""
    session: str = ""
    """ID of the session; empty before `start`."""
    shape: tuple[int, ...] = ()
    """Shape (z, y, x) of the image; empty before `upload`."""
    metadata: bytes = b""
    """JSON that describes the image; ITK-SNAP sends it with each drawing too."""
    times: list[tuple[str, float, int]] = field(default_factory=list)
    """For each request its name, its seconds and the size of the response in bytes."""

    def request(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> Any:
        """Send one request and return the JSON of the response; raises DlsError for a status other than 200."""
        headers = {"Accept": "*/*"}
        if content_type:
            headers["Content-Type"] = content_type
        if self.credentials:
            headers["Authorization"] = "Basic " + base64.b64encode(self.credentials.encode()).decode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise DlsError(f"The server did not answer {path.split('?')[0]}: {error}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise DlsError(f"The server answered {response.status}: {data.decode(errors='replace')[:500]}")
        return json.loads(data)

    def _measure(self, name: str, method: str, path: str, body: bytes | None = None, content_type: str = "") -> Any:
        """Send one request, and add its time and size to `times`."""
        started = time.monotonic()
        fields = self.request(method, path, body, content_type)
        self.times.append((name, time.monotonic() - started, len(json.dumps(fields))))
        return fields

    def start(self, model: str) -> None:
        """Start a session with the model of that name."""
        self.session = self._measure("start session", "GET", f"/v2/start_session/{model}")["session_id"]

    def upload(self, volume: npt.NDArray[np.float32], spacing: tuple[float, float, float]) -> None:
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
        self._measure(
            "upload", "POST", f"/upload_raw/{self.session}?filename=upload.nii.gz", *self._encode_form(volume)
        )

    def point(self, z: int, y: int, x: int, *, foreground: bool = True) -> npt.NDArray[np.uint8]:
        """Send a point prompt at a voxel, and return the mask, shape (z, y, x)."""
        query = f"point={x}&point={y}&point={z}&foreground={str(foreground).lower()}"
        return self._decode_mask(self._measure("point", "GET", f"/v2/process_point_interaction/{self.session}?{query}"))

    def draw(self, kind: str, drawing: npt.NDArray[np.bool_], *, foreground: bool = True) -> npt.NDArray[np.uint8]:
        """Send a drawing of the kind `scribble` or `lasso`, and return the mask; both of shape (z, y, x)."""
        path = f"/process_{kind}_interaction/{self.session}?foreground={str(foreground).lower()}"
        return self._decode_mask(self._measure(kind, "POST", path, *self._encode_form(drawing.astype(np.float32))))

    def reset(self) -> None:
        """Remove all prompts of the session."""
        self._measure("reset", "GET", f"/reset_interactions/{self.session}")

    def end(self) -> None:
        """End the session."""
        self._measure("end session", "GET", f"/v2/end_session/{self.session}")

    def _encode_form(self, values: npt.NDArray[np.float32]) -> tuple[bytes, str]:
        boundary = "-" * 24 + secrets.token_hex(8)
        compressed = gzip.compress(np.ascontiguousarray(values, "<f4").tobytes(), 1)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="image.gz"\r\n'
            "Content-Type: application/gzip\r\n\r\n"
        ).encode()
        middle = (
            f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="metadata"\r\n'
            "Content-Type: application/json\r\n\r\n"
        ).encode()
        end = f"\r\n--{boundary}--\r\n".encode()
        return head + compressed + middle + self.metadata + end, f"multipart/form-data; boundary={boundary}"

    def _decode_mask(self, fields: Any) -> npt.NDArray[np.uint8]:
        compressed = base64.b64decode(fields["result"])
        return np.frombuffer(gzip.decompress(compressed), np.uint8).reshape(self.shape)
