"""The steps of the demo."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dls.cli.console import Console, show_session, show_table
from dls.demo import picture, sample, sshd
from dls.errors import DlsError
from dls.remote import session as sessions
from dls.remote.host.options import ServerOptions
from dls.remote.login import LoginOptions
from dls.remote.progress import Reporter
from dls.segment.http import Address
from dls.segment.itksnap import ItkSnapClient


@dataclass(frozen=True)
class Result:
    """One segmented structure."""

    caption: str
    mask: npt.NDArray[np.uint8]
    """Mask, shape (z, y, x)."""
    center: tuple[int, int, int]
    """Voxel (z, y, x) whose slices the picture shows."""


def run(console: Console, reporter: Reporter, *, once: bool, path: Path, library: bool = False) -> None:
    """Start an SSH server, connect to it, segment as ITK-SNAP would, write a picture, and remove everything else.

    `library` starts asyncssh even where OpenSSH's sshd is installed.
    """
    if os.name == "nt":
        raise DlsError("The demo needs Linux or macOS: it starts the server on this computer.", "Try dls connect HOST.")
    with _workspace() as folder, sshd.running(folder, library=library) as server:
        reporter.note(f"Started an SSH server on 127.0.0.1:{server.port} ({server.program})")
        login = LoginOptions(ssh_config=server.config, remote_dir=f"{folder}/host")
        request = ServerOptions("region", stand_in=True, session_dir=f"{folder}/sessions")
        session = sessions.connect("dls-demo", server=request, login=login, reporter=reporter)
        try:
            client = ItkSnapClient(Address(session.port))
            reporter.note("Segmenting a T1 brain as ITK-SNAP would: upload, click, scribble, lasso")
            results = play(client)
            volume = sample.load()
            picture.draw(path, volume, [(result.caption, result.mask, result.center) for result in results])
            rows = [
                (name, f"{seconds * 1000:.0f} ms", f"{size / 1024:.0f} KiB") for name, seconds, size in client.times
            ]
            show_table(console, ("Request", "Time", "Response"), rows)
            reporter.note(f"The result over three slices: {path}")
            if not once:
                show_session(console, session)
                session.wait()
        except KeyboardInterrupt:
            reporter.note("Ending the demo.")
        finally:
            session.close(stop_server=True)
            shutil.rmtree(session.state.run_dir, ignore_errors=True)


@contextlib.contextmanager
def _workspace() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="dls-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def play(client: ItkSnapClient) -> list[Result]:
    """Segment three structures as an annotator would, and return the results."""
    volume = sample.load()
    client.start("region")
    client.upload(volume, sample.SPACING)
    z, y, x = sample.VENTRICLE
    ventricle = client.point(z, y, x)
    results = [Result(f"One click in a lateral ventricle: {_size(ventricle)}", ventricle, sample.VENTRICLE)]
    client.reset()
    z, y, x = sample.WHITE_MATTER
    stroke = np.zeros(volume.shape, bool)
    stroke[z, y - 8 : y + 8, x - 1 : x + 1] = True
    white = client.draw("scribble", stroke)
    results.append(Result(f"A scribble in white matter: {_size(white)}", white, sample.WHITE_MATTER))
    client.reset()
    z, y, x = sample.THALAMUS
    outline = np.zeros(volume.shape, bool)
    rows, columns = np.ogrid[: volume.shape[1], : volume.shape[2]]
    outline[z] = ((rows - y) / 14) ** 2 + ((columns - x) / 9) ** 2 <= 1
    thalamus = client.draw("lasso", outline)
    results.append(Result(f"A lasso around the thalamus: {_size(thalamus)}", thalamus, sample.THALAMUS))
    client.end()
    return results


def _size(mask: npt.NDArray[np.uint8]) -> str:
    return f"{int(mask.sum()) * np.prod(sample.SPACING) / 1000:.1f} ml"
