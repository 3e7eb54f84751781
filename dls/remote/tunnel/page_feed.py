"""Asks the server for what the page shows, for as long as somebody has the page open."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import h11

from dls.contract import OVERVIEW_PATH, PICTURES_PATH
from dls.errors import DlsError
from dls.page.view import clean_overview, measure_skew
from dls.remote.tunnel.link import Link, LinkState
from dls.remote.tunnel.uploads import Rest
from dls.remote.tunnel.upstream import UpstreamLost, read_answer, send_request

ASK_SECONDS = 2.0
"""Seconds between two questions while no request passes through the local port."""
SETTLE_SECONDS = 0.1
"""Least seconds between two questions: several requests may pass at once."""
ANSWER_SECONDS = 10.0
"""Seconds that an answer may take."""
MAX_PICTURES = 24
"""Pictures that are kept for a page that is loaded again while the link is lost; each has at most 1 MiB."""
PNG = b"\x89PNG\r\n\x1a\n"


class PageFeed:
    """What the server said last, and the pictures that it gave last."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.overview: dict[str, Any] | None = None
        """What the server said last, its times in this computer's clock; None before it has said anything."""
        self.as_of = 0.0
        """When it said that."""
        self._pictures: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._skew = 0.0
        self._readers = 0
        self._is_running = False
        self._changed = threading.Condition()
        self._wake = threading.Event()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Keep asking while the context is open."""
        with self._changed:
            self._readers += 1
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="dls-page", daemon=True).start()
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
            self._wake.set()

    def touch(self) -> None:
        """Ask soon: a request has passed through the local port."""
        self._wake.set()

    def wait(self, seconds: float) -> None:
        """Wait until the server has said something new, at most so long."""
        with self._changed:
            self._changed.wait(seconds)

    def _run(self) -> None:
        while True:
            self._ask()
            self._wake.wait(ASK_SECONDS)
            time.sleep(SETTLE_SECONDS)
            self._wake.clear()
            with self._changed:
                if not self._readers:
                    self._is_running = False
                    return

    def _ask(self) -> None:
        if self._link.state is not LinkState.OPEN or (body := self._get(OVERVIEW_PATH)) is None:
            return
        with contextlib.suppress(ValueError, RecursionError):
            said = json.loads(body)
            if not isinstance(said, dict):
                return
            now = time.time()
            self._skew = measure_skew(now, said.get("now"), self._skew)
            overview = clean_overview(said, self._skew)
            with self._changed:
                self.overview, self.as_of = overview, now
                self._changed.notify_all()

    def picture(self, name: str, version: str) -> bytes | None:
        """Return the picture of a session; None where there is none, or no way to ask for it."""
        with self._changed:
            if (kept := self._pictures.get((name, version))) is not None:
                return kept
        if self._link.state is not LinkState.OPEN or (body := self._get(f"{PICTURES_PATH}/{name}/{version}")) is None:
            return None
        if not body.startswith(PNG):
            return None
        with self._changed:
            self._pictures[name, version] = body
            while len(self._pictures) > MAX_PICTURES:
                self._pictures.popitem(last=False)
        return body

    def _get(self, path: str) -> bytes | None:
        """Return the server's answer; None where it has none, or the link does not carry the question."""
        request = h11.Request(method=b"GET", target=path.encode(), headers=[(b"Host", b"localhost")])
        try:
            with contextlib.closing(self._link.open_channel(0.0)) as channel:
                channel.settimeout(ANSWER_SECONDS)
                upstream = send_request(channel, request, request.headers.raw_items(), Rest([]))
                response, body = read_answer(upstream, channel)
        except (DlsError, UpstreamLost):
            return None
        return body if response.status_code == 200 else None
