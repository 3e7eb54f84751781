"""Row 5: a session's image is on the disk, where logging out does not remove it."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import numpy as np

from dls.contract import MANIFEST_FILE
from tests.server.sessions.example import CLICKS, IMAGE, mask_after
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap


def test_a_session_outlives_its_memory_backed_files(tmp_path: Path) -> None:
    """Row 5: what logind removes from /dev/shm when its user logs out takes no session away."""
    shared = tmp_path / "shm" / "dls-0" / "x"
    with serving(folder=tmp_path, earlier=shared) as server:
        snap = ItkSnap(server.port)
        snap.start()
        assert snap.upload(IMAGE).status == 200
        snap.point(*CLICKS[0])
    shutil.rmtree(tmp_path / "shm", ignore_errors=True)
    with serving(folder=tmp_path, earlier=shared) as server:
        snap.url = f"http://127.0.0.1:{server.port}"
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[1])), mask_after(CLICKS[:2]))


def test_images_of_the_release_before_are_read_and_removed(tmp_path: Path) -> None:
    """Row 5: a session whose image that release put into a memory-backed file goes on, and leaves nothing there."""
    shared = tmp_path / "shm" / "dls-0" / "x"
    with serving(folder=tmp_path, earlier=shared) as server:
        snap = ItkSnap(server.port)
        snap.start()
        assert snap.upload(IMAGE).status == 200
    [image] = tmp_path.rglob("image-*")
    (shared / snap.session).mkdir(parents=True)
    moved = Path(shutil.move(image, shared / snap.session))
    [manifest] = tmp_path.rglob(MANIFEST_FILE)
    fields = json.loads(manifest.read_bytes().partition(b"\n")[0])
    fields["image"]["path"] = str(moved)
    line = json.dumps(fields).encode()
    manifest.write_bytes(line + b"\n%08x\n" % zlib.crc32(line))
    with serving(folder=tmp_path, earlier=shared) as server:
        snap.url = f"http://127.0.0.1:{server.port}"
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[0])), mask_after(CLICKS[:1]))
        assert snap.upload(IMAGE).status == 200 and not moved.exists()
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[1])), mask_after(CLICKS[1:2]))
        assert snap.get(f"/end_session/{snap.session}").status == 200
    assert not list(shared.iterdir()) and not manifest.parent.exists()
