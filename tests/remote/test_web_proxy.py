"""A web proxy that would catch what viewers send to the local port."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dls.demo import sshd
from dls.remote.web_proxy import catching_variable
from tests.support.connecting import connected

PROXY = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("environment", "variable"),
    [
        ({}, ""),
        ({"http_proxy": ""}, ""),
        ({"http_proxy": PROXY}, "http_proxy"),
        ({"ALL_PROXY": PROXY}, "ALL_PROXY"),
        ({"https_proxy": PROXY}, ""),
        ({"http_proxy": PROXY, "no_proxy": "example.org"}, "http_proxy"),
        ({"http_proxy": PROXY, "no_proxy": "localhost"}, ""),
        ({"http_proxy": PROXY, "no_proxy": "127.0.0.1"}, "http_proxy"),
        ({"http_proxy": PROXY, "no_proxy": "localhost, 127.0.0.1"}, ""),
        ({"http_proxy": PROXY, "NO_PROXY": "*"}, ""),
    ],
)
def test_the_variable_that_would_catch_requests(environment: dict[str, str], variable: str) -> None:
    """What people are told to type has to be excepted."""
    assert catching_variable(environment) == variable


@pytest.mark.parametrize("excepted", ["", "localhost"])
def test_libcurl_agrees(excepted: str) -> None:
    """ITK-SNAP's library asks the proxy for localhost exactly where the warning says so."""
    environment = {**os.environ, "http_proxy": PROXY, "no_proxy": excepted, "NO_PROXY": excepted}
    program = (
        "import pycurl, socket\n"
        "listener = socket.create_server(('127.0.0.1', 0)); request = pycurl.Curl()\n"
        "request.setopt(pycurl.URL, f'http://localhost:{listener.getsockname()[1]}/status')\n"
        "request.setopt(pycurl.TIMEOUT_MS, 300)\n"
        "try: request.perform()\n"
        "except pycurl.error as error: print(error.args[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    refused_by_proxy, no_answer = "7", "28"
    assert done.stdout.strip() == (no_answer if excepted else refused_by_proxy)
    assert bool(catching_variable(environment)) == (not excepted)


def test_connect_says_so(clean: str, host: sshd.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The note names the variable and what to do."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", PROXY)
    session, reporter = connected(host, clean)
    session.close()
    assert any("http_proxy is set" in note and "no_proxy=localhost" in note for note in reporter.notes)
