"""The page in a real Chromium, over a real SSH connection: what people see, hear and can do with a keyboard."""

from __future__ import annotations

import base64
import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dls
from dls.demo import sshd
from tests.support.browser import NEEDS_CHROMIUM, Browser, browsing
from tests.support.connecting import connected
from tests.support.gate import Gate, gate_to
from tests.support.itksnap import ItkSnap
from tests.support.synthetic import ellipsoid, noisy

pytestmark = [pytest.mark.slow, NEEDS_CHROMIUM]

TRUTH = ellipsoid((30, 40, 50), (15, 20, 25), (8, 9, 10))
LATEST = "#sessions li"
"""The session that was used last: those of earlier tests are stored on the host too."""
LOADED = "return [...document.querySelectorAll('.view img:not([hidden])')].filter((i) => i.naturalWidth).length"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as opened:
        yield opened


@pytest.fixture
def gate(host: sshd.Server, short_folder: Path) -> Iterator[Gate]:
    """A way to the host that can be shut."""
    with gate_to(host, short_folder) as opened:
        yield opened


@pytest.fixture
def session(gate: Gate, clean: str, browser: Browser) -> Iterator[dls.Session]:
    """A session over that way; the console of the browser has nothing to say at the end."""
    with connected(gate, clean)[0] as opened:  # type: ignore[arg-type]  # its config is all that is looked at
        browser.complaints()
        yield opened
        browser.open("about:blank")
    assert browser.complaints() == []


def begun(port: int) -> ItkSnap:
    snap = ItkSnap(port)
    snap.start()
    assert snap.upload(noisy(TRUTH, 5, np.random.default_rng(0))).status == 200
    return snap


def opened(browser: Browser, session: dls.Session) -> None:
    assert session.page_url
    browser.open(session.page_url)
    browser.until_text("#state", "Connected")


def pixels(browser: Browser) -> Any:
    """Return the pixels of the first picture, as the browser shows them."""
    script = """
        const image = document.querySelector('.view img:not([hidden])');
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        canvas.getContext('2d').drawImage(image, 0, 0);
        return canvas.toDataURL().split(',')[1];
    """
    return np.array(Image.open(io.BytesIO(base64.b64decode(browser.run(script)))).convert("RGB")).astype(int)


def is_colored(browser: Browser) -> bool:
    image = pixels(browser)
    return bool((image[..., 0] - image[..., 2] > 20).any())


def test_what_the_page_shows(browser: Browser, session: dls.Session) -> None:
    """The link, the engine, a session with its picture, the last request and the log; a click changes it at once; the
    key does not stay in the address, and a reload keeps the page."""
    snap = begun(session.port)
    opened(browser, session)
    assert browser.text("h1") == str(session.connection.target) and browser.text("#engine") == "region"
    browser.until(lambda: browser.run(LOADED))
    assert snap.session[:8] in browser.text(LATEST) and "30 voxels" in browser.text(LATEST)
    assert not is_colored(browser)
    assert "upload_raw: 200" in browser.text("#log")
    browser.run("window.isSame = true")
    snap.mask(snap.point(15, 20, 25))
    browser.until_text("#requests", "Click")
    browser.until_text(LATEST, "1 prompt")
    browser.until(lambda: is_colored(browser))
    browser.until_text("#log", "process_point_interaction: 200")
    assert browser.run("return window.isSame === true")
    assert browser.driver.current_url == f"http://localhost:{session.port}/"
    browser.driver.refresh()
    browser.until_text(LATEST, "1 prompt")


def test_a_session_without_a_picture_shows_none(browser: Browser, session: dls.Session) -> None:
    """After a reset of another viewer's session, whose image only the engine sees, the mask of before is gone."""
    begun(session.port)
    opened(browser, session)
    browser.until(lambda: browser.run(LOADED))
    show = "shown.sessions.forEach((each) => { each.picture = null; }); showSessions(shown.sessions, true);"
    assert browser.run(f"{show} {LOADED}") == 0
    assert browser.run("return document.querySelector('.view p').hidden") is False


def test_copying_the_address(browser: Browser, session: dls.Session) -> None:
    """The buttons copy what to type into ITK-SNAP, and say so, to a screen reader too."""
    opened(browser, session)
    origin = f"http://localhost:{session.port}"
    permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    browser.driver.execute_cdp_cmd("Browser.grantPermissions", {"origin": origin, "permissions": permissions})
    for number, value in enumerate((session.server_field, str(session.port))):
        browser.driver.find_elements("css selector", "#copies button")[number].click()
        browser.until(lambda: "copied" in browser.run("return document.getElementById('copied').textContent"))
        read = "navigator.clipboard.readText().then(arguments[arguments.length - 1])"
        assert browser.driver.execute_async_script(read) == value
        browser.until(lambda: not browser.run("return document.getElementById('copied').textContent"))


