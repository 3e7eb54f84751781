"""What a person sees: the only user of rich."""

from __future__ import annotations

import contextlib
import getpass
import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.status import Status
from rich.table import Table
from rich.text import Text

from dls.contract import ERROR_PREFIX, HINT_PREFIX
from dls.errors import DlsError
from dls.remote.ssh.prompts import NewHostKey

if TYPE_CHECKING:
    from dls.remote.host.stored_sessions import StoredSession
    from dls.remote.session import Session


def stderr(force_color: bool = False) -> Console:
    """Return the console for progress and messages; standard output is for what was asked for."""
    return Console(stderr=True, highlight=False, soft_wrap=True, force_terminal=True if force_color else None)


def show_error(error: DlsError) -> None:
    """Print the sentence, the hint and what detail there is."""
    console = stderr()
    if error.detail:
        console.print(Text(error.detail.rstrip(), style="dim"))
    console.print(Text.assemble((ERROR_PREFIX, "bold red"), error.message))
    if error.hint:
        console.print(Text.assemble((HINT_PREFIX, "bold"), error.hint))


class ConsoleReporter:
    """Shows the phases: a spinner where there is a terminal, a line each where there is none."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._text = ""
        self._last = 0.0

    def begin(self, phase: str, text: str) -> None:
        """Show that a phase started."""
        self._text = text
        if self._console.is_terminal:
            self._stop()
            self._status = self._console.status(Text(f"{text} …"), spinner="dots")
            self._status.start()
        elif phase == "install":
            self._console.print(f"  {text} …", markup=False)

    def update(self, text: str) -> None:
        """Show what the phase does; without a terminal at most a line every two seconds."""
        if self._status is not None:
            width = max(20, self._console.width - len(self._text) - 8)
            self._status.update(Text.assemble(f"{self._text} … ", (text[:width], "dim")))
        elif time.monotonic() - self._last > 2:
            self._last = time.monotonic()
            self._console.print(f"    {text}", markup=False)

    def done(self, phase: str, text: str, seconds: float) -> None:
        """Show what the phase ended with."""
        self._stop()
        self._console.print(Text.assemble(("✓ ", "green"), text, (f"  {seconds:.2f} s", "dim")))

    def note(self, text: str) -> None:
        """Show something that matters now."""
        self._console.print(Text.assemble(("! ", "yellow"), text))

    def link(self, is_open: bool, text: str) -> None:
        """Show that the link was lost, or is back."""
        self._console.print(Text.assemble(("✓ ", "green") if is_open else ("! ", "yellow"), text))

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Take the spinner away while somebody is asked."""
        self._stop()
        yield

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._stop()


class TerminalPrompter:
    """Asks on the terminal."""

    def __init__(self, reporter: ConsoleReporter) -> None:
        self._reporter = reporter

    def accept_host_key(self, key: NewHostKey) -> bool:
        """Show the key as OpenSSH does and ask."""
        with self._reporter.paused():
            sys.stderr.write(
                f"The authenticity of host '{key.known_hosts_name} ({key.address})' can't be established.\n"
                f"{key.key_type} key fingerprint is {key.fingerprint}.\n"
            )
            while True:
                answer = self._line("Are you sure you want to continue connecting (yes/no)? ").lower()
                if answer in ("yes", "no"):
                    return answer == "yes"

    def secret(self, prompt: str) -> str:
        """Ask without showing what is typed."""
        with self._reporter.paused():
            return _hidden(prompt)

    def answer(self, prompt: str, echo: bool) -> str:
        """Ask a question of the host."""
        with self._reporter.paused():
            return self._line(prompt) if echo else _hidden(prompt)

    def _line(self, prompt: str) -> str:
        sys.stderr.write(prompt)
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise KeyboardInterrupt
        return line.strip()


def _hidden(prompt: str) -> str:
    try:
        return getpass.getpass(prompt, stream=sys.stderr)
    except EOFError:  # Ctrl-D
        raise KeyboardInterrupt from None


