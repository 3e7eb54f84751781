"""`dls connect` through jump hosts, to an answer through the local port."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dls.demo import sshd
from tests.support.connecting import click_once, connected

NAMES = ("dls-demo", "inner", "outer")
"""Names of the target, of the jump host next to it, and of the jump host next to the laptop."""


@contextlib.contextmanager
def chain(folder: Path, jumps: int) -> Iterator[sshd.Server]:
    """Run an SSH server for the target and one for each jump host; yield the target, with a configuration for all."""
    with contextlib.ExitStack() as stack:
        servers = []
        for name in NAMES[: jumps + 1]:
            (folder / name).mkdir()
            servers.append(stack.enter_context(sshd.running(folder / name)))
        sections = [
            server.config.read_text().replace("Host dls-demo", f"Host {name}")
            for server, name in zip(servers, NAMES, strict=False)
        ]
        sections[0] += f"  ProxyJump {','.join(reversed(NAMES[1 : jumps + 1]))}\n"
        config = folder / "config"
        config.write_text("".join(sections))
        yield sshd.Server(servers[0].program, servers[0].port, config)


@pytest.mark.parametrize("jumps", [1, 2])
def test_connect_through_jump_hosts(clean: str, short_folder: Path, jumps: int) -> None:
    """A status request, an upload and a click get answers through the local port, with one login on each server."""
    with chain(short_folder, jumps) as server:
        with connected(server, clean)[0] as made:
            click_once(made.port)
        logs = [(short_folder / name / "sshd.log").read_text() for name in NAMES[: jumps + 1]]
        assert [log.count("Accepted publickey") for log in logs] == [1] * (jumps + 1)