def test_an_outage(browser: Browser, session: dls.Session, gate: Gate) -> None:
    """The page says that the link is lost, since when, when it is tried again and what waits, keeps what it knows, also
    after a reload; then it is connected again, and what waited is answered and shown."""
    snap = begun(session.port)
    opened(browser, session)
    browser.until(lambda: browser.run(LOADED))
    gate.shut()
    browser.until_text("#state", "Link lost")
    click = threading.Thread(target=lambda: snap.mask(snap.point(15, 20, 25)))
    click.start()
    browser.until_text("#notice-next", "1 request waits")
    browser.until_text("#notice-next", "Next try in")
    assert "Link lost" in browser.driver.title and "as of" in browser.text("#log-title")
    browser.driver.refresh()
    browser.until_text("#state", "Link lost")
    browser.until(lambda: browser.run(LOADED))
    gate.open()
    browser.until_text("#state", "Connected")
    click.join()
    browser.until_text(LATEST, "1 prompt")
    assert browser.text("#notice") == ""


def test_without_the_key(browser: Browser, session: dls.Session) -> None:
    """The page says what is missing and takes the key; a wrong one is refused in words."""
    begun(session.port)
    assert session.page_url is not None
    key = session.page_url.rpartition("=")[2]
    browser.open(f"http://localhost:{session.port}/")
    browser.run("sessionStorage.clear()")
    browser.driver.refresh()
    browser.until_text("#state", "Connected")
    browser.until_text("#locked", "key of this run")
    assert browser.text("#copies").startswith("Server") and browser.text("#sessions") == browser.text("#log") == ""
    for typed in ("wrong-key", key):
        field = browser.driver.find_element("id", "key")
        field.clear()
        field.send_keys(typed + "\n")
        browser.until_text("#wrong" if typed != key else "#sessions", "not that of" if typed != key else "Session")
    assert [message for message in browser.complaints() if "403" not in message] == []


def test_after_the_end(browser: Browser, session: dls.Session) -> None:
    """When `dls connect` has ended the page says so, and goes on when the port is served again."""
    opened(browser, session)
    session.close()
    browser.until(lambda: browser.text("#state") in ("Closed", "No contact with dls"))
    assert "Start it again" in browser.text("#notice") or "ended" in browser.text("#notice")
    browser.open("about:blank")
    browser.complaints()  # of a port that nobody listens on


def test_the_secret(browser: Browser, gate: Gate, clean: str) -> None:
    """With `--local-secret` a browser that has the secret sees all of the page, its pictures too."""
    with connected(gate, clean, local_secret="open-sesame")[0] as session:  # type: ignore[arg-type]
        snap = ItkSnap(session.port, "snap:open-sesame@127.0.0.1")
        snap.start()
        assert snap.upload(noisy(TRUTH, 5, np.random.default_rng(0))).status == 200
        browser.open(f"http://snap:open-sesame@localhost:{session.port}/")
        browser.until_text("#copies", "snap:open-sesame@localhost")
        browser.until(lambda: browser.run(LOADED))


