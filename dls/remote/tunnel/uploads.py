"""Images on their way to the host: none is sent that the host holds, and one that was cut goes on where it stopped.

An image is sent as soon as its first bytes are there. When all of it has come from the client and much is still to be
sent, the host is asked beside it whether it holds an image of these contents. If it does, the request ends, and one
without the image takes its place. Nothing that the client sees changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import h11

from dls.contract import IMAGE_HEADER, IMAGES_PATH, NOT_HELD, OFFSET_HEADER, PARTS_PATH, image_name
from dls.errors import LinkError
from dls.remote.progress import UploadProgress
from dls.remote.tunnel import multipart
from dls.remote.tunnel.downstream import LARGE_BODY, Body
from dls.remote.tunnel.headers import build_upload_headers
from dls.remote.tunnel.link import Link
from dls.remote.tunnel.multipart import ImagePart
from dls.remote.tunnel.upload_progress import Meter
from dls.remote.tunnel.upstream import UpstreamLost, cut_up, read_answer, send_request

MIN_LEFT = 1 << 20
"""Bytes that must still be to send for the host to be asked."""
ASK_SECONDS = 2.0
"""Seconds that the rest must take for the host to be asked.

On a faster link the rest is there sooner: the host inflates an image while it arrives, and a copy from its beginning.
While it is asked nothing is sent, because that would delay the question and the request that follows it; such a pause
of a round trip is nothing to an upload that takes so long.
"""
ANSWER_SECONDS = 30.0
"""Seconds that an answer to a question may take; then all is sent."""

Answer = tuple[h11.Response, bytes]


class ImageIsHeld(Exception):
    """The host turned out to hold the image that is being sent."""


class Outgoing:
    """A request on its way to the host, which may take several attempts."""

    def __init__(self, body: Body, name: str) -> None:
        self._body = body
        self.name = name
        """Name by which the host knows the request when it is sent again."""
        self.is_done = False
        """Whether it was answered with 200."""

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the body in pieces that are to be sent; raises ClientDisconnected, and ImageIsHeld."""
        return cut_up(self._body.chunks())

    def send_less(self, *, is_retry: bool) -> Answer | None:
        """Send the request without what the host holds of it; None where all has to be sent.

        Raises LinkError, UpstreamLost and ClientDisconnected.
        """
        return None


class Uploads:
    """The uploads of images through one link; `report` is told how far each is."""

    def __init__(self, link: Link, timeout: float, report: Callable[[UploadProgress], None]) -> None:
        self.link = link
        self.timeout = timeout
        self.report = report
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def outgoing(self, request: h11.Request, body: Body, name: str) -> Iterator[Outgoing]:
        """Yield the request as it is sent; the upload of a large image is followed until the context ends."""
        if not (body.is_replayable and (body.size or 0) >= LARGE_BODY and is_upload(request.method, request.target)):
            yield Outgoing(body, name)
            return
        upload = Upload(self, request, body, name, next(self._numbers))
        try:
            yield upload
        finally:
            upload.finish()


