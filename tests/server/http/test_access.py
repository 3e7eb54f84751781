"""Which requests the access policy allows."""

from __future__ import annotations

import base64

import pytest

from dls.credentials import make_secret
from dls.server.http.access import Policy
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap

OPEN = Policy()
GUARDED = Policy(secret="s3cret")


def status_of(policy: Policy, headers: dict[str, str], *, over_socket: bool = False) -> int | None:
    """Return the status with which the policy refuses the request, or None."""
    refusal = policy.check(headers, over_socket=over_socket)
    return refusal.status if refusal else None


def basic(password: str, user: str = "snap") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "host", ["localhost:8911", "127.0.0.1:8911", "[::1]:8911", "10.0.0.7:8911", "LOCALHOST", "a.localhost:1", ""]
)
def test_own_names_are_allowed(host: str) -> None:
    """Only this computer can serve a web page from these names."""
    assert status_of(OPEN, {"host": host}) is None


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8911", "127.0.0.1.evil.example", "[:::"])
@pytest.mark.parametrize("over_socket", [True, False])
def test_foreign_names_are_refused(host: str, over_socket: bool) -> None:
    """A web page whose host name resolves to 127.0.0.1 (DNS rebinding) is refused, also through a forward."""
    assert status_of(OPEN, {"host": host}, over_socket=over_socket) == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "https://localhost.evil.example", ""]
)
def test_foreign_origins_are_always_refused(origin: str) -> None:
    """They are refused with the secret too, because a browser adds it by itself to the requests of any page."""
    headers = {"host": "localhost:8911", "origin": origin, "authorization": basic("s3cret")}
    for policy in (OPEN, GUARDED):
        assert status_of(policy, headers) in (401, 403)
    assert status_of(GUARDED, headers) == 403


@pytest.mark.parametrize(
    ("site", "passes"), [("cross-site", False), ("same-site", False), ("none", True), ("same-origin", True)]
)
def test_images_and_links_of_foreign_pages_are_refused(site: str, passes: bool) -> None:
    """Such requests have no Origin header, but browsers send Sec-Fetch-Site with them."""
    headers = {"host": "localhost:8911", "sec-fetch-site": site}
    assert (status_of(OPEN, headers, over_socket=True) is None) is passes


def test_the_secret_gives_access_to_the_port() -> None:
    """It is the password of Basic credentials with any user, or a Bearer token; with it, any host name is allowed."""
    assert status_of(GUARDED, {"host": "localhost"}) == 401
    assert status_of(GUARDED, {"host": "gpu.example", "authorization": basic("s3cret")}) is None
    assert status_of(GUARDED, {"host": "x", "authorization": basic("s3cret", "ann")}) is None
    assert status_of(GUARDED, {"host": "x", "authorization": "Bearer s3cret"}) is None
    for wrong in (basic("s3cre"), basic(""), "Basic ???", "Bearer s3cre", "Bearer", "Bearer ", "Token s3cret", "Basic"):
        refusal = GUARDED.check({"host": "localhost", "authorization": wrong}, over_socket=False)
        assert refusal and refusal.status == 401
        assert "snap:SECRET@host" in refusal.message and "API key" in refusal.message


@pytest.mark.parametrize("sent", [basic("other"), "Bearer other", "Basic ???", "Bearer s3cret", None])
def test_any_credentials_are_fine_where_none_are_needed(sent: str | None) -> None:
    """A viewer sends what its fields have, an old secret or API key, wherever it asks; who asks is known otherwise."""
    headers = {"host": "localhost"} if sent is None else {"host": "localhost", "authorization": sent}
    assert status_of(GUARDED, headers, over_socket=True) is None
    assert status_of(OPEN, headers) is None
    assert status_of(Policy(secret="s3cret", open=True), headers) is None


def test_allowed_hosts_are_accepted() -> None:
    """A name given with `--allow-host` is accepted in any case and with any port."""
    assert status_of(Policy(hosts=frozenset({"gpu.example"})), {"host": "GPU.example:80"}) is None


def test_secrets_are_long_and_differ() -> None:
    """Each has 24 characters (120 bits) that have no special meaning in a URL."""
    made = {make_secret() for _ in range(100)}
    assert len(made) == 100 and all(len(secret) == 24 and secret.isalnum() for secret in made)


def test_a_server_requires_its_secret() -> None:
    """libcurl sends the credentials of the Server field with every request, before any challenge."""
    with serving(policy=GUARDED, identity={"pid": 1, "code": "abc"}) as server:
        refused = ItkSnap(server.port).get("/status")
        assert refused.status == 401 and refused.headers["www-authenticate"].startswith("Basic")
        assert "secret" in refused.error
        assert ItkSnap(server.port, "snap:s3cret@127.0.0.1").get("/status").json["pid"] == 1
        assert ItkSnap(server.port, "snap:wrong@127.0.0.1").get("/status").status == 401
        assert ItkSnap(server.port).get("/status", ("Authorization: Bearer s3cret",)).json["pid"] == 1
        assert ItkSnap(server.port).get("/status", ("Authorization: Bearer wrong",)).status == 401


def test_status_without_the_secret_is_anonymous() -> None:
    """`/status` gives process number and code only to those who know the secret."""
    with serving(identity={"pid": 1}) as server:
        assert "pid" not in ItkSnap(server.port).get("/status").json
