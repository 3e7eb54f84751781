"""Run dls in terminals of several kinds, and write what they show into docs/pictures/.

A user `ann` is made on this computer for the time of the run; OpenSSH's server lets her in as `ann@gpuhost`. Nothing is
drawn by hand: tmux holds the screen, and its cells become an SVG file.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.support.laptop import Laptop, laptop

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
SECONDS = 60


@dataclass(frozen=True)
class Screen:
    """A terminal with a shell in it."""

    width: int
    height: int
    laptop: Laptop
    term: str = "xterm-256color"
    server: str = field(default_factory=lambda: f"dls-screens-{time.monotonic_ns()}")
    """Name of the tmux server, one for each screen."""

    def __enter__(self) -> Screen:
        environment = {**self.laptop.environment, "PS1": "$ ", "TERM": self.term}
        words = [
            "env",
            "-i",
            *(f"{name}={value}" for name, value in environment.items()),
            "bash",
            "--norc",
            "--noprofile",
        ]
        home = str(self.laptop.home)
        self._tmux("new-session", "-d", "-x", str(self.width), "-y", str(self.height), "-c", home, shlex.join(words))
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
            console = Console(
                width=self.width, record=True, file=nowhere, force_terminal=True, color_system="truecolor"
            )
            console.print(Text.from_ansi(cells), soft_wrap=True)
        console.save_svg(str(PICTURES / f"{name}.svg"), title=title, theme=MONOKAI, unique_id=name)
        print(f"docs/pictures/{name}.svg", file=sys.stderr)

    def _tmux(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(["tmux", "-L", self.server, *words], check=check, capture_output=True, text=True)
        return done.stdout


def main() -> None:
    """Take all pictures."""
    PICTURES.mkdir(exist_ok=True)
    with laptop() as ann:
        with Screen(100, 44, ann) as screen:
            screen.type("dls connect ann@gpuhost")
            screen.wait_for("Stop")
            screen.save("connect", "dls connect")
            screen.press("C-c")
            screen.wait_for("Closing the connection")
        with Screen(60, 60, ann) as screen:
            screen.type("dls connect ann@gpuhost")
            screen.wait_for("Stop")
            screen.save("connect-narrow", "60 columns")
            screen.press("C-c")
            screen.wait_for("Closing the connection")
        with Screen(80, 44, ann, term="dumb") as screen:
            screen.type("dls connect ann@gpuhost")
            screen.wait_for("Stop")
            screen.save("connect-dumb", "TERM=dumb")
            screen.press("C-c")
            screen.wait_for("Closing the connection")
        log(ann)
        with Screen(100, 44, ann) as screen:
            screen.type("dls doctor ann@gpuhost")
            screen.wait_for("$ ")
            screen.save("doctor", "dls doctor")


def log(ann: Laptop) -> None:
    """Write what a log file gets of a `dls connect` without a terminal."""


if __name__ == "__main__":
    main()
