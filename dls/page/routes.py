"""The page's addresses: what a request for one of them gets. The same at the local port and at `dls serve`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from dls.page import access

ROOM = "/dls/page/"
"""Start of all addresses but the page's own, which is `/`."""
EVENTS = ROOM + "events"
"""The stream of what the page shows (server-sent events)."""
PICTURE = re.compile(r"/dls/page/pictures/([0-9a-f]{16})/([0-9]{1,9}-[0-9]{1,9})")
"""The picture of a session: its name and its version."""
ASSETS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    ROOM + "page.css": ("page.css", "text/css; charset=utf-8"),
    ROOM + "page.js": ("page.js", "text/javascript; charset=utf-8"),
    ROOM + "icon.svg": ("icon.svg", "image/svg+xml"),
}
WRONG_KEY = "This key is not that of the running dls. Open the address that it has printed."


@dataclass(frozen=True)
class Reply:
    """A whole answer; `headers` has all of them but the length."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class WantsEvents:
    """The request asks for the stream."""

    is_private: bool
    """Whether it may see sessions, prompts and the log."""


@dataclass(frozen=True)
class WantsPicture:
    """The request asks for a session's picture, and may see it."""

    name: str
    version: str


def decide(
    method: str, path: str, headers: Mapping[str, str], *, port: int, key: str, is_authorized: bool
) -> Reply | WantsEvents | WantsPicture | None:
    """Return what the request gets, or None for one that is not for the page.

    `headers` have names in lower case; `is_authorized` says that it carries the secret that is asked for there. For
    `/`, only what asks for HTML is for the page, as browsers do: every other client gets what it got before.
    """
    if not (path.startswith(ROOM) or (path == "/" and method == "GET" and _asks_for_html(headers))):
        return None
    if (fault := access.find_fault(headers, port)) is not None:
        return refusal(403, fault)
    if method != "GET":
        return refusal(405, "The page takes GET requests only.")
    if path in ASSETS:
        return _asset(path)
    return _decide_data(path, headers, is_private=is_authorized or access.has_key(headers, key))


def _decide_data(path: str, headers: Mapping[str, str], *, is_private: bool) -> Reply | WantsEvents | WantsPicture:
    if access.KEY_HEADER in headers and not is_private:
        return refusal(403, WRONG_KEY)
    if path == EVENTS:
        return WantsEvents(is_private)
    if (found := PICTURE.fullmatch(path)) is None:
        return refusal(404, "The page has nothing at that address.")
    return WantsPicture(found[1], found[2]) if is_private else refusal(403, WRONG_KEY)


def _asks_for_html(headers: Mapping[str, str]) -> bool:
    return "text/html" in headers.get("accept", "")


@cache
def _asset(path: str) -> Reply:
    name, kind = ASSETS[path]
    body = files("dls.page").joinpath("assets", name).read_bytes()
    return Reply(200, (("Content-Type", kind), *access.HEADERS), body)


def refusal(status: int, sentence: str) -> Reply:
    """Return the answer that refuses a request."""
    body = json.dumps({"error": sentence, "detail": sentence}).encode()
    return Reply(status, (("Content-Type", "application/json"), *access.HEADERS), body)


def picture(data: bytes | None) -> Reply:
    """Return the answer with a picture, or one without content where it is not there now: that is no error."""
    if data is None:
        return Reply(204, access.HEADERS, b"")
    return Reply(200, (("Content-Type", "image/png"), *access.HEADERS), data)


STREAM_HEADERS = (("Content-Type", "text/event-stream"), *access.HEADERS)
"""Headers of the stream."""
