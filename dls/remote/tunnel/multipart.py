"""Where an image lies in the body of a request. No sockets, no threads.

ITK-SNAP sends `multipart/form-data` (RFC 7578) with the part `file` first and the short part `metadata` after it. So
the image's end is looked for in the last bytes of the body alone; a body of another form is sent as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD_BYTES = 4096
"""Bytes at the beginning of a body within which the image begins."""
TAIL_BYTES = 128 * 1024
"""Bytes at the end of a body within which the image ends: the server takes 64 KiB of metadata."""

_UPLOAD = re.compile(rb"(?:/v2)?/upload_raw/([0-9a-f-]{36})")
_BOUNDARY = re.compile(rb'multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"\r\n]{1,200})"|([^\s;"]{1,200}))\s*', re.I)
_FILE = re.compile(rb'content-disposition:[ \t]*form-data\b[^\r\n]*;[ \t]*name="?file"?[ \t]*(?:;|\r|$)', re.I)


@dataclass(frozen=True)
class ImagePart:
    """The image within a body: the bytes from `start` to `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Number of bytes of the image."""
        return self.stop - self.start


def find_session(target: bytes) -> str | None:
    """Return the session that an upload of ITK-SNAP is for; None for another request."""
    match = _UPLOAD.fullmatch(target.partition(b"?")[0])
    return match[1].decode() if match else None


def find_file(content_type: bytes, body: memoryview) -> ImagePart | None:
    """Return where the part `file` lies in the body; None where it is not the first one or something looks odd."""
    match = _BOUNDARY.fullmatch(content_type.strip())
    if match is None:
        return None
    delimiter = b"--" + (match[1] or match[2])
    head = bytes(body[:HEAD_BYTES])
    end_of_head = head.find(b"\r\n\r\n")
    if not head.startswith(delimiter + b"\r\n") or end_of_head < 0 or not _FILE.search(head[:end_of_head] + b"\r"):
        return None
    start = end_of_head + 4
    from_here = max(start, len(body) - TAIL_BYTES)
    end = bytes(body[from_here:]).find(b"\r\n" + delimiter)
    return ImagePart(start, from_here + end) if end >= 0 else None


def without_image(body: memoryview, part: ImagePart) -> list[memoryview]:
    """Return the body without the part that holds the image, in pieces."""
    rest = body[part.stop :]
    return [rest[2:]] if rest else []  # what ends the image's part begins with the end of a line


def from_offset(body: memoryview, part: ImagePart, offset: int) -> list[memoryview]:
    """Return the body without the first bytes of the image, in pieces."""
    return [body[: part.start], body[part.start + offset :]]
