"""What this computer's pip and uv are configured with, and where the indexes keep their files."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from dls.errors import ClosedHostError, TargetError
from dls.remote.certificates import default_context
from dls.remote.loan import laptop
from dls.remote.loan.indexes import Indexes
from dls.remote.loan.laptop import Laptop
from dls.remote.loan.names import HUB, TORCH, Name, Names
from dls.remote.loan.terms import Needs, Terms, environment_of, prepare
from dls.remote.loan.way_out import WebProxy, find_proxy
from tests.support import connect_proxy, package_index
from tests.support.package_index import Index
from tests.support.processes import free_port


def bare(**more: str) -> dict[str, str]:
    """Return an environment without this machine's own configuration."""
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PIP_CONFIG_FILE": os.devnull, **more}


def of(index: Index, *, proxy: str = "", hub: str = "") -> Laptop:
    """Return a computer that is configured with the index and its authority."""
    found = WebProxy.parse(proxy) if proxy else None
    return Laptop(Indexes(index.url), frozenset([index.url]), found, index.ca.read_text(), hub)


def test_a_python_without_authorities(tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of python.org has none on macOS at first: the system's own are taken, and only then."""
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    assert default_context(tmp_path / "none").cert_store_stats()["x509_ca"] == 0
    assert default_context(index.ca).get_ca_certs()[0]["subject"]
    monkeypatch.setenv("SSL_CERT_FILE", str(index.ca))
    assert default_context(Path(__file__)).cert_store_stats()["x509_ca"] == 1  # not read, since it is no certificate


def test_without_configuration() -> None:
    """Without any, the index is the one that pip has built in: a public one, over HTTPS."""
    known = laptop.look(bare())
    assert known.indexes.default.startswith("https://") and not known.own and known.proxy is None


def test_the_configuration_of_pip(tmp_path: Path, index: Index) -> None:
    """pip's own file is read by pip: an index, further ones, certificates and a proxy; paths are left out silently."""
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://mirror.test:8443/simple/\n"
        "extra-index-url = file:///srv/simple https://b.test/ http://c.test/\n"
        f"cert = {index.ca}\nproxy = http://proxy.test:3128\nfind-links = /srv/wheels\n"
    )
    known = laptop.look(bare() | {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")})
    assert known.indexes.all == ("https://mirror.test:8443/simple/", "https://b.test/")
    assert known.indexes.default in known.own and known.ca_bundle in index.ca.read_text()
    assert known.proxy == WebProxy("proxy.test", 3128)
    assert len(known.left_out) == 1 and "http://c.test/" in known.left_out[0]


def test_the_configuration_of_uv(tmp_path: Path) -> None:
    """uv's file counts before pip's, and its variables before both."""
    (tmp_path / "uv.toml").write_text('[[index]]\nurl = "https://mirror.test/"\ndefault = true\n')
    named = {"UV_CONFIG_FILE": str(tmp_path / "uv.toml"), "PIP_INDEX_URL": "https://pip.test/"}
    assert laptop.look(bare(**named)).indexes.default == "https://mirror.test/"
    assert laptop.look(bare(**named, UV_DEFAULT_INDEX="https://uv.test/")).indexes.default == "https://uv.test/"


def test_the_surroundings() -> None:
    """The proxy, the own model hub and the own source of Pythons come from the environment; lower case wins."""
    more = {"HTTPS_PROXY": "http://upper.test:1", "https_proxy": "http://ann:p%40@lower.test:3128"}
    known = laptop.look(bare(**more, HF_ENDPOINT="https://hub.test/", UV_PYTHON_INSTALL_MIRROR="https://py.test/"))
    assert known.proxy == WebProxy("lower.test", 3128, "ann:p@") and "p@" not in repr(known)
    assert known.hub == "https://hub.test" and known.python_mirror == "https://py.test/"


def test_an_index_that_can_not_be_lent() -> None:
    """An index without TLS is refused with what would answer, and without its password."""
    with pytest.raises(ClosedHostError) as error:
        laptop.look(bare(PIP_INDEX_URL="http://ann:s3cret@mirror.test/"))
    assert "HTTPS" in error.value.message and "UV_DEFAULT_INDEX" in error.value.hint
    assert "s3cret" not in error.value.message


def test_certificates_only(tmp_path: Path, index: Index) -> None:
    """Of the files with certificates nothing else is read: no private key, no comment, and no certificate twice."""
    pem = next(index.ca.parent.glob("localhost.pem"))
    assert "PRIVATE KEY" in pem.read_text()
    environment = bare(SSL_CERT_FILE=str(pem), REQUESTS_CA_BUNDLE=str(pem), PIP_CERT=str(tmp_path / "missing"))
    bundle = laptop.read_bundles(environment)
    assert bundle.count("BEGIN") == 1 and "PRIVATE" not in bundle


def test_where_files_are(tmp_path: Path) -> None:
    """The names of files are learned from a page of the index, in JSON and in HTML."""
    wheels = tmp_path / "wheels"
    package_index.tiny_wheel(wheels, "click")
    for speaks_json in (True, False):
        with package_index.running(
            tmp_path, wheels, files_host="files.test", credentials="ann:s3cret", speaks_json=speaks_json
        ) as index:
            terms = prepare(Needs(), of(index))
            assert terms.names.all == (
                Name("localhost", index.port, is_own=True),
                Name("files.test", index.port, is_own=True),
            )
            assert index.requests == ["GET /simple/click/"] and "s3cret" not in terms.describe()


def test_what_is_needed(index: Index) -> None:
    """torch's index and the model hub are lent where they are needed; the user's own hub replaces the public one."""
    assert not set(TORCH) & set(prepare(Needs(), of(index)).names.all)
    with connect_proxy.running({f"localhost:{index.port}": ("127.0.0.1", index.port)}) as proxy:
        known = of(index, proxy=proxy.url)
        both = prepare(Needs(torch=True, weights=True), known).names.all
        assert {*TORCH, *HUB} <= set(both)
        own = prepare(Needs(weights=True), of(index, proxy=proxy.url, hub="https://hub.test/")).names.all
        assert Name("hub.test", is_own=True) in own and not set(HUB) & set(own)
    # Only the model is missing: neither lent nor asked is the index.
    unreachable = Laptop(Indexes(f"https://localhost:{free_port()}/simple/"))
    only_weights = prepare(Needs(packages=False, weights=True), unreachable)
    assert only_weights.names.all == HUB
    told = environment_of(only_weights, "http://proxy")
    assert told["UV_DEFAULT_INDEX"] is told["PIP_INDEX_URL"] is None


def test_passwords_that_travel_along() -> None:
    """The names are told for which the host gets a password; nothing of those that it does not get."""
    known = Laptop(Indexes("https://ann:s3cret@a.test/", ("https://b.test/",)), hub="https://token@hub.test")
    assert Terms(Names(()), known).logins == ["a.test", "hub.test"]
    assert Terms(Names(()), known, Needs(packages=False)).logins == ["hub.test"]


def test_the_page_comes_through_the_web_proxy(index: Index) -> None:
    """This computer's proxy is used for the page too, with its credentials."""
    with connect_proxy.running({f"localhost:{index.port}": ("127.0.0.1", index.port)}, "ann:right") as proxy:
        assert prepare(Needs(), of(index, proxy=proxy.url)).names.all
        assert proxy.asked == [f"localhost:{index.port}"]


def test_an_index_that_does_not_answer(index: Index) -> None:
    """Where this computer does not reach the index either, it says so, without the password."""
    url = f"https://ann:s3cret@localhost:{free_port()}/simple/"
    with pytest.raises(ClosedHostError, match="does not reach") as error:
        prepare(Needs(), Laptop(Indexes(url)))
    assert "s3cret" not in f"{error.value.message}{error.value.hint}"
    with pytest.raises(ClosedHostError, match=r"[Cc]ertificate"):
        prepare(Needs(), Laptop(Indexes(index.url)))


def test_an_index_whose_address_can_not_be_read() -> None:
    """Such an address is refused, or left out of the further ones, without a word of it: it may hold a password."""
    with pytest.raises(ClosedHostError, match="no address") as error:
        laptop.look(bare(UV_DEFAULT_INDEX="https://ann:s3cret@[x/simple/"))
    assert "s3cret" not in error.value.message
    named = {"UV_INDEX": "mine=https://[x/", "UV_INDEX_MINE_PASSWORD": "s3cret"}
    [left_out] = laptop.look(bare(UV_DEFAULT_INDEX="https://a.test/", **named)).left_out
    assert "no address" in left_out and "s3cret" not in left_out


def test_an_answer_that_is_not_http(index: Index) -> None:
    """A server that speaks something else is an index that this computer does not reach."""

    def greet(server: socket.socket) -> None:
        with server.accept()[0] as link:
            link.sendall(b"220 mail.test ready\r\n")
            while link.recv(4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=greet, args=(server,), daemon=True).start()
        with pytest.raises(ClosedHostError, match="not HTTP"):
            prepare(Needs(), of(index, proxy=f"http://127.0.0.1:{server.getsockname()[1]}"))


def test_a_file_with_a_damaged_certificate(tmp_path: Path, index: Index) -> None:
    """A certificate that can't be read is left out, and the others are used."""
    damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    file = tmp_path / "bundle.pem"
    file.write_text(damaged + index.ca.read_text())
    assert prepare(Needs(), replace(of(index), ca_bundle=laptop.read_bundles({"SSL_CERT_FILE": str(file)}))).names.all


@pytest.mark.parametrize(
    "address", ["socks5://proxy.test:1080", "https://proxy.test", "http://", "http://x:y:z", "http://[x"]
)
def test_a_web_proxy_of_another_kind(address: str) -> None:
    """Only proxies for HTTP can be passed; for another one the error says which variable to set."""
    with pytest.raises(TargetError) as error:
        find_proxy({"https": address})
    assert "HTTPS_PROXY" in error.value.hint


def test_the_variables_of_a_loan(index: Index) -> None:
    """The host's programs get the index with its credentials and the proxy, and nothing leads past it."""
    terms = prepare(Needs(), of(index))
    variables = environment_of(terms, "http://snap:x@127.0.0.1:9", "/ca.pem")
    assert variables["UV_DEFAULT_INDEX"] == variables["PIP_INDEX_URL"] == index.url
    assert variables["HTTPS_PROXY"] == variables["https_proxy"] == variables["ALL_PROXY"] == "http://snap:x@127.0.0.1:9"
    assert variables["NO_PROXY"] is None and variables["no_proxy"] is None and variables["PIP_FIND_LINKS"] is None
    assert {variables[name] for name in laptop.BUNDLES} == {"/ca.pem"}
