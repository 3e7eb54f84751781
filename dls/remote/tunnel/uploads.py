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
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h11

from dls.contract import IMAGE_HEADER, IMAGES_PATH, NOT_HELD, OFFSET_HEADER, PARTS_PATH
from dls.errors import LinkError
from dls.images import name_image
from dls.remote.progress import UploadProgress
from dls.remote.ssh.channel import Channel
from dls.remote.tunnel import multipart
from dls.remote.tunnel.downstream import LARGE_BODY, Body
from dls.remote.tunnel.headers import Answer, leave_out
from dls.remote.tunnel.link import Link
from dls.remote.tunnel.multipart import ImagePart
from dls.remote.tunnel.official import SET_IMAGE, find_lease, path_of
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
LONG_SECONDS = 8.0
"""Seconds that the rest must take for the sending to pause earlier: while the image is read and its digest is made.

What is sent until the host has answered is on the link before the answer: 1 MB takes 0.4 s of 20 Mbit/s.
"""
READ_SECONDS = 0.5
"""Seconds for which such an upload waits for the client to send the rest of the image."""
ANSWER_SECONDS = 30.0
"""Seconds that an answer to a question may take; then all is sent."""


class ImageIsHeld(Exception):
    """The host turned out to hold the image that is being sent."""


@dataclass(frozen=True)
class Way:
    """How one request gets to the host: its channels, its headers, and what is done before pieces and the answer."""

    open_channel: Callable[[], Channel]
    build_headers: Callable[[bool], list[tuple[bytes, bytes]]]
    """Returns the headers of the whole request; it is told whether the request is sent again."""
    on_piece: Callable[[Channel], None] = lambda channel: None
    on_sent: Callable[[Channel], None] = lambda channel: None
    """Called before the answer is waited for."""


class Rest:
    """What is left of a body; `count` is called with the size of each piece that was sent."""

    def __init__(self, parts: Sequence[memoryview], count: Callable[[int], None] = lambda size: None) -> None:
        self._parts = parts
        self._count = count

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yield it in pieces."""
        for piece in cut_up(self._parts):
            yield piece
            self._count(len(piece))


class Outgoing:
    """A request on its way to the host, which may take several attempts."""

    def __init__(self, body: Body, name: str) -> None:
        self._body = body
        self.name = name
        """Name by which the host knows the request when it is sent again."""
        self.is_done = False
        """Whether it was answered with 200."""

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yield the body as it is to be sent; raises ClientDisconnected, and ImageIsHeld."""
        return self._body.chunks()

    def send_less(self, *, is_retry: bool) -> Answer | None:
        """Send the request without what the host holds of it; None where all has to be sent.

        Raises LinkError, UpstreamLost and ClientDisconnected.
        """
        return None


class Uploads:
    """The uploads of images through one link; `report` is told how far each is."""

    def __init__(self, link: Link, report: Callable[[UploadProgress], None]) -> None:
        self.link = link
        self.report = report
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def outgoing(self, request: h11.Request, body: Body, name: str, way: Way) -> Iterator[Outgoing]:
        """Yield the request as it is sent; the upload of a large image is followed until the context ends."""
        if (body.size or 0) < LARGE_BODY or not is_upload(request):
            yield Outgoing(body, name)
            return
        upload = Upload(self, request, body, name, way, next(self._numbers))
        try:
            yield upload
        finally:
            upload.finish()


