"""The terms of a loan: which names are lent, and what the host's programs are told; known before anybody is asked."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass, field

from dls.errors import ClosedHostError
from dls.remote.certificates import default_context
from dls.remote.loan import indexes, laptop
from dls.remote.loan.indexes import Indexes
from dls.remote.loan.laptop import Laptop
from dls.remote.loan.names import HUB, PYTHONS, TORCH, Name, Names
from dls.remote.loan.way_out import WayOut

PAGE_SECONDS = 15.0
"""Seconds that an index may take to answer."""
PAGE_LIMIT = 32 << 20
"""Bytes that the page of one package may have."""
ANY_PACKAGE = "click"
"""A package that every index has: its page says where files are."""
TORCH_INDEX = "https://download.pytorch.org/whl/"
TORCH_PACKAGES = ("torch", "nvidia-cublas")
"""Packages of torch's index, whose files may be elsewhere."""


@dataclass(frozen=True)
class Needs:
    """What an installation fetches."""

    packages: bool = True
    torch: bool = False
    weights: bool = False
    python: bool = False
    """Whether uv has to fetch a Python, which comes from where its builds are published."""


@dataclass(frozen=True)
class Terms:
    """What is lent, and how the host's programs are to use it."""

    names: Names
    laptop: Laptop
    needs: Needs = Needs()
    way_out: WayOut = field(default_factory=WayOut)

    @property
    def indexes(self) -> Indexes:
        """The indexes that the host's programs are told; none where they install nothing."""
        return self.laptop.indexes if self.needs.packages else Indexes()

    @property
    def logins(self) -> list[str]:
        """The names for which the host's programs are told a user or a password."""
        urls = (*self.indexes.all, self.laptop.hub, self.laptop.python_mirror)
        found = ((indexes.name_of(url, is_own=True), url) for url in urls)
        return [str(name) for name, url in found if name and indexes.basic_credentials(url)]

    def describe(self) -> str:
        """Return the names that the host could reach, as a text for the user."""
        return self.names.describe()


def prepare(needs: Needs, known: Laptop | None = None) -> Terms:
    """Return the terms: reads this computer's configuration, and a page of each index to learn where its files are.

    Raises ClosedHostError where no index is known here, or this computer does not reach it either.
    """
    known = known or laptop.look()
    reader = PageReader(known)
    names: list[Name] = []
    for url in known.indexes.all if needs.packages else ():
        names += _of_index(reader, url, is_own=url in known.own, is_default=url == known.indexes.default)
    if needs.torch:
        names += [*TORCH, *_of_torch(reader)]
    if needs.weights:
        own_hub = indexes.name_of(known.hub, is_own=True) if known.hub else None
        names += [own_hub] if own_hub else HUB
    if needs.python:
        own_mirror = indexes.name_of(known.python_mirror, is_own=True) if known.python_mirror else None
        names += [own_mirror] if own_mirror else PYTHONS
    return Terms(Names.of(names), known, needs, known.way_out)


def _of_index(reader: PageReader, url: str, *, is_own: bool, is_default: bool) -> list[Name]:
    """Return an index's name and those of its files."""
    name = indexes.name_of(url, is_own=is_own)
    try:
        links = reader.links(f"{url.rstrip('/')}/{ANY_PACKAGE}/")
    except urllib.error.HTTPError as error:
        # A further index need not have that package; it says so, and then it is there.
        if is_default:
            raise _no_answer(url, f"it answers {error.code}") from error
        links = []
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise _no_answer(url, str(getattr(reason, "strerror", None) or reason).rstrip(".")) from error
    return [*([name] if name else []), *indexes.names_of_links(links, is_own=is_own)]


def _no_answer(url: str, reason: str) -> ClosedHostError:
    return ClosedHostError(
        f"This computer does not reach the package index {indexes.without_credentials(url)} either: {reason}.",
        "Check this computer's network (HTTPS_PROXY for a proxy, SSL_CERT_FILE for its certificates), or bring a file "
        "that was made elsewhere: dls pack, dls connect --from FILE.",
    )


def _of_torch(reader: PageReader) -> list[Name]:
    """Return the names of the files of torch's index, where it answers: some of its packages are kept elsewhere."""
    found: list[Name] = []
    for package in TORCH_PACKAGES:
        try:
            links = reader.links(f"{TORCH_INDEX}{package}/")
        except OSError:
            continue
        found += indexes.names_of_links(links, is_own=False)
    return found


class PageReader:
    """Reads pages of indexes as this computer's own programs would: through its proxy, with its certificates."""

    def __init__(self, known: Laptop) -> None:
        context = default_context()
        if known.ca_bundle:
            context.load_verify_locations(cadata=known.ca_bundle)  # each of them was tried before
        handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
        if known.proxy is not None:
            handlers.append(urllib.request.ProxyHandler({"https": known.proxy.address}))
        self._opener = urllib.request.build_opener(*handlers)

    def links(self, url: str) -> list[str]:
        """Return the addresses of the files on a page; raises OSError."""
        bare = indexes.without_credentials(url)
        request = urllib.request.Request(  # noqa: S310 - HTTPS only, by `fault_of`
            bare, headers={"Accept": f"{indexes.JSON_PAGE}, text/html;q=0.5", "User-Agent": "dls"}
        )
        if credentials := indexes.basic_credentials(url):
            request.add_unredirected_header("Authorization", credentials)
        try:
            with self._opener.open(request, timeout=PAGE_SECONDS) as answer:
                page = answer.read(PAGE_LIMIT).decode(errors="replace")
                return indexes.links_of(page, answer.headers.get_content_type(), answer.url)
        except http.client.HTTPException as error:  # urllib leaves them as they are
            raise OSError(f"its answer is not HTTP ({type(error).__name__})") from error


def environment_of(terms: Terms, proxy_url: str, ca_file: str = "") -> dict[str, str | None]:
    """Return the variables with which the host's programs use a loan; None for one that has to be unset.

    What the host itself is configured with would lead past the loan, or to an index that it does not reach.
    """
    known = terms.laptop
    variables: dict[str, str | None] = dict.fromkeys(
        ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), proxy_url
    )
    variables |= dict.fromkeys(UNSET)
    extra = " ".join(terms.indexes.extra) or None
    variables |= {
        "UV_DEFAULT_INDEX": terms.indexes.default or None,
        "UV_INDEX": extra,
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": terms.indexes.default or None,
        "PIP_EXTRA_INDEX_URL": extra,
        "UV_PYTHON_INSTALL_MIRROR": known.python_mirror or None,
        "HF_ENDPOINT": known.hub or None,
        # Of a slow link each of many downloads gets little, and none is to be given up for that.
        "UV_HTTP_TIMEOUT": "300",
        "PIP_DEFAULT_TIMEOUT": "300",
        "HF_HUB_DOWNLOAD_TIMEOUT": "300",
        # Its own client for large files knows no certificates of the user's.
        "HF_HUB_DISABLE_XET": "1",
    }
    if ca_file:
        # pip prefers the variables of requests to its own.
        variables |= dict.fromkeys((*laptop.BUNDLES,), ca_file)
    return variables


UNSET = (
    "NO_PROXY", "no_proxy", "PIP_PROXY", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_TRUSTED_HOST", "PIP_CLIENT_CERT",
    "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX", "UV_OFFLINE", "UV_INSECURE_HOST",
    "UV_CONFIG_FILE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE",
)  # fmt: skip
"""Variables of the host that would lead past the loan."""