class Upload(Outgoing):
    """The upload of one image."""

    def __init__(self, uploads: Uploads, request: h11.Request, body: Body, name: str, number: int) -> None:
        super().__init__(body, name)
        self._link = uploads.link
        self._timeout = uploads.timeout
        self._report = uploads.report
        self._request = request
        self._headers = request.headers.raw_items()
        self._size = body.size or 0
        self._question: Question | None = None
        self._sends_all = False
        """Whether nothing more is asked, and all is sent."""
        self._meter = Meter(number, self._size, time.monotonic())
        self._report(self._meter.progress)

    def finish(self) -> None:
        """Report the end."""
        self._meter.finish(done=self.is_done, now=time.monotonic())
        self._report(self._meter.progress)

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the body in pieces; raises ClientDisconnected, and ImageIsHeld as soon as the host says so."""
        self._meter.restart(0, time.monotonic())
        for piece in super().pieces():
            self._consider_asking()
            yield piece
            self._count(len(piece))

    def _count(self, size: int) -> None:
        if self._meter.add(size, time.monotonic()):
            self._report(self._meter.progress)

    def _consider_asking(self) -> None:
        """Ask the host whether it holds the image, once that is worth it; raises ImageIsHeld when it does."""
        if self._sends_all:
            return
        seconds = self._meter.seconds_left(time.monotonic())
        if self._question is None:
            left = self._size - self._meter.progress.sent
            if not self._body.is_complete or left < MIN_LEFT or seconds < ASK_SECONDS:
                return
            if (image := self._find_image()) is None:
                return
            self._question = Question(self._link, 0.0, *image)
            self._question.start()
        if self._question.is_asked:
            self._question.ended.wait(ANSWER_SECONDS)
        if self._question.is_held:
            raise ImageIsHeld

    def _find_image(self) -> tuple[memoryview, ImagePart] | None:
        """Return the body, once it is read, and where the image lies in it; None where all has to be sent."""
        body = self._body.whole()
        part = find_image(self._request.target, self._headers, body)
        if part is None or not part.length:
            self._sends_all = True
            return None
        return body, part

    def send_less(self, *, is_retry: bool) -> Answer | None:
        """Send the upload without the image, or without its beginning, where the host holds that."""
        is_held = self._question is not None and self._question.is_held
        if self._sends_all or not (is_retry or is_held) or (image := self._find_image()) is None:
            return None
        if self._question is None:
            self._question = Question(self._link, self._timeout, *image)
            self._question.ask()
        if self._question.is_held:
            answer = self._send_without(image[0], image[1], self._question.image)
        elif (held := self._find_part(*image)) > 0:
            answer = self._send_from(image[0], image[1], held)
        else:
            return None
        if answer[0].status_code in (400, NOT_HELD):
            self._sends_all = True
            return None
        self.is_done = answer[0].status_code == 200
        return answer

    def _send_without(self, body: memoryview, part: ImagePart, image: str) -> Answer:
        answer = self._send(multipart.without_image(body, part), (IMAGE_HEADER, image))
        self._meter.skip(self._size)
        return answer

    def _send_from(self, body: memoryview, part: ImagePart, held: int) -> Answer:
        self._meter.restart(held, time.monotonic())
        self._report(self._meter.progress)
        return self._send(multipart.from_offset(body, part, held), (OFFSET_HEADER, str(held)))

    def _send(self, body: Sequence[memoryview], left_out: tuple[str, str]) -> Answer:
        def pieces() -> Iterator[bytes | memoryview]:
            for piece in cut_up(body):
                yield piece
                self._count(len(piece))

        headers = build_upload_headers(self._headers, self.name, sum(map(len, body)), left_out, is_retry=True)
        with contextlib.closing(self._link.open_channel(self._timeout)) as channel:
            upstream = send_request(channel, self._request.method, self._request.target, headers, pieces())
            return read_answer(upstream, channel)

    def _find_part(self, body: memoryview, part: ImagePart) -> int:
        """Return how many bytes at the beginning of the image the host holds; 0 where they are others than these."""
        session = find_session(self._request.target)
        said = ask(self._link, self._timeout, f"{PARTS_PATH}/{session}/{self.name}")
        held = said.get("held")
        if said.get("request") != self.name or not isinstance(held, int) or not 0 < held < part.length:
            return 0
        digest = hashlib.sha256(body[part.start : part.start + held]).hexdigest()
        return held if said.get("sha256") == digest else 0


class Question(threading.Thread):
    """Asks the host whether it holds an image; `ended` is set when that is known, or nobody answers."""

    def __init__(self, link: Link, timeout: float, body: memoryview, part: ImagePart) -> None:
        super().__init__(name="dls-image", daemon=True)
        self.ended = threading.Event()
        self.is_asked = False
        """Whether the digest is computed, and the question is on its way."""
        self.is_held = False
        self.image = ""
        """Name of the image by its contents."""
        self._link = link
        self._timeout = timeout
        self._part = body[part.start : part.stop]

    def run(self) -> None:
        """Ask; where the link does not carry the question, the upload meets that too."""
        with contextlib.suppress(LinkError, UpstreamLost):
            self.ask()

    def ask(self) -> None:
        """Compute the digest, which leaves the interpreter to other threads, and ask.

        Raises LinkError and UpstreamLost.
        """
        try:
            self.image = image_name(hashlib.sha256(self._part).hexdigest(), len(self._part))
            self.is_asked = True
            said = ask(self._link, self._timeout, f"{IMAGES_PATH}/{self.image}")
            self.is_held = said.get("image") == self.image and said.get("held") is True
        finally:
            self.ended.set()


def is_upload(method: bytes, target: bytes) -> bool:
    """Whether the request sends an image."""
    return method == b"POST" and find_session(target) is not None


def find_session(target: bytes) -> str | None:
    """Return the session that an image is sent for; None for another request."""
    return multipart.find_session(target)


def find_image(target: bytes, headers: Sequence[tuple[bytes, bytes]], body: memoryview) -> ImagePart | None:
    """Return where the image lies in the body; None where that can't be said."""
    kinds = [value for key, value in headers if key.lower() == b"content-type"]
    return multipart.find_file(kinds[0], body) if len(kinds) == 1 else None


def ask(link: Link, timeout: float, path: str) -> dict[str, Any]:
    """Return the fields of the answer to a question of our own; none where the host does not know it, or says nothing.

    Raises LinkError and UpstreamLost.
    """
    with contextlib.closing(link.open_channel(timeout)) as channel:
        channel.settimeout(ANSWER_SECONDS)
        started = time.monotonic()
        try:
            upstream = send_request(channel, b"GET", path.encode(), [(b"Host", b"localhost")])
            response, body = read_answer(upstream, channel)
        except UpstreamLost:
            if time.monotonic() - started < ANSWER_SECONDS:
                raise
            return {}
    if response.status_code != 200:
        return {}
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}
