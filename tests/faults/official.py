"""The work of an annotator with a client of nnInteractive's own protocol, such as napari, and of ITK-SNAP beside it."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from nnInteractive.inference.remote import SessionExpiredError

from dls.server.volume import Box, Mask, Prompt
from tests.faults.work import STROKE, Place, Work
from tests.support import official
from tests.support.official import Direct, Operation, Oracle

REPEATED = (502, 504)
"""Statuses after which a person tries again; of others the viewers say what is not true, or nothing."""
REPEAT_SECONDS = 2.0
"""Seconds until a person tries again."""
PATIENCE_SECONDS = 240.0
"""Seconds after which a person gives up."""


@dataclass
class Step:
    """A call of the client, how often it failed before, and the mask after it."""

    name: str
    operation: Operation
    failures: int
    mask: np.ndarray | None


class OfficialWork(Work):
    """Work with the official client: its heartbeat thread runs, and its time-outs are its own.

    A call that ends with a status of REPEATED or without an answer is made again, as by a person who sees the error.
    The first one may have been applied or not: the mask must be that of one of both histories.
    """

    client = "official client"
    tries_again = True

    def __init__(self, port: int, side: int = 48, seed: int = 1) -> None:
        super().__init__(port, side, seed)
        self._session: Any = None
        self._steps: list[Step] = []
        self._oracle = Oracle()
        self._histories: list[tuple[Operation, ...]] = [()]

    def _start(self) -> None:
        self._session = official.connect_official(self.port)
        token = self._session._lease_token
        self.session = str(uuid.UUID(hex=token))
        self.poll = (
            f"POST /heartbeat HTTP/1.1\r\nHost: localhost\r\nX-Lease-Token: {token}\r\nConnection: close\r\n"
            "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        ).encode()

    def upload(self) -> None:
        """Send the image and begin a new mask."""
        for name, operation in zip(("set_image", "set_target_buffer"), official.begin(self.image), strict=True):
            self._call(name, operation)

    def _point(self, at: Place) -> None:
        self._call(f"point {self.clicks}", official.point(*at))

    def _stroke(self, start: Place) -> None:
        box = [[start[0], start[0] + 1], [start[1], start[1] + 1], [start[2], start[2] + STROKE]]
        self._call(f"scribble {self.clicks}", official.scribble(np.ones((1, 1, STROKE), np.uint8), box))

    def _call(self, name: str, operation: Operation) -> None:
        given_up = time.monotonic() + PATIENCE_SECONDS
        failures = 0
        while (fault := self._fault_of(operation)) is not None:
            text, is_repeated = fault
            if not is_repeated or time.monotonic() > given_up:
                self.lost.append(f"{name}: {text}")
                return
            self.repeats.append(f"{name}: {text}")
            failures += not text.startswith("ConnectError")
            time.sleep(REPEAT_SECONDS)
        buffer = self._session.target_buffer
        self._steps.append(Step(name, operation, failures, None if buffer is None else buffer.copy()))

    def _fault_of(self, operation: Operation) -> tuple[str, bool] | None:
        """Make the call; returns what it raised and whether a person tries again, None if it succeeded."""
        try:
            operation(self._session)
        except SessionExpiredError as error:
            return f"the lease was refused: {error}", False
        except httpx.HTTPStatusError as error:
            return f"{error.response.status_code} {error.response.text[:200]}", error.response.status_code in REPEATED
        except httpx.TransportError as error:
            return f"{type(error).__name__}: {error}", True
        except RuntimeError as error:  # ServerAtCapacityError: the viewers say that others use the server
            return f"{type(error).__name__}: {error}", False
        return None

    def check(self) -> None:
        """Compare the masks with those of the library called directly, and see whether the heartbeats go on."""
        for step in self._steps:
            # Of the calls that failed, none, some or all were applied; the last one was.
            self._histories = [
                (*history, *[step.operation] * count)
                for history in self._histories
                for count in range(1, step.failures + 2)
            ]
            right = [history for history in self._histories if _is_right(self._oracle.mask(history), step.mask)]
            if not right:
                self.lost.append(f"{step.name}: the mask is another one")
            self._histories = right or self._histories
        self._steps.clear()
        thread: threading.Thread | None = self._session._heartbeat_thread
        if thread is None or not thread.is_alive():
            self.lost.append("the client's heartbeats have ended")

    def close(self) -> None:
        """Release the lease."""
        if self._session is not None:
            self._session.close()


def _is_right(expected: np.ndarray | None, mask: np.ndarray | None) -> bool:
    """Whether a mask is the expected one; before there is a target buffer, there is nothing to compare."""
    return expected is None or (mask is not None and np.array_equal(expected, mask))


class DirectSegmentation:
    """The library called directly, with ITK-SNAP's prompts."""

    def __init__(self, image: np.ndarray) -> None:
        self._image = image
        self.reset()

    def reset(self) -> None:
        """Begin with the image anew."""
        self._direct = Direct(official.begin(self._image))
        self.mask: Mask = np.zeros(self._image.shape, np.uint8)

    def add(self, prompt: Prompt) -> Box | None:
        """Refine the mask by a prompt."""
        box = [[side.start, side.stop] for side in prompt.box]
        if prompt.kind == "point":
            operation = official.point(*prompt.origin, include=prompt.foreground)
        else:
            draw = {"scribble": official.scribble, "lasso": official.lasso}[prompt.kind]
            operation = draw(np.ascontiguousarray(prompt.mask, np.uint8), box, include=prompt.foreground)
        mask = self._direct.apply(operation)
        assert mask is not None
        self.mask = mask
        return None
