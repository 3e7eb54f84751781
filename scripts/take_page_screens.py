#!/usr/bin/env python3
"""Make the pictures of the page under docs/pictures/, of a real run in a real Chromium.

    .venv/bin/python scripts/take_page_screens.py [FOLDER]

`scripts/screens` runs this too. It needs chromium and chromedriver (on Debian: chromium, chromium-driver). The SSH
server, the server behind it and the sessions are on this computer and gone afterwards; the image is the demo's.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

import dls  # noqa: E402
from dls.demo import sample, sshd  # noqa: E402
from dls.segment.http import Address  # noqa: E402
from dls.segment.itksnap import ItkSnapClient  # noqa: E402
from tests.support.browser import Browser, browsing  # noqa: E402
from tests.support.gate import Gate, gate_to  # noqa: E402

SIZE = (1180, 900)


def work(port: int) -> None:
    """Do what an annotator does: two sessions, the second one at work now."""
    first = ItkSnapClient(Address(port))
    first.start("region")
    first.upload(sample.load(), sample.SPACING)
    first.point(*sample.VENTRICLE)
    second = ItkSnapClient(Address(port))
    second.start("region")
    second.upload(sample.load(), sample.SPACING)
    z, y, x = sample.WHITE_MATTER
    stroke = np.zeros(second.shape, bool)
    stroke[z, y - 8 : y + 8, x - 1 : x + 1] = True
    second.draw("scribble", stroke)


def picture(browser: Browser, path: Path) -> None:
    """Write a picture with a palette, which is a third as large."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    browser.screenshot(str(path))
    with Image.open(path) as image:
        few = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} KB")


def main(folder: Path) -> None:
    """Make the three pictures."""
    place = Path(tempfile.mkdtemp(prefix="dls-p-"))
    try:
        with sshd.running(place) as host, gate_to(host, place) as gate, browsing(*SIZE) as browser:
            login = dls.LoginOptions(ssh_config=gate.config, remote_dir=f"{place}/host")
            server = dls.ServerOptions(session_dir=f"{place}/sessions")
            session = dls.connect("dls-demo", login=login, server=server, local_port=8911)
            try:
                show(browser, session, gate, folder)
            finally:
                session.close(stop_server=True)
                shutil.rmtree(session.state.run_dir, ignore_errors=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def show(browser: Browser, session: dls.Session, gate: Gate, folder: Path) -> None:
    """Make the pictures of one session."""
    work(session.port)
    assert session.page_url is not None
    browser.emulate(prefers_color_scheme="light")
    browser.open(session.page_url)
    browser.until(lambda: browser.run("return document.querySelectorAll('.view img:not([hidden])').length") == 2)
    picture(browser, folder / "page-light.png")
    browser.emulate(prefers_color_scheme="dark")
    picture(browser, folder / "page-dark.png")
    browser.emulate(prefers_color_scheme="light")
    gate.shut()
    waiting = threading.Thread(target=ItkSnapClient(Address(session.port)).start, args=("region",))
    waiting.start()
    try:
        browser.until_text("#notice-next", "waits")
        browser.until_text("#notice-next", "Next try in")
        picture(browser, folder / "page-outage.png")
    finally:
        gate.open()
        waiting.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures")
