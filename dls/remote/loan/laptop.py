"""What this computer knows of the internet: its package indexes, its web proxy, the authorities that it trusts.

It is asked of pip and uv themselves, by their configuration and by what they have built in. Nothing is written.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dls.errors import ClosedHostError
from dls.remote.loan import indexes
from dls.remote.loan.indexes import Indexes
from dls.remote.loan.way_out import WayOut, WebProxy, find_proxy

ASK_SECONDS = 20.0
"""Seconds that pip or uv may take to answer."""
BUNDLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name a file with the certificates of authorities to trust."""
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
BUILT_IN = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
"""A program that prints the index that pip has built in."""


@dataclass(frozen=True)
class Laptop:
    """What this computer is configured with."""

    indexes: Indexes = field(repr=False)
    """The indexes to use; their addresses may carry credentials."""
    own: frozenset[str] = field(default=frozenset(), repr=False)
    """Those of them that the user configured."""
    proxy: WebProxy | None = None
    ca_bundle: str = field(default="", repr=False)
    """Certificates of authorities (PEM); empty where none are configured."""
    hub: str = ""
    """The user's own model hub (HF_ENDPOINT); empty for the public one."""
    left_out: tuple[str, ...] = ()
    """Sentences about indexes that can't be lent."""
    python_mirror: str = ""
    """Where uv gets builds of Python (UV_PYTHON_INSTALL_MIRROR); empty for where they are published."""

    @property
    def way_out(self) -> WayOut:
        """The way out of this computer's network."""
        return WayOut(self.proxy, ca_bundle=self.ca_bundle)


def look(environment: Mapping[str, str] | None = None) -> Laptop:
    """Return what this computer is configured with; raises ClosedHostError where no index is known, or can be lent."""
    environment = os.environ if environment is None else environment
    settings = _pip_settings(environment)
    configured = indexes.of_uv(environment).over(_of_uv_files(environment)).over(indexes.of_pip(settings))
    own = Indexes(configured.default, configured.extra)
    default = configured.default or _built_in(environment)
    if not default:
        raise ClosedHostError(
            "This computer does not know a package index: it has neither pip nor uv, and none is configured.",
            "Name it in the environment: UV_DEFAULT_INDEX=https://…/simple/",
        )
    if fault := indexes.fault_of(default):
        raise ClosedHostError(
            f"The package index of this computer, {indexes.without_credentials(default)}, can't be lent: it {fault}.",
            "Name another one in the environment: UV_DEFAULT_INDEX=https://…/simple/",
        )
    faults = {url: indexes.fault_of(url) for url in own.extra}
    proxies = urllib.request.getproxies() if environment is os.environ else _proxies(environment)
    return Laptop(
        Indexes(default, tuple(url for url in own.extra if not faults[url])),
        frozenset(own.all),
        find_proxy(proxies, settings.get("proxy", "")),
        read_bundles(environment, settings.get("cert", "")),
        environment.get("HF_ENDPOINT", "").rstrip("/"),
        tuple(
            f"The index {indexes.without_credentials(url)} is not lent: it {fault}."
            for url, fault in faults.items()
            if fault and fault != indexes.PATH
        ),
        environment.get("UV_PYTHON_INSTALL_MIRROR", ""),
    )  # fmt: skip


def _proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the proxies of another environment than this process's, named as `urllib.request.getproxies` does."""
    names = {name.lower(): value for name, value in environment.items() if value}
    names |= {name: value for name, value in environment.items() if value and name.islower()}
    return {name.removesuffix("_proxy"): value for name, value in names.items() if name.endswith("_proxy")}


def read_bundles(environment: Mapping[str, str], pip_cert: str = "") -> str:
    """Return the certificates in all the files that are configured, each once, and nothing else that stands in them."""
    files = dict.fromkeys([*(environment.get(name, "") for name in BUNDLES), pip_cert])
    found: dict[str, None] = {}
    for file in filter(None, files):
        try:
            text = Path(file).expanduser().read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        blocks = (block.replace("\r", "") for block in CERTIFICATE.findall(text))
        found |= dict.fromkeys(block for block in blocks if _is_certificate(block))
    return "".join(f"{certificate}\n" for certificate in found)


def _is_certificate(block: str) -> bool:
    """Return whether OpenSSL can read it: of all others, one that it can't read would be worth as much as none."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=block)
    except ssl.SSLError:
        return False
    return True


def _ask(command: list[str], environment: Mapping[str, str], text: str | None = None) -> str:
    """Return what a program prints; empty where it is not there or fails."""
    try:
        done = subprocess.run(
            command, input=text, stdin=subprocess.DEVNULL if text is None else None, capture_output=True, text=True,
            encoding="utf-8", errors="replace", timeout=ASK_SECONDS, check=False,
            env={**environment, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _pythons() -> list[str]:
    """Return the Pythons here that may have pip: ours first."""
    found = [sys.executable, shutil.which("python3"), shutil.which("python")]
    return list(dict.fromkeys(filter(None, found)))


def _pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    for python in _pythons():
        if settings := indexes.read_pip_settings(_ask([python, "-m", "pip", "config", "list"], environment)):
            return settings
    return {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in environment.items()
        if name.startswith("PIP_")
    }


def _of_uv_files(environment: Mapping[str, str]) -> Indexes:
    """Return what the files uv.toml of the user and of the system say; Python reads them from 3.11 on."""
    if environment.get("UV_NO_CONFIG"):
        return Indexes()
    found = Indexes()
    for path in _uv_files(environment):
        found = found.over(indexes.of_uv_file(_read_toml(path), environment))
    return found


def _uv_files(environment: Mapping[str, str]) -> list[Path]:
    if named := environment.get("UV_CONFIG_FILE"):
        return [Path(named)]
    if os.name == "nt":
        places = [environment.get("APPDATA"), environment.get("PROGRAMDATA")]
        return [Path(place, "uv", "uv.toml") for place in places if place]
    user = Path(environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME") or Path.home(), ".config"))
    return [user / "uv" / "uv.toml", Path("/etc/xdg/uv/uv.toml"), Path("/etc/uv/uv.toml")]


def _read_toml(path: Path) -> dict[str, Any]:
    from dls.remote.toml import tomllib  # here, because few computers have such a file

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _built_in(environment: Mapping[str, str]) -> str:
    """Return the index that pip has built in, else the one that uv has; empty where there is neither."""
    for python in _pythons():
        if url := _ask([python, "-c", BUILT_IN], environment).strip():
            return url
    uv = shutil.which("uv")
    # For a list without packages, uv asks nobody.
    command = [uv, "pip", "compile", "--quiet", "--emit-index-url", "-"] if uv else []
    found = re.search(r"^--index-url (\S+)$", _ask(command, environment, "\n") if uv else "", re.MULTILINE)
    return found[1] if found else ""
