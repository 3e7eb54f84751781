"""Tell whether this host reaches what an installation would use: the package index of its uv or pip, and the model hub.

It runs in the host's own Python, from 3.6 on (so annotations are texts), with the standard library and the host's pip
alone. It asks uv and pip for the index and the proxies: nothing here names an index. Arguments: WITH_PACKAGES (1 or
empty), UV (path, or empty), DEFAULT_INDEX (the built-in index of uv where neither uv nor pip here names it, or
empty), HUB (URL of the model hub, or empty). Each line of the output is a name, a tab, one of `open`, `closed` and
`unknown`, a tab, and the names of the hosts that were asked for; a line `installer` names pip where its index is open
and uv's is closed.
"""

import base64
import contextlib
import importlib
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

CONNECT_SECONDS = 2.5
"""Seconds in which a name must be found and a connection made; a packet that is dropped takes all of them."""
WHOLE_SECONDS = 4.5
"""Seconds after which nothing is waited for any more; what is not known by then is unknown."""
HELP_SECONDS = 1.5
"""Seconds that uv may take to print its help."""
MOST_ADDRESSES = 6
"""Addresses of a name that are tried, all at once: of two families, one may lead nowhere."""
OPEN, CLOSED, UNKNOWN = "open", "closed", "unknown"
PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}


def is_page(url: str) -> bool:
    """Return whether the URL is one of the web, and no file of the host's own."""
    return urlsplit(url).scheme in ("http", "https")


class Source:
    """Where one installer looks for packages."""

    def __init__(self, places: "list[str]", proxy: str = "") -> None:
        self.urls = [place for place in places if is_page(place)]
        self.has_files = len(self.urls) < len(places)
        """Whether it looks in files too, of which nobody knows what they lack."""
        self.proxy = proxy


def find_pip() -> None:
    """Let pip be imported: the one that is installed, or the one that venv would put into an environment."""
    try:
        import pip  # noqa: F401
    except ImportError:
        import ensurepip
        import sysconfig

        folders = [Path(ensurepip.__file__).parent / "_bundled"]
        folders.append(Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or "/usr/share/python-wheels"))
        wheels = [str(wheel) for folder in folders for wheel in folder.glob("pip-*.whl")]
        sys.path[:0] = wheels[:1]


def read_pip() -> "Source | None":
    """Return where pip looks, as its files and its environment have it; None without a pip that can tell."""
    try:
        find_pip()
        commands: Any = importlib.import_module("pip._internal.commands")
        # Before pip 19.3, there was a table instead of the function.
        is_old = not hasattr(commands, "create_command")
        command = commands.commands_dict["install"]() if is_old else commands.create_command("install")
        options = command.parse_args(["pip"])[0]
        indexes = [] if options.no_index else [options.index_url, *(options.extra_index_urls or [])]
        return Source([*indexes, *(options.find_links or [])], options.proxy or "")
    except (Exception, SystemExit):  # whatever this pip is, it tells nothing
        return None


def read_uv(uv: str, default: str) -> "Source":
    """Return where uv looks; its configuration files are left out, as by the installation."""
    get = os.environ.get
    index = get("UV_DEFAULT_INDEX") or get("UV_INDEX_URL")
    index = index or (built_in_of_uv(uv) if uv else "") or built_in_of_pip() or default
    words = [index, *get("UV_INDEX", "").split(), *get("UV_EXTRA_INDEX_URL", "").split()]
    words += get("UV_FIND_LINKS", "").replace(",", " ").split()
    # An index may have a name, as in `mine=https://…`.
    return Source([re.sub("^[A-Za-z0-9_-]+=", "", word) for word in words if word])


