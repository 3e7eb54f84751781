"""Plays ITK-SNAP with libcurl, as the real client uses it."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycurl


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence of a refusal."""
        said = self.json
        assert list(said) in (["error"], ["error", "detail"]) and said["error"].endswith("."), said
        assert said.get("detail", said["error"]) == said["error"], said
        return str(said["error"])


Part = tuple[str, bytes | None, str | None, str | None]
"""Of a form: name, data (None leaves the part out), file name and content type."""


class ItkSnap:
    """Plays ITK-SNAP with libcurl: a new connection for every request, the file part before the metadata,
    `Expect: 100-continue` for large bodies, and `user:secret@host` in the Server field."""

    def __init__(self, port: int, server: str = "127.0.0.1") -> None:
        self.url = f"http://{server}:{port}"
        self.session = ""
        self.shape: tuple[int, ...] = ()

    def get(self, path: str, headers: tuple[str, ...] = ()) -> Answer:
        return self._perform(path, list(headers))

    def post(self, path: str, file: bytes | None, metadata: bytes | None, headers: tuple[str, ...] = ()) -> Answer:
        form: list[Part] = [
            ("file", file, "image.gz", "application/gzip"),
            ("metadata", metadata, None, "application/json"),
        ]
        return self._perform(path, list(headers), form)

    def _perform(self, path: str, headers: list[str], form: Sequence[Part] | None = None) -> Answer:
        curl = pycurl.Curl()
        body, head = io.BytesIO(), io.BytesIO()
        curl.setopt(pycurl.URL, self.url + path)
        curl.setopt(pycurl.FRESH_CONNECT, 1)
        curl.setopt(pycurl.FORBID_REUSE, 1)
        curl.setopt(pycurl.TIMEOUT, 120)
        curl.setopt(pycurl.USERAGENT, "")
        curl.setopt(pycurl.HTTPHEADER, headers)
        curl.setopt(pycurl.WRITEDATA, body)
        curl.setopt(pycurl.HEADERFUNCTION, head.write)
        with contextlib.closing(curl), pycurl.CurlMime(curl) as mime:
            for name, data, filename, kind in form or []:
                if data is not None:
                    mime.add(name, data=data, filename=filename, content_type=kind)
            if form is not None:
                curl.setopt(pycurl.MIMEPOST, mime)
            curl.perform()
            status = curl.getinfo(pycurl.RESPONSE_CODE)
        last = head.getvalue().decode().strip().split("\r\n\r\n")[-1]
        pairs = [line.partition(": ") for line in last.split("\r\n")[1:]]
        return Answer(status, {name.lower(): value for name, _, value in pairs}, body.getvalue())

    def start(self, model: str = "region") -> str:
        answer = self.get(f"/v2/start_session/{model}")
        assert answer.status == 200, answer.body
        self.session = answer.json["session_id"]
        return self.session

    def upload(self, volume: np.ndarray, headers: tuple[str, ...] = (), **changes: Any) -> Answer:
        self.shape = volume.shape
        path = f"/upload_raw/{self.session}?filename=upload.nii.gz"
        return self.post(path, packed(volume), described(volume.shape, **changes), headers)

    def point(self, z: int, y: int, x: int, foreground: bool = True) -> Answer:
        where = f"point={x}&point={y}&point={z}&foreground={str(foreground).lower()}"
        return self.get(f"/v2/process_point_interaction/{self.session}?{where}")

    def draw(self, kind: str, drawn: np.ndarray, foreground: bool = True) -> Answer:
        path = f"/process_{kind}_interaction/{self.session}?foreground={str(foreground).lower()}"
        return self.post(path, packed(drawn), described(drawn.shape))

    def mask(self, answer: Answer) -> np.ndarray:
        assert answer.status == 200, answer.body
        said = answer.json
        assert list(said) == ["status", "result"] and said["status"] == "success"
        return unpacked(said["result"], self.shape)


def packed(values: np.ndarray) -> bytes:
    """Compress a volume as ITK-SNAP does: one gzip member of little-endian float32, x fastest."""
    return gzip.compress(np.ascontiguousarray(values, "<f4").tobytes(), 1, mtime=0)


def unpacked(result: str, shape: tuple[int, ...]) -> np.ndarray:
    """Decode a mask as ITK-SNAP does: it stops at the end of the first gzip member."""
    import zlib

    stream = zlib.decompressobj(31)
    data = stream.decompress(base64.b64decode(result))
    assert stream.eof and not stream.unused_data
    mask = np.frombuffer(data, np.int8).reshape(shape)
    assert set(np.unique(mask)) <= {0, 1}
    return mask


def described(shape: tuple[int, ...], **changes: Any) -> bytes:
    """Return the metadata of a volume of shape (z, y, x); a change of None leaves a key out."""
    said: dict[str, Any] = {
        "component_type": "float32",
        "components_per_pixel": 1,
        "dimensions": [int(side) for side in reversed(shape)],
        "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1],
        "origin": [0, 0, 0],
        "spacing": [1, 1, 1],
    }
    said.update(changes)
    return json.dumps({key: value for key, value in said.items() if value is not None}).encode()


def form(parts: list[tuple[str, bytes]], boundary: str = "B0undary") -> tuple[bytes, str]:
    """Return a multipart body and its content type."""
    text = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in parts
    )
    return text + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
