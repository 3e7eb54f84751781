"""Small parcels: the real format, with a script in place of uv and with whatever files a test needs."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dls.remote.host.packages import requirements
from dls.remote.parcel import archive
from dls.remote.parcel.archive import Parcel
from dls.remote.parcel.format import Manifest, PackedFile

UV = gzip.compress(b"#!/bin/sh\necho uv 0.0\n", mtime=0)
MANIFEST = Manifest(
    release="1.0", engine="region", requirements=requirements("region").key, platform="linux-x86_64", python="3.11",
    cuda="", glibc=17, installed_bytes=1 << 20,
    files=(PackedFile("uv/uv.gz", len(UV), hashlib.sha256(UV).hexdigest()),),
)  # fmt: skip
"""What a parcel with nothing but a uv says of itself."""


def packed(name: str, data: bytes) -> PackedFile:
    return PackedFile(name, len(data), hashlib.sha256(data).hexdigest())


def make_parcel(path: Path, files: Mapping[str, bytes], **fields: Any) -> Parcel:
    """Write a parcel with a uv and these files, and open it."""
    everything = {"uv/uv.gz": UV, **files}
    folder = path.with_name(path.name + ".files")
    for name, data in everything.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    manifest = replace(MANIFEST, files=tuple(packed(name, data) for name, data in everything.items()), **fields)
    archive.write(path, manifest, lambda file: folder / file.name)
    return Parcel.open(path)


def python_archive(version: str) -> bytes:
    """Return an archive as those of uv's Pythons; what is in it runs this machine's own Python of the version.

    Its owner is somebody else, and others may write to it: neither may be so on the host.
    """
    buffer = io.BytesIO()
    text = f'#!/bin/sh\nexec {shutil.which(f"python{version}")} "$@"\n'.encode()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo(f"python/bin/python{version}")
        info.size, info.mode, info.uid = len(text), 0o777, 12345
        archive.addfile(info, io.BytesIO(text))
    return buffer.getvalue()