def built_in_of_uv(uv: str) -> str:
    """Return the index that uv's help names; empty where it names none."""
    command = [uv, "pip", "install", "--help"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        text = subprocess.check_output(
            command, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, timeout=HELP_SECONDS
        )
        found = re.search(r"by\s+default:\s+<?(https?://[^\s>)\]]+)", text.decode("utf-8", "replace"))
        return found.group(1) if found else ""
    return ""


def built_in_of_pip() -> str:
    """Return the index that pip uses where nothing else is configured, which is uv's too; empty without a pip."""
    with contextlib.suppress(Exception):
        find_pip()
        return str(importlib.import_module("pip._internal.models.index").PyPI.simple_url)
    return ""


class Trial:
    """One attempt to reach a URL as an installer would: by the proxy where there is one."""

    def __init__(self, url: str, proxy: str = "") -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or PORTS[parts.scheme]
        self.is_secure = parts.scheme == "https"
        self.proxy = self._choose_proxy(parts.scheme, proxy)
        self.verdict = CLOSED  # as long as nothing answers
        self.done = threading.Event()
        start(self._run)

    def _choose_proxy(self, scheme: str, proxy: str) -> "SplitResult | None":
        if not proxy:
            found = getproxies()
            proxy = found.get(scheme) or found.get("all") or ""
            if not proxy or proxy_bypass(self.host):
                return None
        return urlsplit(proxy if "://" in proxy else "http://" + proxy)

    def _run(self) -> None:
        try:
            host, port = self.host, self.port
            if self.proxy:
                host, port = self.proxy.hostname or "", self.proxy.port or PORTS.get(self.proxy.scheme, 80)
            link = connect(host, port)
            if link is not None:
                self.verdict = UNKNOWN  # as long as what follows is not over
                self.verdict = self._go_on(link)
        except Exception:  # an odd answer, or an odd proxy: what it means is the installer's business
            self.verdict = UNKNOWN
        self.done.set()

    def _go_on(self, link: socket.socket) -> str:
        link.settimeout(CONNECT_SECONDS)
        if self.proxy and not (self.is_secure and self.proxy.scheme == "http"):
            return UNKNOWN  # it is reached, and only a whole request would tell more
        if self.proxy and not self._tunnel(link, self.proxy):
            return CLOSED
        if self.is_secure:
            # Some firewalls take every connection, and cut it when they read the name that is wanted.
            context = ssl._create_unverified_context()  # noqa: S323 - nothing is sent or believed
            context.wrap_socket(link, server_hostname=self.host).close()
        return OPEN

    def _tunnel(self, link: socket.socket, proxy: SplitResult) -> bool:
        """Ask the proxy for a tunnel (RFC 9110, 9.3.6); False where it refuses."""
        lines = [f"CONNECT {self.host}:{self.port} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        if proxy.username:
            pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}")
        link.sendall("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head and len(head) < 65536:
            data = link.recv(4096)
            if not data:
                return False
            head += data
        return head.split(None, 2)[1].startswith(b"2")


def connect(host: str, port: int) -> "socket.socket | None":
    """Return a connection to the first address that answers; None where none does."""
    links: list[socket.socket] = []
    failed: list[int] = []
    changed = threading.Event()

    def attempt(number: int, family: int, address: "tuple[Any, ...]") -> None:
        link = socket.socket(family, socket.SOCK_STREAM)
        link.settimeout(CONNECT_SECONDS)
        try:
            link.connect(address)
            links.append(link)
        except OSError:
            link.close()
            failed.append(number)
        changed.set()

    try:
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    # The first addresses of each family.
    ranks = {entry: sum(other[0] == entry[0] for other in found[:at]) for at, entry in enumerate(found)}
    tried = sorted(found, key=lambda entry: ranks[entry])[:MOST_ADDRESSES]
    for number, entry in enumerate(tried):
        start(attempt, number, entry[0], entry[4])
    while not links and len(failed) < len(tried):
        changed.wait()
        changed.clear()
    return links[0] if links else None


def start(function: "Callable[..., None]", *arguments: Any) -> None:
    """Run the function in a thread that does not keep the process alive: a lookup of a name can't be ended."""
    thread = threading.Thread(target=function, args=arguments)
    thread.daemon = True
    thread.start()


def judge(verdicts: "list[str]", has_files: bool = False) -> str:
    """Return what several attempts mean: one that succeeds is enough, and none is no sign where files may do."""
    if OPEN in verdicts:
        return OPEN
    return UNKNOWN if has_files or UNKNOWN in verdicts or not verdicts else CLOSED


def main(with_packages: str, uv: str, default: str, hub: str) -> None:
    """Print a line for the packages, and one for the model hub, where they are asked for."""
    sources = [source for source in (read_uv(uv, default), read_pip()) if source] if with_packages else []
    keys = {(url, source.proxy) for source in sources for url in source.urls}
    trials = {key: Trial(*key) for key in (keys | {(hub, "")} if hub else keys)}
    deadline = time.monotonic() + CONNECT_SECONDS
    for trial in trials.values():
        trial.done.wait(max(0.0, deadline - time.monotonic()))
    if with_packages:
        found = [judge([trials[url, s.proxy].verdict for url in s.urls], s.has_files) for s in sources]
        report("packages", judge(found), " ".join(sorted({trials[key].host for key in keys})))
        if found == [CLOSED, OPEN]:
            report("installer", "pip", "")
    if hub:
        report("weights", trials[hub, ""].verdict, trials[hub, ""].host)


def report(name: str, verdict: str, asked: str) -> None:
    """Print one line."""
    sys.stdout.write(f"{name}\t{verdict}\t{asked}\n")
    sys.stdout.flush()


def run(arguments: "list[str]") -> None:
    """Run `main` for so long at most, and end the process, whatever still waits for an answer."""
    finished = threading.Event()

    def work() -> None:
        with contextlib.suppress(Exception):
            main(*arguments)
        finished.set()

    start(work)
    finished.wait(WHOLE_SECONDS)
    os._exit(0)


if __name__ == "__main__":
    run(sys.argv[1:])
