"""What long work shows: bars on a terminal, lines now and then in a log, and where its figures come from."""

from __future__ import annotations

import io

import pytest

from dls.cli import bars
from dls.cli.console import Console, ConsoleReporter, stderr
from dls.remote.host.install_output import InstallOutput
from dls.remote.host.status import DownloadWatch
from dls.remote.progress import Phase, Silent, Transfer

HALF = Transfer("packages", 1_600_000_000, 3_200_000_000, 12e6)


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (100, ("Setting up gpu1 …", 30, "1.6 GB of 3.2 GB, 12.0 MB/s, 2 min left")),
        (72, ("Setting up gpu1 …", 13, "1.6 GB of 3.2 GB, 12.0 MB/s, 2 min left")),
        (50, ("Setting …", 0, "1.6 GB of 3.2 GB, 12.0 MB/s, 2 min left")),
        (30, ("", 0, "1.6 GB of 3.2 GB, 2 min left")),
        (20, ("", 0, "1.6 GB of 3.2 GB")),
    ],
)
def test_a_bar_fits_the_terminal(width: int, shown: tuple[str, int, str]) -> None:
    """A narrow one loses the text, the bar and the rate, in this order; the line is never wider than the terminal."""
    text, done, rest, figures = bars.lay_out("Setting up gpu1 …", HALF, width)
    assert (text, len(done + rest), figures) == shown
    assert len(" ".join(part for part in (text, done + rest, figures) if part)) <= width
    assert abs(len(done) - len(rest)) <= 1


def test_what_is_to_come_is_said_before_it_comes() -> None:
    """The size where it is known, and what has come where it is not."""
    assert bars.lay_out("x", Transfer("packages", 0, 3_200_000_000), 80)[3] == "3.2 GB to come"
    assert bars.lay_out("x", Transfer("packages", 45_000_000), 80)[1:] == ("", "", "45 MB")
    assert bars.draw_bar(5, 0, 10)[0] == bars.BAR * 10 and bars.draw_bar(0, 9, 10)[1] == bars.REST * 10


def test_a_log_gets_a_line_now_and_then() -> None:
    """At most one every ten seconds, and of a transfer only one for each tenth of it or for a minute without one."""
    pace, transfer = bars.Pace(), Transfer("packages", 0, 1000)
    assert [now for now in range(60) if pace.is_due(now)] == [0, 10, 20, 30, 40, 50]
    fast, slow = bars.Pace(), bars.Pace()
    moving = [now for now in range(100) if fast.is_due(now, Transfer("packages", 20 * now, 1000))]
    still = [now for now in range(100) if slow.is_due(now, transfer)]
    assert moving == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90] and still == [0, 60]


def test_a_dumb_terminal_is_as_wide_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A panel of 80 columns would be broken in a narrow one, and in a wide one lines are folded where they need not."""
    monkeypatch.setenv("TERM", "dumb")
    for columns in ("52", "140"):
        monkeypatch.setenv("COLUMNS", columns)
        console = stderr(force_color=True)
        assert console.is_dumb_terminal and console.width == int(columns)


def shown(width: int, **console: object) -> str:
    stream = io.StringIO()
    reporter = ConsoleReporter(Console(file=stream, width=width, soft_wrap=True, **console))  # type: ignore[arg-type]
    reporter.begin("install", "Setting up gpu1")
    reporter.update("making an environment")
    for done in (0, 1, 2, 3):
        reporter.transfer(Transfer("packages", done * 800_000_000, 3_200_000_000, 12e6 if done else 0))
    reporter.done("install", "Installed", 200.0)
    reporter.close()
    return stream.getvalue()


def test_nothing_moves_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file and a dumb terminal get the same few lines, and no control sequence."""
    lines = [
        "  Setting up gpu1 …",
        "    making an environment",
        "    packages: 3.2 GB to come",
        "✓ Installed  200.00 s",
    ]
    assert shown(80, force_terminal=False).splitlines() == lines
    monkeypatch.setenv("TERM", "dumb")
    assert shown(80, force_terminal=True).splitlines() == lines


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """It moves in one line, which is gone when the phase is done."""
    monkeypatch.setenv("TERM", "xterm")
    text = shown(100, force_terminal=True)
    assert "\x1b[?25l" in text and text.rstrip().endswith("200.00 s\x1b[0m")


UV = """Resolved 47 packages in 1.2s
Downloading numpy (16.0MiB)
Downloading torch (821.0MiB)
Downloading tiny (512.0KiB)
 Downloaded numpy
 Downloaded torch
Prepared 47 packages in 4.01s"""
PIP = """Collecting numpy>=1.26
  Downloading numpy-2.1.0-cp312-cp312-linux_x86_64.whl.metadata (62 kB)
Collecting torch
Downloading numpy-2.1.0-cp312-cp312-linux_x86_64.whl (16.3 MB)
Downloading torch-2.10.0-cp312-cp312-linux_x86_64.whl (821.0 MB)
Installing collected packages: numpy, torch"""


def test_the_figures_of_an_installation() -> None:
    """uv names what it fetches before it has it, so there is a total; pip names one at a time, so there is none."""
    output = InstallOutput(0.0)
    found = [output.read(line, 10.0) for line in UV.splitlines()]
    sizes = [(each.done >> 20, each.total and each.total >> 20) for each in found if each]
    assert sizes == [(0, 16), (0, 837), (0, 837), (16, 837), (837, 837)]
    assert found[4] is not None and found[4].rate == pytest.approx(16 * 1024**2 / 10)
    assert found[0] is None and found[-1] is None
    output = InstallOutput(0.0)
    piped = [each for line in PIP.splitlines() if (each := output.read(line, 10.0))]
    assert [(each.done // 1000, each.total) for each in piped] == [(0, None), (62, None), (16_362, None)]


def test_the_download_of_a_server_is_a_transfer() -> None:
    """What its status says of a download becomes one; a step of another kind, or an odd status, does not."""
    seen: list[Transfer] = []

    class Watching(Silent):
        def transfer(self, transfer: Transfer) -> None:
            seen.append(transfer)

    watch = DownloadWatch(Phase(Watching()))
    for status in ({}, {"step": "load", "done": 1, "total": 2}, {"step": "download", "done": "1", "total": 2}):
        watch.show(status)
    assert not seen
    watch.show({"step": "download", "done": 100, "total": 400})
    assert seen == [Transfer("weights", 100, 400)]
