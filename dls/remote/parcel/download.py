"""Fetch files over HTTPS, through this computer's proxy and with its certificates; a cut download goes on later."""

from __future__ import annotations

import http.client
import netrc
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit, urlunsplit

from dls.errors import TargetError
from dls.remote.certificates import default_context
from dls.remote.host.push_model import digest_of
from dls.remote.parcel.uv import FetchError

CHUNK_BYTES = 1 << 18
"""Number of bytes that are read at a time."""
ATTEMPTS = 4
"""Number of times that a download is begun, or goes on, before it fails."""
SILENCE_SECONDS = 60.0
"""Seconds without a byte after which a download has been cut."""
PAUSE_SECONDS = 1.0
"""Seconds before the second attempt; each later one waits twice as long."""
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")
"""Variables of uv that hold indexes, which may name the user and the password for their files too."""

Count = Callable[[int], None]
"""Called with the number of bytes that were fetched; a negative one where some have to be fetched again."""


class Downloader:
    """Fetches files by their URL, one after the other."""

    def __init__(self, *, ca_bundle: Path | None = None, environment: Mapping[str, str] = os.environ) -> None:
        """`ca_bundle` names the certificates to trust in place of this computer's own."""
        self._environment = environment
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=_trust(ca_bundle)))

    def fetch(self, location: str, path: Path, sha256: str, count: Count = lambda _: None) -> str:
        """Put the file from a URL or a path of this computer in its place and return its SHA-256.

        What an earlier attempt left in PATH.part is not fetched again. Raises FetchError where it can't be had, and
        where it does not have the digest `sha256`, unless that is empty.
        """
        part = path.with_name(path.name + ".part")
        if "://" not in location or location.startswith("file:"):
            shutil.copyfile(_local_path(location), part)
            count(part.stat().st_size)
        else:
            count(part.stat().st_size if part.exists() else 0)
            self._fetch_all(location, part, count)
        digest = digest_of(part)
        if sha256 and digest != sha256:
            count(-part.stat().st_size)
            part.unlink()
            raise FetchError(
                f"What came for {path.name} is not that file: its SHA-256 differs.",
                "Does a mirror or a proxy replace packages? Run the command again, or ask who runs it.",
            )
        part.replace(path)
        return digest

    def _fetch_all(self, url: str, part: Path, count: Count) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._fetch_rest(url, part, count)
                return
            except urllib.error.HTTPError as error:
                if error.code < 500 or attempt == ATTEMPTS:
                    raise _refused(url, error) from None
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                if attempt == ATTEMPTS or isinstance(reason, ssl.SSLCertVerificationError):
                    raise _cut(url, error) from None
            time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))

    def _fetch_rest(self, url: str, part: Path, count: Count) -> None:
        """Fetch what the part lacks; an index that sends the whole file again is taken at that."""
        have = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(_without_user(url), headers={"Accept-Encoding": "identity"})  # noqa: S310
        if word := _authorization(url, self._environment):
            request.add_unredirected_header("Authorization", word)
        if have:
            request.add_header("Range", f"bytes={have}-")
        try:
            answer = self._opener.open(request, timeout=SILENCE_SECONDS)
        except urllib.error.HTTPError as error:
            if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            error.close()
            if _total(error.headers.get("Content-Range", "")) == have:
                return
            count(-have)
            part.unlink()
            self._fetch_rest(url, part, count)
            return
        with answer, part.open("r+b" if have else "wb") as file:
            if have and answer.status != http.client.PARTIAL_CONTENT:
                count(-have)
                file.truncate(0)
            file.seek(0, os.SEEK_END)
            _copy(answer, file, count)


def _copy(answer: http.client.HTTPResponse, file: BinaryIO, count: Count) -> None:
    expected, got = answer.length, 0
    while chunk := answer.read(CHUNK_BYTES):
        try:
            file.write(chunk)
        except OSError as error:
            raise TargetError(
                f"{file.name} can't be written: {error.strerror or error}.", "Is the disk full?"
            ) from None
        got += len(chunk)
        count(len(chunk))
    if expected is not None and got < expected:
        raise http.client.IncompleteRead(b"", expected - got)


def _total(text: str) -> int:
    match = re.fullmatch(r"bytes \*/(\d{1,15})", text)
    return int(match[1]) if match else -1


def _trust(ca_bundle: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_bundle)) if ca_bundle else default_context()
    except OSError as error:
        raise TargetError(f"The certificates in {ca_bundle} can't be used: {error}.", "Correct --ca-bundle.") from None


def _local_path(location: str) -> Path:
    if location.startswith("file:"):
        return Path(urllib.request.url2pathname(urlsplit(location).path))
    return Path(location)


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))


def _authorization(url: str, environment: Mapping[str, str]) -> str:
    """Return the header's value: the user and the password in the URL, in an index of its host, or in netrc."""
    host = urlsplit(url).hostname
    indexes = [word for name in INDEX_VARIABLES for word in environment.get(name, "").split()]
    for place in (url, *(index.rpartition("=")[2] if "=http" in index else index for index in indexes)):
        parts = urlsplit(place)
        if parts.username is not None and parts.hostname == host:
            return _basic(unquote(parts.username), unquote(parts.password or ""))
    try:
        found = netrc.netrc(environment.get("NETRC")).hosts.get(host or "")
    except (OSError, netrc.NetrcParseError):
        return ""
    return _basic(found[0], found[2] or "") if found else ""


def _basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def _refused(url: str, error: urllib.error.HTTPError) -> FetchError:
    hint = "Does the index want a user and a password? They go into UV_DEFAULT_INDEX, or into .netrc."
    if error.code not in (401, 403, 407):
        hint = "Run the command again later: what was fetched stays."
    return FetchError(f"{_shown(url)} is refused: {error.code} {error.reason}.", hint)


def _cut(url: str, error: Exception) -> FetchError:
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return FetchError(
            f"The certificate of {urlsplit(url).hostname} is not trusted here.",
            "If your network inspects traffic, name its certificates with --ca-bundle.",
        )
    text = str(reason).rstrip(".") or type(error).__name__
    return FetchError(
        f"{_shown(url)} can't be fetched: {text}.",
        "Run the command again: what was fetched stays. A proxy is taken from HTTPS_PROXY.",
    )


def _shown(url: str) -> str:
    return urlunsplit(urlsplit(_without_user(url))._replace(query=""))
