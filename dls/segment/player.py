"""Plays ITK-SNAP against an address with a small made image, and measures each request; the standard library only."""

from __future__ import annotations

import base64
import binascii
import contextlib
import gzip
import http.client
import json
import secrets
import time
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from dls.errors import ConnectError, DlsError, EngineError, LaunchError, LoginError, TargetError
from dls.segment.http import Address, get_response

SIDE = 64
"""Voxels along each side of the image."""
RADIUS = 20
"""Radius of the bright ball in its middle."""
TIMEOUT = 300.0
"""Seconds to wait for an answer: on a CPU a prompt can take more than half a minute."""


@dataclass(frozen=True)
class Timing:
    """One request, with its bytes and its seconds."""

    name: str
    sent: int
    received: int
    seconds: float


def make_ball() -> bytes:
    """Return the image: float32, little endian, 100 inside the ball and 0 outside."""
    values = array("f")
    for z in range(SIDE):
        for y in range(SIDE):
            rest = RADIUS**2 - (z - SIDE // 2) ** 2 - (y - SIDE // 2) ** 2
            half = int(rest**0.5) if rest >= 0 else -1
            row = [0.0] * SIDE
            for x in range(SIDE // 2 - half, SIDE // 2 + half + 1):
                row[x] = 100.0
            values.extend(row)
    if array("H", [1]).tobytes() != b"\x01\x00":
        values.byteswap()
    return values.tobytes()


class Player:
    """A client that opens a new connection for every request, as ITK-SNAP does."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._session = ""

    def play(self, model: str = "") -> Iterator[Timing]:
        """Yield each request once it is answered: status to end; raises a DlsError that says what went wrong.

        `model` is the name of a model; by default the first one.
        """
        yield self._request("status", "/status")[1]
        fields, timing = self._request("models", "/v2/models")
        yield timing
        names = _list_names(fields)
        if model and model not in names:
            raise TargetError(f"The server has no model named {model!r}.", f"It has: {', '.join(names)}.")
        fields, timing = self._request("start session", f"/v2/start_session/{quote(model or names[0], safe='')}")
        yield timing
        self._session = quote(str(fields.get("session_id", "")), safe="")
        end = f"/v2/end_session/{self._session}"
        try:
            yield from self._draw()
        except BaseException:
            with contextlib.suppress(DlsError):
                self._request("end session", end)
            raise
        yield self._request("end session", end)[1]

    def _draw(self) -> Iterator[Timing]:
        """Send the image and the prompts."""
        yield self._request("upload", f"/upload_raw/{self._session}?filename=image.nii.gz", _form(make_ball()))[1]
        middle = SIDE // 2
        yield self._prompt("point inside", self._point(middle, middle, middle, inside=True), grows=True)
        yield self._prompt("point outside", self._point(2, 2, 2, inside=False))
        drawing = array("f", bytes(4 * SIDE**3))
        for x in range(middle - 8, middle + 9):
            drawing[(middle * SIDE + middle) * SIDE + x] = 1.0
        path = f"/process_scribble_interaction/{self._session}?foreground=true"
        yield self._prompt("scribble", path, _form(drawing.tobytes()), grows=True)
        yield self._request("reset", f"/reset_interactions/{self._session}")[1]

    def _point(self, z: int, y: int, x: int, *, inside: bool) -> str:
        query = f"point={x}&point={y}&point={z}&foreground={str(inside).lower()}"
        return f"/v2/process_point_interaction/{self._session}?{query}"

    def _prompt(self, name: str, path: str, form: tuple[bytes, str] | None = None, *, grows: bool = False) -> Timing:
        """Send a prompt and look at its mask: of the image's size, of zeros and ones, and not empty if it `grows`."""
        fields, timing = self._request(name, path, form)
        try:
            mask = gzip.decompress(base64.b64decode(str(fields["result"]), validate=True))
        except (KeyError, binascii.Error, OSError, EOFError, zlib.error) as error:
            raise EngineError(f"The answer to {name!r} holds no mask.", "The server's log may say more.") from error
        inside = mask.count(1)
        if len(mask) != SIDE**3 or inside + mask.count(0) != len(mask):
            raise EngineError(
                f"The mask that answers {name!r} is not one of this image.", "The server's log may say more."
            )
        if grows and not inside:
            raise EngineError(f"The mask that answers {name!r} is empty.", "The server's log may say more.")
        return timing

    def _request(self, name: str, path: str, form: tuple[bytes, str] | None = None) -> tuple[dict[str, Any], Timing]:
        """Send one request and return the JSON of the answer with its timing."""
        body, kind = form or (b"", "")
        headers = {"Accept": "*/*", **({"Content-Type": kind} if kind else {})}
        if self._address.credentials:
            token = base64.b64encode(self._address.credentials.encode()).decode()
            headers["Authorization"] = f"Basic {token}"
        connection = self._address.open(TIMEOUT)
        started = time.monotonic()
        try:
            connection.request("POST" if form else "GET", path, body or None, headers)
            response = get_response(connection)
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._not_reached(name, error) from error
        finally:
            connection.close()
        timing = Timing(name, len(body), len(data), time.monotonic() - started)
        return self._read(name, response.status, data), timing

    def _not_reached(self, name: str, error: Exception) -> ConnectError:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, http.client.BadStatusLine) and not isinstance(error, ConnectionError):
            why = "what is there speaks no HTTP"
        hint = "Does dls connect or dls serve run, and is that its port?"
        return ConnectError(f"{self._address} does not answer ({name}): {why}.", hint)

    def _read(self, name: str, status: int, data: bytes) -> dict[str, Any]:
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError):
            fields = None
        said = str(fields.get("error", ""))[:300] if isinstance(fields, dict) else ""
        if status == 401:
            raise LoginError(
                f"{self._address} asks for a secret.", "Write it before the host: snap:SECRET@localhost:8911."
            )
        if status >= 500:
            raise EngineError(f"{self._address} answered {name!r} with {status}. {said}".rstrip(), "Its log says more.")
        if status != 200 or not isinstance(fields, dict):
            hint = "Is something else at that address?"
            raise LaunchError(
                f"{self._address} answered {name!r} with {status}, and no segmentation server does. {said}".rstrip(),
                hint,
            )
        return fields


def _list_names(fields: dict[str, Any]) -> list[str]:
    models = fields.get("models")
    names = (
        [str(each["id"]) for each in models if isinstance(each, dict) and "id" in each]
        if isinstance(models, list)
        else []
    )
    if not names:
        raise LaunchError("The server lists no model.", "Is it one for ITK-SNAP?")
    return names


def _form(values: bytes) -> tuple[bytes, str]:
    """Return the body of an upload or a drawing, as ITK-SNAP sends it, and its content type."""
    description = {
        "dimensions": [SIDE] * 3,
        "spacing": [1, 1, 1],
        "origin": [0, 0, 0],
        "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1],
        "components_per_pixel": 1,
        "component_type": "float32",
    }
    boundary = "-" * 24 + secrets.token_hex(8)
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="%s"%s\r\nContent-Type: application/%s\r\n\r\n'
    body = b"".join(
        (
            (part % ("file", '; filename="image.gz"', "gzip")).encode(),
            gzip.compress(values, 1),
            ("\r\n" + part % ("metadata", "", "json")).encode(),
            json.dumps(description).encode(),
            f"\r\n--{boundary}--\r\n".encode(),
        )
    )
    return body, f"multipart/form-data; boundary={boundary}"
