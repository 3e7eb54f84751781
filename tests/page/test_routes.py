"""What a request for the page gets, as a table."""

from __future__ import annotations

import pytest

from dls.page import access, routes
from dls.page.routes import Reply, WantsEvents, WantsPicture

KEY = "k3y"
HOST = {"host": "localhost:8911"}
HTML = {**HOST, "accept": "text/html,*/*;q=0.8"}
PICTURE = "/dls/page/pictures/0123456789abcdef/2-1"


def decide(
    path: str, headers: dict[str, str], method: str = "GET", is_authorized: bool = False, port: int = 8911
) -> object:
    return routes.decide(method, path, headers, port=port, key=KEY, is_authorized=is_authorized)


@pytest.mark.parametrize(
    ("path", "headers", "method"),
    [
        ("/", HOST, "GET"),
        ("/", {**HOST, "accept": "*/*"}, "GET"),
        ("/", HTML, "POST"),
        ("/status", HTML, "GET"),
        ("/dls/overview", HTML, "GET"),
        ("/dls/images/x", {**HTML, "x-dls-page-key": KEY}, "GET"),
        ("/dls/page", HTML, "GET"),
    ],
)
def test_what_is_not_for_the_page(path: str, headers: dict[str, str], method: str) -> None:
    """Whatever asks for no HTML, as ITK-SNAP's client, and every other address, gets what it got before."""
    assert decide(path, headers, method) is None


@pytest.mark.parametrize(("path", "kind"), [(path, kind) for path, (_, kind) in routes.ASSETS.items()])
def test_the_files_of_the_page(path: str, kind: str) -> None:
    """Each comes with its type, and with the headers that keep other pages out."""
    reply = decide(path, HTML)
    assert isinstance(reply, Reply) and reply.status == 200 and reply.body
    headers = dict(reply.headers)
    assert headers["Content-Type"] == kind and headers["Cache-Control"] == "no-store"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin" and headers["X-Frame-Options"] == "DENY"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert not any(name.lower().startswith("access-control") for name in headers)


def test_the_files_name_nothing_from_elsewhere() -> None:
    """No address of another host stands in them, no script and no style in the HTML, and no HTML in the script."""
    html, css, script = (decide(path, HTML) for path in ("/", "/dls/page/page.css", "/dls/page/page.js"))
    assert isinstance(html, Reply) and isinstance(css, Reply) and isinstance(script, Reply)
    for reply in (html, css, script):
        assert b"https://" not in reply.body and b"url(" not in reply.body and b"@import" not in reply.body
        assert reply.body.replace(b"http://localhost:", b"").count(b"http://") == 0
    assert b"style=" not in html.body and b"<style" not in html.body and b"onclick" not in html.body
    assert html.body.count(b"<script") == 1 and b'<script src="/dls/page/page.js" defer></script>' in html.body
    for door in (b"innerHTML", b"outerHTML", b"insertAdjacentHTML", b"document.write", b"eval(", b"Function("):
        assert door not in script.body


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"host": "localhost:8912"}, "goes by no other name"),
        ({"host": "localhost"}, "goes by no other name"),
        ({"host": ""}, "goes by no other name"),
        ({"host": "rebound.example:8911"}, "goes by no other name"),
        ({"host": "localhost.evil.example:8911"}, "goes by no other name"),
        ({"host": "sub.localhost:8911"}, "goes by no other name"),
        ({"origin": "http://evil.example"}, "Other web pages"),
        ({"origin": "null"}, "Other web pages"),
        ({"origin": "http://localhost:9000"}, "Other web pages"),
        ({"origin": "https://localhost:8911"}, "Other web pages"),
        ({"sec-fetch-site": "cross-site"}, "Other web pages"),
        ({"sec-fetch-site": "same-site"}, "Other web pages"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/dls/page/page.js", routes.EVENTS, PICTURE, "/dls/page/nothing"])
def test_another_web_page_gets_nothing(path: str, more: dict[str, str], sentence: str) -> None:
    """Neither by a name that leads to this computer, nor with an origin of its own, and the key does not help."""
    reply = decide(path, {**HTML, access.KEY_HEADER: KEY, **more}, is_authorized=True)
    assert isinstance(reply, Reply) and reply.status == 403 and sentence.encode() in reply.body


@pytest.mark.parametrize(
    "more",
    [
        {"origin": "http://localhost:8911"},
        {"host": "127.0.0.1:8911", "origin": "http://127.0.0.1:8911"},
        {"host": "[::1]:8911"},
        {"host": "LOCALHOST:8911", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
    ],
)
def test_the_page_itself_gets_in(more: dict[str, str]) -> None:
    """Under each loopback name, from its own origin or typed into the browser."""
    assert decide(routes.EVENTS, {**HOST, access.KEY_HEADER: KEY, **more}) == WantsEvents(is_private=True)


def test_what_the_key_opens() -> None:
    """Without it the stream has nothing private, and there are no pictures; a wrong one is refused."""
    right, wrong = {**HOST, access.KEY_HEADER: KEY}, {**HOST, access.KEY_HEADER: KEY + "x"}
    assert decide(routes.EVENTS, HOST) == WantsEvents(is_private=False)
    assert decide(routes.EVENTS, HOST, is_authorized=True) == WantsEvents(is_private=True)
    assert (
        decide(PICTURE, right) == decide(PICTURE, HOST, is_authorized=True) == WantsPicture("0123456789abcdef", "2-1")
    )
    refused = (decide(PICTURE, HOST), decide(PICTURE, wrong), decide(routes.EVENTS, wrong))
    assert {reply.status for reply in refused if isinstance(reply, Reply)} == {403}
    cookie = decide(PICTURE, {**HOST, "cookie": f"key={KEY}", "authorization": f"Bearer {KEY}"})
    assert isinstance(cookie, Reply) and cookie.status == 403


@pytest.mark.parametrize(
    "path",
    [
        "/dls/page/",
        "/dls/page/../overview",
        "/dls/page/pictures/0123456789abcdef",
        "/dls/page/pictures/0123456789abcdef/2-1/x",
        "/dls/page/pictures/../../etc/passwd",
        "/dls/page/pictures/0123456789ABCDEF/2-1",
        "/dls/page/assets/index.html",
    ],
)
def test_no_other_address_of_the_page(path: str) -> None:
    """Nothing but the files and the data of the page is at its addresses, and only GET reaches them."""
    reply = decide(path, {**HOST, access.KEY_HEADER: KEY})
    assert isinstance(reply, Reply) and reply.status == 404
    posted = decide(path, {**HOST, access.KEY_HEADER: KEY}, "POST")
    assert isinstance(posted, Reply) and posted.status == 405


def test_the_default_port_of_http() -> None:
    """At port 80 a browser leaves the port out of the name."""
    assert decide(routes.EVENTS, {"host": "localhost"}, port=80) == WantsEvents(is_private=False)
