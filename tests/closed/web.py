"""The web servers of the lab's internet: a package index and its mirror, a model hub, and one that is on no list."""

from __future__ import annotations

import contextlib
import importlib
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dls.remote.host import lock_files
from tests.closed.lab import ELSEWHERE, HUB, HUB_NAMES, INDEX, MIRROR, MIRROR_NAME, Lab
from tests.support import model_hub, package_index


@dataclass
class Web:
    """The web servers, and what they were asked for."""

    index: package_index.Index
    mirror: package_index.Index
    hub: model_hub.Hub
    visits: list[str] = field(default_factory=list)
    """Addresses of the clients that reached the server that is on no list."""

    @property
    def bytes_sent(self) -> int:
        """Bytes that the index and its mirror have sent."""
        return self.index.bytes_sent + self.mirror.bytes_sent

    @property
    def finished(self) -> list[str]:
        """The files that the index and its mirror have sent to their ends."""
        return [*self.index.finished, *self.mirror.finished]


def public_names() -> tuple[str, str]:
    """Return the names of the package index that pip has built in, and of its files."""
    built_in = importlib.import_module("pip._internal.models.index").PyPI
    return str(built_in.netloc), str(built_in.file_storage_domain)


def collect_packages() -> Path:
    """Return a folder with all files that an index needs for the region engine, and for a parcel with it.

    A parcel brings the uv that is linked statically, which no pip of this machine chooses.
    """
    folder = package_index.download("closed", lock_files.read("region") + lock_files.read("uv"))
    if not [*folder.glob("uv-*-musllinux_*.whl")]:
        platform = f"musllinux_1_1_{os.uname().machine}"
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        words += ["--platform", platform, "--require-hashes", "--dest", str(folder), "--requirement"]
        locked = folder / "uv.txt"
        locked.write_text(lock_files.read("uv"))
        subprocess.run([*words, str(locked)], check=True, stdin=subprocess.DEVNULL)
    return folder


@contextlib.contextmanager
def serving(lab: Lab, packages: Path) -> Iterator[Web]:
    """Run the servers on the lab's internet until the block ends."""
    (name, files_host), folder = public_names(), lab.folder

    def enter() -> Web:
        index = stack.enter_context(
            package_index.running(
                folder, packages, names=[name], files_host=files_host, address=INDEX, port=443, authority=lab.public
            )
        )
        mirror = stack.enter_context(
            package_index.running(
                folder, packages, names=[MIRROR_NAME], address=MIRROR, port=443, authority=lab.hospital
            )
        )
        hub = stack.enter_context(
            model_hub.running(
                folder, model_hub.tiny_files(), names=HUB_NAMES, address=HUB, port=443, authority=lab.public
            )
        )
        web = Web(index, mirror, hub)
        stack.enter_context(_visited(web.visits))
        return web

    with contextlib.ExitStack() as stack:
        yield lab.internet.call(enter)


@contextlib.contextmanager
def _visited(visits: list[str]) -> Iterator[None]:
    """Note who connects to the server that is on no list."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            visits.append(self.client_address[0])

    with socketserver.ThreadingTCPServer((ELSEWHERE, 443), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
