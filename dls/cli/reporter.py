"""Shows what happens, as it happens: on a terminal in a line that moves, else in a line now and then."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from dls.cli import bars
from dls.cli.text import printable
from dls.remote.progress import Transfer, UploadProgress

UPLOAD_SECONDS = 1.0
"""Seconds from which an upload is shown on a terminal."""
LONG_UPLOAD_SECONDS = 10.0
"""Seconds from which the end of an upload is shown without a terminal."""
FRAMES = 8
"""Pictures a second of what moves."""


class MovingLine:
    """What is under way, as a line that fits the terminal: a spinner, the text, and a bar or the time it has taken."""

    def __init__(self, text: str, spinner: str) -> None:
        self.text = text
        self.detail = ""
        self.transfer: Transfer | None = None
        self._spinner = Spinner(spinner, style="green")
        self._begun = time.monotonic()

    def render(self, width: int) -> Text:
        """Return the line without its spinner."""
        if self.transfer is not None:
            text, done, rest, figures = bars.lay_out(f"{self.text} …", self.transfer, width)
            bar = [(done, "green"), (rest, "dim")] if done or rest else []
            return Text(" ").join(part for part in (Text(text), Text.assemble(*bar), Text(figures, "dim")) if part)
        elapsed = bars.describe_elapsed(time.monotonic() - self._begun)
        room = width - len(self.text) - len(elapsed) - 6
        detail = bars.shorten(self.detail, room)
        parts = (Text(bars.shorten(f"{self.text} …", width)), Text(detail, "dim"), Text(elapsed, "dim"))
        return Text(" ").join(part for part in parts if part)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the line as rich draws it."""
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, overflow="crop")
        grid.add_row(self._spinner, self.render(options.max_width - 3))
        yield grid


class ConsoleReporter:
    """Shows phases, messages, the link and uploads on a console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.moves = console.is_terminal and not console.is_dumb_terminal
        """Whether anything may move: a dumb terminal shows every picture below the one before."""
        self._has_unicode = (console.encoding or "").lower().startswith("utf")
        self._live: Live | None = None
        self._line: MovingLine | None = None
        self._is_held = False
        self._resting: Callable[[], RenderableType] | None = None
        self._text = ""
        self._pace, self._transfer_pace = bars.Pace(), bars.Pace()
        self._lock = threading.RLock()
        """Held while the picture changes: several uploads may be under way, each in its thread."""

    def begin(self, phase: str, text: str) -> None:
        """Show that a phase has started; where nothing moves only for the installation, which takes long."""
        with self._lock:
            self._text, self._pace, self._transfer_pace = printable(text), bars.Pace(), bars.Pace()
            if self.moves:
                self._show_line(self._text)
            elif phase == "install":
                self._console.print(f"  {self._text} …", markup=False)

    def update(self, text: str) -> None:
        """Show what the phase is doing; where nothing moves now and then."""
        text = printable(text)
        with self._lock:
            if self._line is not None:
                self._line.detail, moved = text, self._line.transfer
                if moved is not None and (moved.total is None or moved.done >= moved.total):
                    self._line.transfer = None
            elif not self.moves and self._pace.is_due(time.monotonic()):
                self._console.print(f"    {text}", markup=False)

    def transfer(self, transfer: Transfer) -> None:
        """Show how far the phase's transfer is, in a bar; where nothing moves now and then."""
        with self._lock:
            if self._line is not None:
                self._line.transfer = transfer
            elif not self.moves and self._transfer_pace.is_due(time.monotonic(), transfer):
                self._console.print(f"    {printable(describe(transfer))}", markup=False)

    def done(self, phase: str, text: str, seconds: float) -> None:
        """Show the result of a phase and its seconds."""
        self._end_line()
        self._console.print(Text.assemble(("✓ ", "green"), printable(text), (f"  {seconds:.2f} s", "dim")))

    def note(self, text: str) -> None:
        """Show a message that belongs to no phase."""
        self._console.print(Text.assemble(("! ", "yellow"), printable(text)))

    def link(self, is_open: bool, text: str) -> None:
        """Show that the link was lost or is open again."""
        self._is_held = False
        self._console.print(Text.assemble(("✓ ", "green") if is_open else ("! ", "yellow"), printable(text)))

    def upload(self, progress: UploadProgress) -> None:
        """Show how far the upload of an image is: on a terminal in a bar, and its end where it took long.

        Where nothing moves there is a line for the end of an upload that took really long, and for what was not sent.
        """
        with self._lock:
            if progress.is_over or progress.state == "resumed":
                self._end_line()
                long = UPLOAD_SECONDS if self._console.is_terminal else LONG_UPLOAD_SECONDS
                if progress.saved or progress.seconds >= long:
                    mark = ("! ", "yellow") if progress.state == "failed" else ("✓ ", "green")
                    self._console.print(Text.assemble(mark, progress.describe()))
            elif self.moves and progress.seconds >= UPLOAD_SECONDS:
                line = self._line or self._show_line("Sending an image")
                line.transfer = Transfer("image", progress.sent, progress.total, progress.rate)

    def rest(self, picture: Callable[[], RenderableType] | None) -> None:
        """Show a picture below everything while nothing else moves, from now on; None ends that.

        It is drawn anew at each `redraw`, and not in between.
        """
        with self._lock:
            self._resting, self._is_held = picture if self.moves else None, False
            if self._line is None:
                self._stop()
                self.redraw()

    def redraw(self) -> None:
        """Draw the picture that is shown while nothing else moves."""
        with self._lock:
            if self._resting is None or self._line is not None or self._is_held:
                return
            if self._live is None:
                self._start(self._resting(), 0)
                return
            self._live.update(self._resting(), refresh=True)

    def close(self) -> None:
        """Take away what moves, before a question or at the end of the command.

        Nothing is drawn again before the next phase or the next change of the link: a question may be open.
        """
        with self._lock:
            self._is_held = True
            self._line = None
            self._stop()

    def _show_line(self, text: str) -> MovingLine:
        self._stop()
        self._line = line = MovingLine(text, "dots" if self._has_unicode else "line")
        self._start(line, FRAMES)
        return line

    def _start(self, picture: RenderableType, frames: int) -> None:
        """Show a picture that is drawn so many times a second; with 0 only when it is redrawn."""
        self._live = Live(
            picture,
            console=self._console,
            auto_refresh=frames > 0,
            refresh_per_second=frames or 1,
            transient=True,
            # Events and results on a standard output that is a file or a pipe must go there, and not above the line.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._live.start(refresh=True)

    def _end_line(self) -> None:
        with self._lock:
            self._line, self._is_held = None, False
            self._stop()
            self.redraw()

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()


QUIET_PHASES = ("resolve", "login", "probe", "look")
"""Phases on the way to a host, whose results are no news for a command that only does one thing there."""


class QuietReporter(ConsoleReporter):
    """Shows no results of the phases on the way to a host; on a terminal they are shown while they last."""

    def done(self, phase: str, text: str, seconds: float) -> None:
        """Show the result of a phase, unless it is one on the way."""
        if phase in QUIET_PHASES and "host key" not in text:  # a key that is known from now on is news
            self._end_line()
        else:
            super().done(phase, text, seconds)


def describe(transfer: Transfer) -> str:
    """Return a transfer as a line of a log."""
    return f"{transfer.what}: {bars.describe_bytes(transfer)}" if not transfer.done else transfer.describe()
