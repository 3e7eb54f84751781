"""Who may ask."""

from __future__ import annotations

import base64

import pytest

from dls.server.http.access import Policy, make_secret
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap

OPEN = Policy()
GUARDED = Policy(secret="s3cret")


def basic(password: str, user: str = "snap") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "host", ["localhost:8911", "127.0.0.1:8911", "[::1]:8911", "10.0.0.7:8911", "LOCALHOST", "a.localhost:1", ""]
)
def test_own_names_are_let_in(host: str) -> None:
    """No web page can be served from these names but one of this computer's own."""
    assert OPEN.judge({"host": host}, over_socket=False) is None


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8911", "127.0.0.1.evil.example", "[:::"])
@pytest.mark.parametrize("over_socket", [True, False])
def test_foreign_names_are_refused(host: str, over_socket: bool) -> None:
    """A page that names 127.0.0.1 by a name of its own (DNS rebinding) gets nowhere, through a forward neither."""
    refusal = OPEN.judge({"host": host}, over_socket=over_socket)
    assert refusal is not None and refusal.status == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "https://localhost.evil.example", ""]
)
def test_foreign_origins_are_always_refused(origin: str) -> None:
    """With the secret too: a browser adds it by itself to requests of any page."""
    headers = {"host": "localhost:8911", "origin": origin, "authorization": basic("s3cret")}
    for policy in (OPEN, GUARDED):
        refusal = policy.judge(headers, over_socket=False)
        assert refusal is not None and refusal.status in (401, 403)
    assert GUARDED.judge(headers, over_socket=False).status == 403  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("site", "passes"), [("cross-site", False), ("same-site", False), ("none", True), ("same-origin", True)]
)
def test_images_and_links_of_foreign_pages_are_refused(site: str, passes: bool) -> None:
    """They carry no Origin, but browsers say where they come from."""
    headers = {"host": "localhost:8911", "sec-fetch-site": site}
    assert (OPEN.judge(headers, over_socket=True) is None) is passes


def test_the_secret_opens_the_port() -> None:
    """As the password of Basic credentials, whatever the user; with it, the host's name does not matter."""
    assert GUARDED.judge({"host": "localhost"}, over_socket=False).status == 401  # type: ignore[union-attr]
    assert GUARDED.judge({"host": "gpu.example", "authorization": basic("s3cret")}, over_socket=False) is None
    assert GUARDED.judge({"host": "x", "authorization": basic("s3cret", "ann")}, over_socket=False) is None
    for wrong in (basic("s3cre"), basic(""), "Basic ???", "Bearer s3cret", "Basic"):
        assert GUARDED.judge({"host": "localhost", "authorization": wrong}, over_socket=False).status == 401  # type: ignore[union-attr]


def test_the_unix_socket_needs_no_secret_but_refuses_a_wrong_one() -> None:
    """File permissions guard it; a client that shows a secret wants to know whether it is the right server."""
    assert GUARDED.judge({"host": "localhost"}, over_socket=True) is None
    assert GUARDED.judge({"host": "localhost", "authorization": basic("other")}, over_socket=True).status == 401  # type: ignore[union-attr]


def test_allowed_hosts_are_let_in() -> None:
    """`--allow-host` adds a name."""
    assert Policy(hosts=frozenset({"gpu.example"})).judge({"host": "GPU.example:80"}, over_socket=False) is None


def test_secrets_are_long_and_differ() -> None:
    """120 bits each, of characters that mean nothing in a URL."""
    made = {make_secret() for _ in range(100)}
    assert len(made) == 100 and all(len(secret) == 24 and secret.isalnum() for secret in made)


def test_a_live_server_asks_for_its_secret() -> None:
    """libcurl sends what stands before the @ of the Server field with every request, before any challenge."""
    with serving(policy=GUARDED, identity={"pid": 1, "code": "abc"}) as server:
        refused = ItkSnap(server.port).get("/status")
        assert refused.status == 401 and refused.headers["www-authenticate"].startswith("Basic")
        assert "secret" in refused.error
        assert ItkSnap(server.port, "snap:s3cret@127.0.0.1").get("/status").json["pid"] == 1
        assert ItkSnap(server.port, "snap:wrong@127.0.0.1").get("/status").status == 401


def test_strangers_do_not_learn_who_the_server_is() -> None:
    """The process and the code are told to those only who know the secret."""
    with serving(identity={"pid": 1}) as server:
        assert "pid" not in ItkSnap(server.port).get("/status").json
