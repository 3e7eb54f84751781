"""Where an image lies in a body: pure functions on bytes."""

from __future__ import annotations

from pathlib import Path

import h11
import pytest

from dls.remote.tunnel import multipart, uploads
from dls.remote.tunnel.multipart import ImagePart, find_file, find_session
from dls.remote.tunnel.uploads import is_upload

TYPE = b"multipart/form-data; boundary=------------------------d3358e785b1e6606"
HEAD = (
    b"--------------------------d3358e785b1e6606\r\n"
    b'Content-Disposition: form-data; name="file"; filename="image.gz"\r\nContent-Type: application/gzip\r\n\r\n'
)
TAIL = (
    b"\r\n--------------------------d3358e785b1e6606\r\n"
    b'Content-Disposition: form-data; name="metadata"\r\nContent-Type: application/json\r\n\r\n{}'
    b"\r\n--------------------------d3358e785b1e6606--\r\n"
)
SESSION = "259d0249-67e6-4234-8c6b-90ea06cd2270"


def body(image: bytes) -> memoryview:
    return memoryview(HEAD + image + TAIL)


@pytest.mark.parametrize("image", [b"", b"x", b"\r\n--", b"\r\n" * 4000, bytes(300_000)])
def test_the_image_is_what_lies_between_the_delimiters(image: bytes) -> None:
    """Ends of lines in it are no end of it, and it may be longer than what is looked at."""
    part = find_file(TYPE, body(image))
    assert part == ImagePart(len(HEAD), len(HEAD) + len(image))
    assert part is not None and part.length == len(image)


def test_what_itk_snap_sends() -> None:
    """The recorded request of ITK-SNAP's own code: the image is a gzip member, and nothing else."""
    recorded = (Path(__file__).parents[2] / "wire" / "04-upload_raw.request").read_bytes()
    head, _, sent = recorded.partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    part = find_file(fields[b"Content-Type"], memoryview(sent))
    assert part is not None
    image = sent[part.start : part.stop]
    assert image[:2] == b"\x1f\x8b" and b"\r\n" + TYPE.partition(b"=")[2] not in image
    assert find_session(head.split(b" ")[1]) == SESSION


def test_an_upload_without_the_image() -> None:
    """What is left is a body of its own, with the same parts but the image; or with the rest of the image."""
    whole = body(b"abcdef")
    part = find_file(TYPE, whole)
    assert part is not None
    assert b"".join(multipart.without_image(whole, part)) == TAIL[2:]
    assert b"".join(multipart.from_offset(whole, part, 4)) == HEAD + b"ef" + TAIL


@pytest.mark.parametrize(
    ("content_type", "sent"),
    [
        (b"application/json", HEAD + TAIL),
        (b"multipart/form-data", HEAD + TAIL),
        (b"multipart/form-data; boundary=other", HEAD + TAIL),
        (TYPE, b""),
        (TYPE, HEAD),
        (TYPE, HEAD[:40]),
        (TYPE, TAIL[2:]),
        (TYPE, b"preamble\r\n" + HEAD + TAIL),
        (TYPE, HEAD.replace(b'name="file"', b'name="x"; filename="file"') + TAIL),
        (TYPE, HEAD + TAIL + bytes(200_000)),
        (TYPE, b"x" * 10_000 + HEAD + TAIL),
    ],
)
def test_bodies_of_another_form_are_sent_as_they_are(content_type: bytes, sent: bytes) -> None:
    """Where anything is odd, no image is found."""
    assert find_file(content_type, memoryview(sent)) is None


def test_a_quoted_boundary() -> None:
    """It may be quoted, with other parameters beside it."""
    quoted = TYPE.replace(b"boundary=", b'charset=utf-8; boundary="') + b'"'
    assert find_file(quoted, body(b"x")) == ImagePart(len(HEAD), len(HEAD) + 1)


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        (b"POST", f"/upload_raw/{SESSION}?filename=upload.nii.gz".encode(), True),
        (b"POST", f"/v2/upload_raw/{SESSION}".encode(), True),
        (b"GET", f"/upload_raw/{SESSION}".encode(), False),
        (b"POST", b"/upload_raw/..", False),
        (b"POST", f"/process_lasso_interaction/{SESSION}".encode(), False),
    ],
)
def test_which_requests_are_uploads(method: bytes, target: bytes, *, expected: bool) -> None:
    """Those that send an image for a session; a session's name that is none makes no address of ours."""
    assert is_upload(h11.Request(method=method, target=target, headers=[(b"Host", b"x")])) is expected


def test_the_image_of_an_official_client_is_the_whole_body() -> None:
    """Its session is the lease; without one the request is no upload."""
    headers = [(b"Host", b"x"), (b"X-Lease-Token", SESSION.replace("-", "").encode())]
    request = h11.Request(method=b"POST", target=b"/set_image", headers=headers)
    assert uploads.find_session(request) == SESSION and is_upload(request)
    assert uploads.find_image(request, memoryview(b"NNIA")) == ImagePart(0, 4)
    assert not is_upload(h11.Request(method=b"POST", target=b"/set_image", headers=headers[:1]))