def write_event(event: str, **fields: Any) -> None:
    """Write one JSON object on a line of standard output."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


class JsonReporter:
    """Writes the phases as JSON lines to standard output, and shows them to people on standard error."""

    def __init__(self, inner: ConsoleReporter) -> None:
        self._inner = inner

    def begin(self, phase: str, text: str) -> None:
        """Pass it on."""
        self._inner.begin(phase, text)

    def update(self, text: str) -> None:
        """Pass it on."""
        self._inner.update(text)

    def done(self, phase: str, text: str, seconds: float) -> None:
        """Write the event and pass it on."""
        write_event("phase", phase=phase, text=text, seconds=round(seconds, 3))
        self._inner.done(phase, text, seconds)

    def note(self, text: str) -> None:
        """Write the event and pass it on."""
        write_event("note", text=text)
        self._inner.note(text)

    def link(self, is_open: bool, text: str) -> None:
        """Write the event and pass it on."""
        write_event("link", open=is_open, text=text)
        self._inner.link(is_open, text)

    def close(self) -> None:
        """Pass it on."""
        self._inner.close()


def ready_fields(session: Session) -> dict[str, Any]:
    """Return what a program wants to know of a session that is ready."""
    return {
        "server": session.server_field,
        "port": session.port,
        "url": session.url,
        "host": str(session.connection.target),
        "engine": session.state.engine,
        "device": session.state.device,
        "log": session.state.log,
        "pid": session.state.pid,
        "seconds": {name: round(seconds, 3) for name, seconds in session.seconds.items()},
    }


def show_session(console: Console, session: Session) -> None:
    """Print the panel with the address to type into ITK-SNAP."""
    target = session.connection.target
    address = Text.assemble(
        ("Server: ", "dim"),
        (session.server_field, "bold green"),
        ("     Port: ", "dim"),
        (str(session.port), "bold green"),
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    gpu = "; ".join(str(gpu) for gpu in session.report.gpus) or session.state.device
    facts.add_row("Engine", Text(f"{session.state.engine} on {session.state.device}"))
    if session.report.gpus:
        facts.add_row("GPU", Text(gpu))
    facts.add_row(
        "Log", Text(f"{target.label}:{session.state.log}, or: {session.login.command('logs', session.target)}")
    )
    facts.add_row(
        "Stop",
        Text(
            "Ctrl-C closes this connection; the server stays. "
            f"To end it too: {session.login.command('stop', session.target)}"
        ),
    )
    intro = Text("In ITK-SNAP, add a deep learning server with")
    console.print()
    console.print(
        Panel(
            Group(intro, Text(), address, Text(), facts),
            title=f"Ready on {target}",
            border_style="green",
            padding=(1, 2),
            expand=False,
        )
    )


def show_sessions(sessions: list[StoredSession], *, as_json: bool) -> None:
    """Print the sessions that are kept on a host to standard output: a table for people, or JSON lines."""
    if as_json:
        for session in sessions:
            fields = {"id": session.id, "model": session.model, "size": session.size}
            write_event("session", **fields, bytes=session.kib << 10, idle=session.idle)
        return
    if not sessions:
        sys.stdout.write("No sessions are kept there.\n")
        return
    rows = [
        (
            session.id[:8],
            session.model,
            " x ".join(map(str, session.size)) if session.size else "no image",
            f"{session.kib / 1024:.1f} MiB",
            _ago(session.idle),
        )
        for session in sessions
    ]
    show_table(Console(), ("session", "model", "image", "on disk", "last used"), rows)


def _ago(seconds: int) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def show_table(console: Console, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a small table."""
    table = Table(*header)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def show_banner(console: Console, gpu: str, engine: str, rows: list[tuple[str, int, bool]], notes: list[str]) -> None:
    """Print what `dls serve` serves and every address that can be used."""
    line = "*" * 78
    console.print(f"{' ITK-SNAP Deep Learning Segmentation Server (dls) ':*^78}", markup=False)
    console.print(f"    {gpu}", markup=False)
    console.print(f"    Engine: {engine}", markup=False)
    for note in notes:
        console.print(f"    {note}", markup=False)
    if rows:
        console.print("    Use one of the following settings in ITK-SNAP to connect to this server:", markup=False)
    for server, port, local in rows:
        console.print(f"        Server: {server:40s}  Port: {port}{'  †' if local else ''}", markup=False)
    if any(local for _, _, local in rows):
        console.print("        †: only works if ITK-SNAP is running on the same computer", markup=False)
    console.print(line, markup=False)
