"""Plays ITK-SNAP: the requests of the real client, with its habits."""

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


@dataclass
class ItkSnapClient:
    """A client that opens a new connection for every request, as ITK-SNAP does."""

    port: int
    credentials: str = ""
    """`user:secret` from the Server field, or nothing."""
    session: str = ""
    shape: tuple[int, ...] = ()
    metadata: bytes = b""
    times: list[tuple[str, float, int]] = field(default_factory=list)
    """What was done, its seconds, and the bytes of the answer."""

    def request(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> Any:
        """Send one request and return the JSON of its answer; raises DlsError for any status but 200."""
        headers = {"Accept": "*/*"}
        if content_type:
            headers["Content-Type"] = content_type
        if self.credentials:
            headers["Authorization"] = "Basic " + base64.b64encode(self.credentials.encode()).decode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise DlsError(f"The server did not answer {path.split('?')[0]}: {error}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise DlsError(f"The server answered {answer.status}: {data.decode(errors='replace')[:500]}")
        return json.loads(data)

    def timed(self, name: str, method: str, path: str, body: bytes | None = None, content_type: str = "") -> Any:
        """Send one request and write down how long it took."""
        started = time.monotonic()
        said = self.request(method, path, body, content_type)
        self.times.append((name, time.monotonic() - started, len(json.dumps(said))))
        return said

    def start(self, model: str) -> None:
        """Start a session."""
        self.session = self.timed("start session", "GET", f"/v2/start_session/{model}")["session_id"]

    def upload(self, volume: npt.NDArray[np.float32], spacing: tuple[float, float, float]) -> None:
        """Send the image; spacing in (z, y, x)."""
        self.shape = volume.shape
        described = {
            "dimensions": list(reversed(volume.shape)),
            "spacing": list(reversed(spacing)),
            "origin": [0, 0, 0],
            "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1],
            "components_per_pixel": 1,
            "component_type": "float32",
        }
        self.metadata = json.dumps(described).encode()
        self.timed("upload", "POST", f"/upload_raw/{self.session}?filename=upload.nii.gz", *self._multipart(volume))

    def point(self, z: int, y: int, x: int, *, foreground: bool = True) -> npt.NDArray[np.uint8]:
        """Click, and return the mask."""
        where = f"point={x}&point={y}&point={z}&foreground={str(foreground).lower()}"
        return self._mask(self.timed("point", "GET", f"/v2/process_point_interaction/{self.session}?{where}"))

    def draw(self, kind: str, drawn: npt.NDArray[np.bool_], *, foreground: bool = True) -> npt.NDArray[np.uint8]:
        """Send a scribble or a lasso, and return the mask."""
        path = f"/process_{kind}_interaction/{self.session}?foreground={str(foreground).lower()}"
        return self._mask(self.timed(kind, "POST", path, *self._multipart(drawn.astype(np.float32))))

    def reset(self) -> None:
        """Forget what was drawn."""
        self.timed("reset", "GET", f"/reset_interactions/{self.session}")

    def end(self) -> None:
        """End the session."""
        self.timed("end session", "GET", f"/v2/end_session/{self.session}")

    def _multipart(self, values: npt.NDArray[np.float32]) -> tuple[bytes, str]:
        boundary = "-" * 24 + secrets.token_hex(8)
        packed = gzip.compress(np.ascontiguousarray(values, "<f4").tobytes(), 1)
        body = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="image.gz"\r\n'
            "Content-Type: application/gzip\r\n\r\n"
        ).encode()
        rest = (
            f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="metadata"\r\n'
            "Content-Type: application/json\r\n\r\n"
        ).encode()
        end = f"\r\n--{boundary}--\r\n".encode()
        return body + packed + rest + self.metadata + end, f"multipart/form-data; boundary={boundary}"

    def _mask(self, said: Any) -> npt.NDArray[np.uint8]:
        packed = base64.b64decode(said["result"])
        return np.frombuffer(gzip.decompress(packed), np.uint8).reshape(self.shape)