class Upload(Outgoing):
    """The upload of one image."""

    def __init__(self, uploads: Uploads, request: h11.Request, body: Body, name: str, way: Way, number: int) -> None:
        super().__init__(body, name)
        self._link = uploads.link
        self._way = way
        self._report = uploads.report
        self._request = request
        self._size = body.size or 0
        self._question: Question | None = None
        self._may_wait = True
        """Whether the sending has not waited yet for the end of the body."""
        self._sends_all = not body.is_replayable
        """Whether nothing more is asked, and all is sent: also where it is too large to be kept here."""
        self._meter = Meter(number, self._size, time.monotonic())
        self._report(self._meter.progress)

    def finish(self) -> None:
        """Report the end."""
        self._meter.finish(done=self.is_done, now=time.monotonic())
        self._report(self._meter.progress)

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yield the body in pieces; raises ClientDisconnected, and ImageIsHeld as soon as the host says so."""
        self._meter.restart(0, time.monotonic())
        for piece in cut_up(super().chunks()):
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
        if seconds > LONG_SECONDS:
            self._wait_until_read()
        if self._question is None:
            left = self._size - self._meter.progress.sent
            if not self._body.is_complete or left < MIN_LEFT or seconds < ASK_SECONDS:
                return
            if (image := self._find_image()) is None:
                return
            self._question = Question(lambda: self._link.open_channel(0.0), *image)
            self._question.start()
        if self._question.is_asked or seconds > LONG_SECONDS:
            self._question.ended.wait(ANSWER_SECONDS)
        if self._question.is_held:
            raise ImageIsHeld

    def _wait_until_read(self) -> None:
        """Wait a moment for the end of the body, once."""
        deadline, self._may_wait = time.monotonic() + READ_SECONDS * self._may_wait, False
        while not self._body.is_complete and time.monotonic() < deadline:
            time.sleep(0.005)

    def _find_image(self) -> tuple[memoryview, ImagePart] | None:
        """Return the body, once it is read, and where the image lies in it; None where all has to be sent."""
        body = self._body.whole()
        part = find_image(self._request, body)
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
            self._question = Question(self._way.open_channel, *image)
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
        headers = leave_out(self._way.build_headers(True), sum(map(len, body)), left_out)
        with contextlib.closing(self._way.open_channel()) as channel:

            def on_piece() -> None:
                self._way.on_piece(channel)

            upstream = send_request(channel, self._request, headers, Rest(body, self._count), on_piece)
            self._way.on_sent(channel)
            return read_answer(upstream, channel)

    def _find_part(self, body: memoryview, part: ImagePart) -> int:
        """Return how many bytes at the beginning of the image the host holds; 0 where they are others than these."""
        session = find_session(self._request)
        said = ask(self._way.open_channel, f"{PARTS_PATH}/{session}/{self.name}")
        held = said.get("held")
        if said.get("request") != self.name or not isinstance(held, int) or not 0 < held < part.length:
            return 0
        digest = hashlib.sha256(body[part.start : part.start + held]).hexdigest()
        return held if said.get("sha256") == digest else 0


class Question(threading.Thread):
    """Asks the host whether it holds an image; `ended` is set when that is known, or nobody answers."""

    def __init__(self, open_channel: Callable[[], Channel], body: memoryview, part: ImagePart) -> None:
        super().__init__(name="dls-image", daemon=True)
        self.ended = threading.Event()
        self.is_asked = False
        """Whether the digest is computed, and the question is on its way."""
        self.is_held = False
        self.image = ""
        """Name of the image by its contents."""
        self._open_channel = open_channel
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
            self.image = name_image(self._part)
            self.is_asked = True
            said = ask(self._open_channel, f"{IMAGES_PATH}/{self.image}")
            self.is_held = said.get("image") == self.image and said.get("held") is True
        finally:
            self.ended.set()


def is_upload(request: h11.Request) -> bool:
    """Whether the request sends an image."""
    return request.method == b"POST" and find_session(request) is not None


def find_session(request: h11.Request) -> str | None:
    """Return the session that an image is sent for, by ITK-SNAP or an official client; None for another request."""
    if path_of(request.target) == SET_IMAGE:
        lease = find_lease(request.headers.raw_items())
        return str(uuid.UUID(hex=lease.decode())) if lease else None
    return multipart.find_session(request.target)


def find_image(request: h11.Request, body: memoryview) -> ImagePart | None:
    """Return where the image lies in the body; None where that can't be said."""
    if path_of(request.target) == SET_IMAGE:
        return ImagePart(0, len(body))
    kinds = [value for key, value in request.headers if key.lower() == b"content-type"]
    return multipart.find_file(kinds[0], body) if len(kinds) == 1 else None


def ask(open_channel: Callable[[], Channel], path: str) -> dict[str, Any]:
    """Return the fields of the answer to a question of our own; none where the host does not know it, or says nothing.

    Raises LinkError and UpstreamLost.
    """
    with contextlib.closing(open_channel()) as channel:
        channel.settimeout(ANSWER_SECONDS)
        started = time.monotonic()
        try:
            request = h11.Request(method=b"GET", target=path.encode(), headers=[(b"Host", b"localhost")])
            upstream = send_request(channel, request, request.headers.raw_items(), Rest([]))
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
