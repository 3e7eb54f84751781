"""The lines below "Ready", which tell how the connection is while it is open, and notices of an outage."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from dls.cli import live_lines
from dls.cli.reporter import ConsoleReporter
from dls.cli.text import printable
from dls.remote.host.facts import ServerFacts
from dls.remote.progress import Reporter
from dls.remote.session import Session

TICK_SECONDS = 1.0
"""Seconds between two pictures."""
POLL_SECONDS = 5.0
"""Seconds between two questions to the server."""
NOTIFY_SECONDS = 10
"""Seconds that a program may take to show a notice."""


@contextlib.contextmanager
def shown(session: Session, console: Console, reporter: Reporter, *, notify: bool) -> Iterator[None]:
    """Tell how the session is while the context is open: on a terminal in lines that move, with `notify` in notices.

    With another reporter than the console's, and where nothing moves, there are notices only.
    """
    moving = reporter if isinstance(reporter, ConsoleReporter) and reporter.moves else None
    watch = _Watch(session, console, moving, notify=notify)
    if watch.is_needed:
        watch.start()
    try:
        yield
    finally:
        watch.stop()


class _Watch(threading.Thread):
    """Draws the lines, asks the server, and notifies."""

    def __init__(self, session: Session, console: Console, reporter: ConsoleReporter | None, *, notify: bool) -> None:
        super().__init__(name="dls-watch", daemon=True)
        self.is_needed = notify or reporter is not None
        self._session = session
        self._console = console
        self._reporter = reporter
        self._notices = live_lines.Notices() if notify else None
        self._stopped = threading.Event()
        self._asking: threading.Thread | None = None
        self._asked = float("-inf")
        self._round_trip: float | None = None
        self._facts = ServerFacts()

    def start(self) -> None:
        """Draw for the first time here: a thread that begins after `stop` would leave its picture on the screen."""
        if self._reporter is not None:
            self._reporter.rest(self._picture)
        super().start()

    def run(self) -> None:
        """Draw until stopped."""
        while not self._stopped.wait(TICK_SECONDS):
            if self._notices is not None:
                label = printable(self._session.connection.target.label)
                if notice := self._notices.look(self._session.observe(), label):
                    send_notice(notice, self._console)
            if self._reporter is not None:
                self._ask()
                self._reporter.redraw()

    def stop(self) -> None:
        """Take the lines away."""
        self._stopped.set()
        if self._reporter is not None:
            self._reporter.rest(None)

    def _ask(self) -> None:
        """Ask the server in a thread of its own: in an outage, an answer takes as long as the link likes."""
        is_asking = self._asking is not None and self._asking.is_alive()
        if not is_asking and time.monotonic() - self._asked >= POLL_SECONDS and self._session.is_up:
            self._asked = time.monotonic()
            self._asking = threading.Thread(target=self._learn, name="dls-facts", daemon=True)
            self._asking.start()

    def _learn(self) -> None:
        if (answer := self._session.ask_facts()) is not None:
            self._round_trip, self._facts = answer

    def _picture(self) -> Text:
        seen = self._session.observe()
        parts = live_lines.describe_link(seen, self._round_trip)
        if seen.state == "open":
            parts += live_lines.describe_server(self._facts, seen)
            if (job := self._session.job) is not None:
                parts.append(f"job {job.describe()}")
        lines = live_lines.fill([printable(part) for part in parts], self._console.width - 3)
        color = {"open": "green", "lost": "yellow", "asleep": "dim"}.get(seen.state, "red")
        text = Text("\n  ").join(Text(line, "dim") for line in lines)
        return Text.assemble(("● ", color), text)


def send_notice(text: str, console: Console) -> None:
    """Show a notice on the desktop where that can be done, and ring the terminal's bell; what fails is left out.

    The terminal is asked for the notice only where the desktop showed none: there would be two.
    """
    write = console.file.write if console.is_terminal and not console.is_dumb_terminal else None
    if write is not None:
        write("\x07")
        console.file.flush()
    # A console of Windows that obeys no sequences would show them as text.
    if not _show_on_desktop(text) and write is not None and not console.legacy_windows:
        write(f"\x1b]9;{text}\x07")  # OSC 9 of iTerm2, Windows Terminal, kitty and others
        console.file.flush()


def _show_on_desktop(text: str) -> bool:
    """Let this computer's desktop show a notice, and return whether it did."""
    command, quiet = notice_command(text), subprocess.DEVNULL
    if not command:
        return False
    try:
        shown = subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, timeout=NOTIFY_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return shown.returncode == 0


def notice_command(text: str) -> list[str]:
    """Return the command that shows a notice on this computer's desktop; empty where there is none."""
    if sys.platform == "darwin":
        program = "on run argv\ndisplay notification (item 1 of argv)\nend run"
        return ["osascript", "-e", program, text]
    notifier = shutil.which("notify-send")
    return [notifier, "--app-name=dls", "--", text] if notifier else []
