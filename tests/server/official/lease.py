"""A client of nnInteractive's own protocol that shows every answer, and pastes boxes as the official client does."""

from __future__ import annotations

import contextlib
import http.client
import json
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.nninteractive import MODEL  # noqa: F401 - skips the tests of a module without the library


def pack(array: np.ndarray) -> bytes:
    from nnInteractive.inference.remote.serialization import pack_array

    return bytes(pack_array(array))


def unpack(data: bytes) -> np.ndarray:
    from nnInteractive.inference.remote.serialization import unpack_array

    array: np.ndarray = unpack_array(data)
    return array


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        """The sentence of a refusal, which stands under two keys."""
        said = self.json
        assert list(said) == ["error", "detail"] and said["error"] == said["detail"], said
        return str(said["detail"])

    @property
    def meta(self) -> Any:
        return json.loads(self.headers["x-meta"])

    @property
    def box(self) -> list[list[int]] | None:
        assert self.status == 200, self.body
        box: list[list[int]] | None = self.meta["bbox"]
        return box


class Lease:
    """One lease of a server, and the client's copy of the buffer."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self.port = port
        self.token = token or self.claim()
        self.copy: np.ndarray | None = None

    def claim(self) -> str:
        """Return the token of another lease of the same server."""
        return str(self.ask("POST", "/claim", X_Lease_Token="").json["lease_token"])

    def ask(self, method: str, path: str, content: bytes | None = None, **headers: str) -> Reply:
        """Send a request on a connection of its own."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if "X-Lease-Token" not in named:
            named["X-Lease-Token"] = self.token
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            connection.request(method, path, content, named)
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())

    def post(self, path: str, fields: Any, **headers: str) -> Reply:
        return self.paste(self.ask("POST", path, json.dumps(fields).encode(), **headers))

    def send(self, path: str, array: np.ndarray, meta: Any, **headers: str) -> Reply:
        return self.paste(self.ask("POST", path, pack(array), X_Meta=json.dumps(meta), **headers))

    def paste(self, reply: Reply) -> Reply:
        if self.copy is not None and "x-meta" in reply.headers and reply.meta["ran_prediction"] and reply.meta["bbox"]:
            self.copy[tuple(slice(*pair) for pair in reply.meta["bbox"])] = unpack(reply.body)
        return reply

    def set_image(self, image: np.ndarray, **headers: str) -> Reply:
        return self.ask("POST", "/set_image", pack(image[None]), X_Meta="{}", **headers)

    def set_buffer(self, shape: tuple[int, ...], dtype: str = "uint8", **headers: str) -> Reply:
        self.copy = np.zeros(shape, dtype)
        return self.post("/set_target_buffer", {"shape": list(shape), "dtype": dtype}, **headers)

    def point(self, *at: float, run: bool = True, include: bool = True, **headers: str) -> Reply:
        fields = {"coordinates": list(at), "include_interaction": include, "run_prediction": run}
        return self.post("/add_point_interaction", fields, **headers)

    def seed(self, mask: np.ndarray, run: bool = False, **headers: str) -> Reply:
        """Send an initial segmentation, which the client pastes into its copy before it is answered."""
        if self.copy is not None:
            self.copy[:] = mask
        return self.send("/add_initial_seg_interaction", mask, {"run_prediction": run}, **headers)

    def reset(self, **headers: str) -> Reply:
        if self.copy is not None:
            self.copy[:] = 0
        return self.post("/reset_interactions", {}, **headers)


def stored_folder(home: Path, token: str) -> Path:
    """Return the folder with a lease's files."""
    [folder] = [path for path in home.rglob("*") if path.is_dir() and path.name.replace("-", "") == token]
    return folder
