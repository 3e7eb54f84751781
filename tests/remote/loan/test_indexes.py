"""What pip's and uv's configuration say about indexes: pure functions."""

from __future__ import annotations

import pytest

from dls.remote.loan import indexes
from dls.remote.loan.indexes import Indexes
from dls.remote.loan.names import Name

URL = "https://index.test/simple/"


def test_variables_of_uv() -> None:
    """UV_DEFAULT_INDEX wins over its older name; further indexes may have names, and credentials by them."""
    environment = {
        "UV_INDEX_URL": "https://old.test/",
        "UV_DEFAULT_INDEX": URL,
        "UV_INDEX": "lab-a=https://a.test/simple https://b.test/simple",
        "UV_EXTRA_INDEX_URL": "https://c.test/simple",
        "UV_INDEX_LAB_A_USERNAME": "ann",
        "UV_INDEX_LAB_A_PASSWORD": "p@ss",
    }
    assert indexes.of_uv(environment) == Indexes(
        URL, ("https://ann:p%40ss@a.test/simple", "https://b.test/simple", "https://c.test/simple")
    )
    assert indexes.of_uv({}) == Indexes()


def test_a_file_of_uv() -> None:
    """A file names the default index in one of three ways; an explicit index is for named packages only."""
    rows = [{"url": "https://a.test/"}, {"url": URL, "default": True}, {"url": "https://x.test/", "explicit": True}]
    assert indexes.of_uv_file({"index": rows}, {}) == Indexes(URL, ("https://a.test/",))
    assert indexes.of_uv_file({"index-url": URL}, {}) == Indexes(URL)
    assert indexes.of_uv_file({"pip": {"index-url": URL, "extra-index-url": ["https://a.test/"]}}, {}) == Indexes(
        URL, ("https://a.test/",)
    )


def test_settings_of_pip() -> None:
    """The environment wins over a command's section, and that over the global one; odd lines are passed over."""
    text = (
        "global.index-url='https://global.test/'\ninstall.index-url='https://install.test/'\nnonsense\n"
        "global.cert='/etc/ca.pem'\nglobal.extra-index-url='https://a.test/ https://b.test/'\nglobal.x=(\n"
    )
    settings = indexes.read_pip_settings(text)
    assert settings["cert"] == "/etc/ca.pem"
    assert indexes.of_pip(settings) == Indexes("https://install.test/", ("https://a.test/", "https://b.test/"))
    assert indexes.read_pip_settings(f"{text}:env:.index-url='{URL}'\n")["index-url"] == URL


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        (URL, ""), ("https://u:p@index.test:8443/x", ""), ("http://index.test/", "HTTPS"), ("file:///srv", "path"),
        ("/srv/wheels", "path"), ("https://10.0.0.1/", "by its address"), ("https://[::1/", "no address"),
        ("https://index.test:x/", "no address"),
    ],
)  # fmt: skip
def test_indexes_that_can_not_be_lent(url: str, fault: str) -> None:
    """Only HTTPS and only names are lent; paths are this computer's own."""
    assert fault in indexes.fault_of(url) and bool(fault) == bool(indexes.fault_of(url))


def test_credentials_in_an_address() -> None:
    """Credentials are not shown, and go into the field of their own where a page is read."""
    url = "https://ann:p%40ss@index.test/simple/"
    assert indexes.without_credentials(url) == URL
    assert indexes.basic_credentials(url) == "Basic YW5uOnBAc3M="
    assert indexes.basic_credentials(URL) == ""


def test_the_files_of_a_page() -> None:
    """Files are found in JSON and in HTML, relative to the page or to its base; another page has none."""
    page = '{"files": [{"url": "https://files.test/a.whl"}, {"url": "../../b.whl"}]}'
    assert indexes.links_of(page, indexes.JSON_PAGE, f"{URL}click/") == [
        "https://files.test/a.whl",
        "https://index.test/b.whl",
    ]
    html = '<base href="https://base.test/x/"><a href="a.whl#sha256=0">a</a><a>none</a><a href="https://f.test/b">b</a>'
    assert indexes.links_of(html, "text/html", URL) == ["https://base.test/x/a.whl#sha256=0", "https://f.test/b"]
    assert indexes.links_of("[1]", indexes.JSON_PAGE, URL) == []


def test_the_names_of_files() -> None:
    """Each name once; a public index's odd port, an address and plain HTTP are left out."""
    links = [
        f"{URL}a",
        "https://f.test/b",
        "https://F.test./c",
        "http://g.test/",
        "https://h.test:8080/",
        "https://1.2.3.4/",
    ]
    assert indexes.names_of_links(links, is_own=False) == [Name("index.test"), Name("f.test")]
    assert Name("h.test", 8080, is_own=True) in indexes.names_of_links(links, is_own=True)
