"""Run dls in terminals of several kinds, and write what they show into docs/pictures/.

A user `ann` is made on this computer for the time of the run; OpenSSH's server lets her in as `ann@gpuhost`. Nothing is
drawn by hand: tmux holds the screen, and its cells become an SVG file.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from dls.demo import sshd
from tests.support.accounts import account

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
SECONDS = 60
ADDRESS = "127.0.0.22"
"""Where the host listens on SSH's own port, which no other server has on this loopback address."""


@dataclass(frozen=True)
class Screen:
    """A terminal with a shell in it."""

    width: int
    height: int
    home: Path
    term: str = "xterm-256color"
    server: str = field(default_factory=lambda: f"dls-screens-{time.monotonic_ns()}")
    """Name of the tmux server, one for each screen."""

    def __enter__(self) -> Screen:
        environment = {
            "HOME": str(self.home), "PS1": "$ ", "PATH": f"{self.home}/bin:{os.environ['PATH']}", "LANG": "C.UTF-8", "TERM": self.term,
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        words = ["env", "-i", *(f"{name}={value}" for name, value in environment.items()), "bash", "--norc", "--noprofile"]
        self._tmux("new-session", "-d", "-x", str(self.width), "-y", str(self.height), "-c", str(self.home), shlex.join(words))
        self.wait_for("$")
        return self

    def __exit__(self, *error: object) -> None:
        self._tmux("kill-server", check=False)

    def type(self, line: str) -> None:
        """Type a line, as a person does."""
        self._tmux("send-keys", "-l", line)
        self._tmux("send-keys", "Enter")

    def press(self, key: str) -> None:
        """Press a key by tmux's name of it."""
        self._tmux("send-keys", key)

    def wait_for(self, text: str) -> None:
        """Wait until the screen shows the text."""
        deadline = time.monotonic() + SECONDS
        while text not in self._tmux("capture-pane", "-p"):
            if time.monotonic() > deadline:
                raise SystemExit(f"{text!r} was not shown:\n{self._tmux('capture-pane', '-p')}")
            time.sleep(0.1)

    def save(self, name: str, title: str) -> None:
        """Write the screen as docs/pictures/NAME.svg, or with another terminal than tmux's as NAME.txt."""
        if self.term == "dumb":
            (PICTURES / f"{name}.txt").write_text(self._tmux("capture-pane", "-p").rstrip() + "\n", encoding="utf-8")
            return
        cells = self._tmux("capture-pane", "-e", "-p").rstrip()
        with Path(os.devnull).open("w") as nowhere:
            console = Console(width=self.width, record=True, file=nowhere, force_terminal=True, color_system="truecolor")
            console.print(Text.from_ansi(cells), soft_wrap=True)
        console.save_svg(str(PICTURES / f"{name}.svg"), title=title, theme=MONOKAI, unique_id=name)
        print(f"docs/pictures/{name}.svg", file=sys.stderr)

    def _tmux(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(["tmux", "-L", self.server, *words], check=check, capture_output=True, text=True)
        return done.stdout


@contextlib.contextmanager
def laptop() -> Iterator[Path]:
    """Yield the home of somebody who can log in as `ann@gpuhost`, and who has `dls`."""
    folder = Path(tempfile.mkdtemp(prefix="dls-screens-"))
    folder.chmod(0o755)
    home = folder / "home"
    (home / "bin").mkdir(parents=True)
    try:
        with account("ann", shell="/bin/bash"), sshd.running(folder, options=f"ListenAddress {ADDRESS}:22"):
            (folder / "authorized_keys").chmod(0o644)
            known = folder / "known_hosts"
            known.write_text(f"gpuhost {known.read_text().partition(' ')[2]}")
            (home / "ssh_config").write_text(
                f"Host gpuhost\n  HostName {ADDRESS}\n  HostKeyAlias gpuhost\n  IdentityFile {folder}/id_ed25519\n"
                f"  IdentitiesOnly yes\n  UserKnownHostsFile {known}\n"
            )
            write_program(home / "bin" / "dls", f"{shlex.quote(sys.executable)} -m dls")
            # ssh reads the configuration of the user that the system knows, wherever HOME is.
            write_program(home / "bin" / "ssh", f"{shutil.which('ssh')} -F {home}/ssh_config")
            yield home
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_program(path: Path, command: str) -> None:
    """Write a script that runs a command with the script's own arguments."""
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)


def main() -> None:
    """Take all pictures."""
    PICTURES.mkdir(exist_ok=True)
    with laptop() as home:
        with Screen(100, 44, home) as screen:
            screen.type("dls connect ann@gpuhost")
            screen.wait_for("Stop")
            screen.save("connect", "dls connect")
            screen.press("C-c")
            screen.wait_for("Closing the connection")
        with Screen(60, 60, home) as screen:
            screen.type("dls connect ann@gpuhost")
            screen.wait_for("Stop")
            screen.save("connect-narrow", "60 columns")
            screen.press("C-c")
            screen.wait_for("Closing the connection")
        with Screen(80, 44, home, term="dumb") as screen:
            screen.type("dls connect ann@gpuhost")
            screen.wait_for("Stop")
            screen.save("connect-dumb", "TERM=dumb")
            screen.press("C-c")
            screen.wait_for("Closing the connection")
        log(home)
        with Screen(100, 44, home) as screen:
            screen.type("dls doctor ann@gpuhost")
            screen.wait_for("$ ")
            screen.save("doctor", "dls doctor")


def log(home: Path) -> None:
    """Write what a log file gets of a `dls connect` without a terminal."""


if __name__ == "__main__":
    main()
