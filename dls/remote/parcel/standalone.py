"""The Python that a parcel brings to a host without a fitting one: the build that uv itself would install."""

from __future__ import annotations

import json
import urllib.error
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

from dls.remote.parcel.download import Downloader
from dls.remote.parcel.format import SHA256
from dls.remote.parcel.resolve import Download, Target
from dls.remote.parcel.uv import FetchError, run_uv

SUMS = "SHA256SUMS"
"""Name of the file beside the builds that lists their digests."""


def find_python(target: Target, downloader: Downloader, *, ca_bundle: Path | None) -> Download:
    """Return the newest build for the target; raises FetchError where uv knows none."""
    machine = target.platform.rpartition("-")[2]
    request = f"cpython-{target.python}-linux-{machine}-gnu"
    text = run_uv(
        ["python", "list", "--only-downloads", "--all-platforms", "--show-urls", "--output-format", "json", request],
        ca_bundle=ca_bundle,
    )
    found = choose(text, target)
    if not found:
        raise FetchError(
            f"uv knows no Python {target.python} for {target.platform}.", "Update uv, or name another --python."
        )
    key, url = found
    return Download(f"{key}.tar.gz", url, None, _read_sum(url, downloader))


def choose(text: str, target: Target) -> tuple[str, str] | None:
    """Return uv's name and the URL of the newest build for the target in what `uv python list` printed."""
    machine = target.platform.rpartition("-")[2]
    wanted = {"implementation": "cpython", "variant": "default", "os": "linux", "libc": "gnu", "arch": machine}
    fitting: list[dict[str, Any]] = [
        row
        for row in json.loads(text)
        if all(row.get(name) == value for name, value in wanted.items())
        and f"{row['version_parts']['major']}.{row['version_parts']['minor']}" == target.python
        and str(row.get("url") or "").endswith(".tar.gz")
    ]
    newest = max(fitting, key=lambda row: int(row["version_parts"]["patch"]), default=None)
    return (str(newest["key"]), str(newest["url"])) if newest else None


def _read_sum(url: str, downloader: Downloader) -> str:
    """Return the digest that is listed beside the build; empty where none is."""
    folder, _, name = url.rpartition("/")
    with TemporaryDirectory(prefix="dls-pack-") as place, suppress(FetchError, urllib.error.URLError):
        sums = Path(place, SUMS)
        downloader.fetch(f"{folder}/{SUMS}", sums, "")
        for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
            digest, _, listed = line.partition(" ")
            if listed.strip(" *") == unquote(name) and SHA256.fullmatch(digest):
                return digest
    return ""
