"""What the commands show of uploads: a line on a terminal, little without one, and events for programs."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from dls.cli.connect import connect
from dls.cli.connect_options import build_server_options
from dls.cli.console import Console, ConsoleReporter
from dls.cli.events import JsonReporter
from dls.cli.serve import build_serve_options, serve
from dls.remote.progress import UploadProgress

BEGUN = UploadProgress(1, 80_000_000)
SENDING = replace(BEGUN, state="sending", sent=12_000_000, seconds=4.8, rate=2.5e6)
DONE = replace(SENDING, state="done", sent=80_000_000, seconds=32.0)
QUICK = replace(DONE, seconds=0.4)
RESUMED = replace(SENDING, state="resumed", saved=12_000_000)
HELD = replace(DONE, saved=80_000_000, seconds=1.4)


def shown(*reports: UploadProgress, is_terminal: bool) -> str:
    stream = io.StringIO()
    reporter = ConsoleReporter(Console(file=stream, force_terminal=is_terminal, width=200, soft_wrap=True))
    for report in reports:
        reporter.upload(report)
    reporter.close()
    return stream.getvalue()


def test_a_terminal_shows_how_far_an_upload_is() -> None:
    """Bytes, rate and the time left while it takes more than a second, and its end."""
    text = shown(BEGUN, SENDING, DONE, is_terminal=True)
    assert "12 MB of 80 MB, 2.5 MB/s, 27 s left" in text
    assert "An image of 80 MB was sent in 32 s." in text
    assert shown(BEGUN, QUICK, is_terminal=True).strip("\x1b[?25hl") == ""


def test_without_a_terminal_only_what_took_long_is_told() -> None:
    """One line at the end of a long upload, and one for what was not sent or went on."""
    assert shown(BEGUN, SENDING, DONE, is_terminal=False) == "✓ An image of 80 MB was sent in 32 s.\n"
    assert shown(BEGUN, replace(DONE, seconds=5.0), is_terminal=False) == ""
    assert "Not sent: the host has this image" in shown(BEGUN, HELD, is_terminal=False)
    assert "goes on at 12 of 80 MB" in shown(BEGUN, RESUMED, is_terminal=False)


def test_the_events(capsys: pytest.CaptureFixture[str]) -> None:
    """Each report is one JSON line."""
    reporter = JsonReporter(ConsoleReporter(Console(file=io.StringIO())))
    reporter.upload(BEGUN)
    reporter.upload(SENDING)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == {
        "event": "upload", "number": 1, "state": "begun", "bytes": 80_000_000, "sent": 0, "saved": 0, "seconds": 0.0,
        "rate": 0, "left": None,
    }  # fmt: skip
    assert (lines[1]["sent"], lines[1]["rate"], lines[1]["left"]) == (12_000_000, 2_500_000, 27.2)


def test_the_quota_is_an_option_of_both_commands() -> None:
    """In GiB; without it the default is left to the server."""
    for arguments, expected in (([], 0), (["--session-disk", "1.5"], 1.5)):
        options = connect.make_context("connect", [*arguments, "host"]).params
        assert build_server_options(None, options).session_disk_gib == expected
        options = serve.make_context("serve", list(arguments)).params
        assert build_serve_options(options).session_disk == expected * (1 << 30)
