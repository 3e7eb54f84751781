"""What a look at the host says: all that it found the first time, and afterwards only what is new."""

from __future__ import annotations

from dataclasses import replace

from dls.gpus import Gpu
from dls.remote.host.look import describe_news, look
from dls.remote.host.options import ServerOptions
from dls.remote.host.probe import Depth, Python
from dls.remote.login import LoginOptions
from dls.remote.progress import Phases, Silent
from dls.remote.ssh.connection import Connection


class Told(Silent):
    """Remembers the results of phases."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def done(self, phase: str, text: str, seconds: float) -> None:
        self.texts.append(text)


def test_a_second_look_tells_only_what_is_new(connection: Connection, remote_dir: str) -> None:
    """The host is named with its system once; the second look adds what the first one had not looked for."""
    told, login, options = Told(), LoginOptions(remote_dir=remote_dir), ServerOptions("region")
    first = look(connection, login, options, Phases(told), Depth.SERVERS)
    report = look(connection, login, options, Phases(told), Depth.ALL, earlier=first)
    assert told.texts[0].startswith(f"{report.hostname}, {report.system} {report.machine}")
    assert told.texts[1].startswith("Looked further at dls-demo: ") and "Python 3." in told.texts[1]
    assert report.system not in told.texts[1].partition(": ")[2]
    before = replace(report, full=False, knows_gpus=False, gpus=())
    gpu = Gpu(0, "NVIDIA A100", 40960, 39000, "550.54", "8.0")
    pythons = tuple(Python(f"/opt/{minor}", (3, minor, 1), True, True) for minor in (13, 11, 11))
    found = replace(report, full=True, knows_gpus=True, gpus=(gpu,), pythons=pythons, servers=())
    assert describe_news(found, before) == f"{gpu}, Python 3.11 and Python 3.13"
    assert describe_news(replace(found, gpus=(), pythons=()), before) == "no NVIDIA GPU, no Python"
    assert describe_news(found, found) == "nothing new"
