"""Which package indexes this computer uses, by what pip and uv are configured with: pure, from texts to addresses."""

from __future__ import annotations

import ast
import base64
import json
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

from dls.remote.loan.names import HTTPS, Name, is_address

JSON_PAGE = "application/vnd.pypi.simple.v1+json"
"""Media type of an index's page in JSON (PEP 691)."""
NAMED_INDEX = re.compile(r"([A-Za-z0-9._-]+)=(.+)")
"""An index of uv with a name before its address."""
PATH = "is a path of this computer"
"""Why an index is never lent: paths are this computer's own."""
SECTIONS = (":env:", "install", "download", "global")
"""Where a setting of pip may stand, the strongest first; the environment wins over every file."""


@dataclass(frozen=True)
class Indexes:
    """A default index, empty where none is configured, and further ones; addresses may carry credentials."""

    default: str = ""
    extra: tuple[str, ...] = ()

    def over(self, weaker: Indexes) -> Indexes:
        """Return these indexes, and those of a weaker configuration where it says more."""
        return Indexes(self.default or weaker.default, tuple(dict.fromkeys((*self.extra, *weaker.extra))))

    @property
    def all(self) -> tuple[str, ...]:
        """All the addresses."""
        return tuple(dict.fromkeys(([self.default] if self.default else []) + list(self.extra)))


def of_uv(environment: Mapping[str, str]) -> Indexes:
    """Return what uv's variables say."""
    extra = (environment.get("UV_INDEX", "") + " " + environment.get("UV_EXTRA_INDEX_URL", "")).split()
    default = environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL") or ""
    first, *rest = (_named(text, environment) for text in (default, *extra))
    return Indexes(first, tuple(rest))


def of_uv_file(settings: Mapping[str, Any], environment: Mapping[str, str]) -> Indexes:
    """Return what a file uv.toml says; its variables may hold the credentials of an index with a name."""
    default, extra = "", []
    rows = settings.get("index", [])
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict) or row.get("explicit"):
            continue
        url = with_credentials(str(row.get("url", "")), str(row.get("name", "")), environment)
        if row.get("default"):
            default = default or url
        else:
            extra.append(url)
    tables = (settings, settings.get("pip"))
    for table in (each for each in tables if isinstance(each, dict)):
        default = default or str(table.get("index-url", ""))
        extra += [str(url) for url in table.get("extra-index-url", [])]
    return Indexes(default, tuple(extra))


def _named(text: str, environment: Mapping[str, str]) -> str:
    found = NAMED_INDEX.fullmatch(text)
    return with_credentials(found[2], found[1], environment) if found else text


def with_credentials(url: str, name: str, environment: Mapping[str, str]) -> str:
    """Return the address of an index of uv with the credentials that variables hold for its name."""
    key = re.sub(r"[^A-Za-z0-9]", "_", name).upper()
    user, password = (environment.get(f"UV_INDEX_{key}_{part}", "") for part in ("USERNAME", "PASSWORD"))
    if not key or not (user or password) or fault_of(url):
        return url
    parts = urllib.parse.urlsplit(url)
    if "@" in parts.netloc:
        return url
    login = f"{urllib.parse.quote(user, safe='')}:{urllib.parse.quote(password, safe='')}"
    return parts._replace(netloc=f"{login}@{parts.netloc}").geturl()


def read_pip_settings(text: str) -> dict[str, str]:
    """Return pip's settings, without their sections, from what `pip config list` prints."""
    rows: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        try:
            rows[key] = str(ast.literal_eval(value)) if equals else ""
        except (ValueError, SyntaxError):
            continue
    settings: dict[str, str] = {}
    for section in reversed(SECTIONS):
        prefix = f"{section}."
        settings |= {key.removeprefix(prefix): value for key, value in rows.items() if key.startswith(prefix)}
    return settings


def of_pip(settings: Mapping[str, str]) -> Indexes:
    """Return what pip's settings say."""
    return Indexes(settings.get("index-url", ""), tuple(settings.get("extra-index-url", "").split()))


def fault_of(url: str) -> str:
    """Return why an index can't be lent, as the end of a sentence; empty for one that can."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "is no address"
    if parts.scheme != "https":
        return PATH if parts.scheme in ("", "file") else "is not reached by HTTPS"
    return "is named by its address, not by a name" if is_address(host) else ""


def without_credentials(url: str) -> str:
    """Return the address as it may be shown: nothing of one that can't be read."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return "…"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def basic_credentials(url: str) -> str:
    """Return the value of the Authorization field for an address with credentials; empty for one without."""
    parts = urllib.parse.urlsplit(url)
    if parts.username is None:
        return ""
    login = ":".join(urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
    return "Basic " + base64.b64encode(login.encode()).decode()


def name_of(url: str, *, is_own: bool) -> Name | None:
    """Return the name and the port of an address; None for one that can't be lent, or that of a public name's odd port.

    Only an own mirror may have another port than that of HTTPS.
    """
    if fault_of(url):
        return None
    parts = urllib.parse.urlsplit(url)
    port = parts.port or HTTPS
    return Name(str(parts.hostname).lower().rstrip("."), port, is_own) if is_own or port == HTTPS else None


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        link = dict(attrs).get("href") or ""
        if tag == "base":
            self.base = self.base or link
        elif tag == "a" and link:
            self.found.append(link)


def links_of(page: str, kind: str, url: str) -> list[str]:
    """Return the addresses of the files on an index's page: JSON (PEP 691) or HTML (PEP 503); none for another page."""
    try:
        if "json" in kind:
            found, base = [str(row["url"]) for row in json.loads(page)["files"]], url
        else:
            parser = _Links()
            parser.feed(page)
            found, base = parser.found, urllib.parse.urljoin(url, parser.base)
        return [urllib.parse.urljoin(base, link) for link in found]
    except (ValueError, KeyError, TypeError):
        return []


def names_of_links(links: Iterable[str], *, is_own: bool) -> list[Name]:
    """Return the names at which the files of a page are, each once."""
    found = (name_of(link, is_own=is_own) for link in links)
    return list(dict.fromkeys(name for name in found if name is not None))