CONTRAST = """
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = (rgb) => {
      const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
      const part = rgb.slice(0, 3).map((v) => linear(v / 255));
      return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
    };
    const ground = (node) => {
      for (; node; node = node.parentElement) {
        const color = parse(getComputedStyle(node).backgroundColor);
        if (color.length === 3 || color[3] > 0) return color;
      }
      return [255, 255, 255];
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode.parentElement;
      if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest('.hidden, noscript')) continue;
      const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      found.push([contrast, walker.currentNode.data.trim()]);
    }
    return found.sort((a, b) => a[0] - b[0]);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colors(browser: Browser, session: dls.Session, gate: Gate, scheme: str) -> None:
    """Light and dark as the system prefers it; all text has a contrast of 4.5 (WCAG AA), in an outage too."""
    browser.emulate(prefers_color_scheme=scheme)
    snap = begun(session.port)
    snap.mask(snap.point(15, 20, 25))
    assert snap.point(999, 0, 0).status == 400  # in the color of what failed
    opened(browser, session)
    browser.until_text("#requests", "refused")
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    lightness = sum(map(int, re.findall(r"\d+", ground))) / 3
    assert lightness > 200 if scheme == "light" else lightness < 60
    texts = browser.run(CONTRAST)
    assert len(texts) > 20 and texts[0][0] >= 4.5, texts[:5]
    gate.shut()
    browser.until_text("#notice-next", "Next try in")
    texts = browser.run(CONTRAST)
    assert texts[0][0] >= 4.5, texts[:5]
    gate.open()
    browser.until_text("#state", "Connected")


def test_less_motion(browser: Browser, session: dls.Session, gate: Gate) -> None:
    """Nothing moves for people who prefer less motion."""
    running = "return document.getAnimations().filter((each) => each.playState === 'running').length"
    opened(browser, session)
    gate.shut()
    for motion, count in (("no-preference", 1), ("reduce", 0)):
        browser.emulate(prefers_reduced_motion=motion)
        browser.until_text("#state", "Link lost")
        assert browser.run(running) == count
    gate.open()
    browser.until_text("#state", "Connected")


def test_the_keyboard(browser: Browser, session: dls.Session) -> None:
    """Tab goes from the link to the sessions, over the buttons, to the log, and each has a visible focus."""
    begun(session.port)
    opened(browser, session)
    browser.until(lambda: browser.run(LOADED))
    seen = []
    for _ in range(4):
        press_tab(browser)
        seen.append(browser.run(
            "const a = document.activeElement; const s = getComputedStyle(a);"
            "return [a.getAttribute('aria-label') || a.id || a.textContent, s.outlineStyle, parseFloat(s.outlineWidth)]"
        ))  # fmt: skip
    names = [name for name, _, _ in seen]
    assert names == [
        "Skip to the sessions", f"Copy Server: {session.server_field}", f"Copy Port: {session.port}", "log",
    ]  # fmt: skip
    assert all(style == "solid" and width >= 2 for _, style, width in seen)


def press_tab(browser: Browser) -> None:
    for kind in ("keyDown", "keyUp"):
        keys = {"type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
        browser.driver.execute_cdp_cmd("Input.dispatchKeyEvent", keys)


def test_what_a_screen_reader_is_told(browser: Browser, session: dls.Session, gate: Gate) -> None:
    """There are landmarks and headings in order, everything that can be used has a name, pictures have a text, tables
    have headers, and the state of the link is announced when it changes, without what only counts seconds."""
    begun(session.port)
    opened(browser, session)
    browser.until(lambda: browser.run(LOADED))
    nodes = accessible(browser)
    roles = [role for role, _ in nodes]
    assert {"banner", "main", "contentinfo", "status", "list", "table", "columnheader", "heading"} <= set(roles)
    for role, name in nodes:
        if role in ("link", "button", "textbox", "image", "region", "table", "heading"):
            assert name, (role, nodes)
    picture = next(name for role, name in nodes if role == "image")
    assert picture.startswith("Axial, coronal and sagittal slice of session")
    levels = browser.run("return [...document.querySelectorAll('h1, h2, h3')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1 and set(levels) <= {1, 2}
    assert browser.run("return document.documentElement.lang") == "en"
    live = "return document.querySelector('#status').textContent"
    assert browser.run(live) == "Connected"
    assert browser.run("return !document.querySelector('[aria-live] time, [role=status] #notice-next')")
    gate.shut()
    browser.until(lambda: browser.run(live).startswith("Link lost. "))
    gate.open()
    browser.until(lambda: browser.run(live) == "Connected")


def accessible(browser: Browser) -> list[tuple[str, str]]:
    """Return role and name of each node of the browser's accessibility tree."""
    browser.driver.execute_cdp_cmd("Accessibility.enable", {})
    tree = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    shown = [node for node in tree if not node.get("ignored")]
    return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in shown]


@pytest.mark.parametrize("width", [320, 768])
def test_narrow_windows(browser: Browser, session: dls.Session, width: int) -> None:
    """Nothing is cut off at the side, down to the width of a telephone or a magnified page."""
    snap = begun(session.port)
    snap.mask(snap.point(15, 20, 25))
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        opened(browser, session)
        browser.until_text("#requests", "Click")
        assert browser.run("return document.documentElement.scrollWidth") <= width
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_text_of_a_host_is_text(browser: Browser, session: dls.Session) -> None:
    """A path with HTML in it reaches the log, and the page shows it as it stands."""
    opened(browser, session)
    path = "/<img%20src=x%20onerror=document.title='hacked'>"
    assert ItkSnap(session.port).get(path).status == 404
    browser.until_text("#log", "<img src=x onerror")
    assert browser.run("return document.querySelectorAll('#log *').length") == 0
    assert "hacked" not in browser.driver.title
