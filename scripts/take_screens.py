"""Run dls in terminals of several kinds, and write what they show into docs/pictures/.

A user `ann` is made on this computer for the time of the run; OpenSSH's server lets her in as `ann@gpuhost`. Nothing is
drawn by hand: tmux holds the screen, and its cells become an SVG file.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import SimpleITK as sitk
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from dls.demo import sample
from tests.support.laptop import Laptop, laptop
from tests.support.processes import interruptible

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
SECONDS = 60
INDEX = re.compile(r"package index \(\S+\)")
"""Where the name of this computer's own index stands, which is nothing to readers."""


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
        self.wait_for(line[:20])  # so that whoever waits for the prompt next does not see the one before
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

    def wait_for_prompt(self) -> None:
        """Wait until the command has ended: the last line is the shell's alone again."""
        deadline = time.monotonic() + SECONDS
        while self._tmux("capture-pane", "-p").rstrip().splitlines()[-1:] != ["$"]:
            if time.monotonic() > deadline:
                raise SystemExit(f"It did not end:\n{self._tmux('capture-pane', '-p')}")
            time.sleep(0.1)

    def close_connection(self) -> None:
        """End `dls connect`."""
        self.press("C-c")
        self.wait_for("Closing the connection")
        self.wait_for_prompt()

    def save(self, name: str, title: str) -> None:
        """Write the screen as docs/pictures/NAME.svg, or with another terminal than tmux's as NAME.txt."""
        if self.term == "dumb":
            (PICTURES / f"{name}.txt").write_text(self._tmux("capture-pane", "-p").rstrip() + "\n", encoding="utf-8")
            return
        cells = self._tmux("capture-pane", "-e", "-p").rstrip().removesuffix("\n$")
        cells = INDEX.sub("package index", cells)
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
        take_connect(ann)
        write_log(ann)
        for name, width, height, lines in (
            ("help", 80, 48, ["dls --help"]),
            ("status", 100, 16, ["dls status ann@gpuhost"]),
            ("doctor", 110, 32, ["dls doctor ann@gpuhost"]),
        ):
            with Screen(width, height, ann) as screen:
                for line in lines:
                    screen.type(line)
                    screen.wait_for_prompt()
                screen.save(name, lines[-1])
        take_segment(ann)
        with Screen(100, 24, ann) as screen:
            screen.type("dls uninstall ann@gpuhost")
            screen.wait_for("for good?")
            screen.type("y")
            screen.wait_for_prompt()
            screen.save("uninstall", "dls uninstall")


def take_connect(ann: Laptop) -> None:
    """Take `dls connect` on a wide, a narrow and a dumb terminal, and `dls check` while it runs."""
    with Screen(100, 44, ann) as screen:
        screen.type("dls connect ann@gpuhost")
        screen.wait_for("Port: 8911")
        screen.wait_for("link up")
        with Screen(80, 20, ann) as other:
            other.type("dls check http://localhost:8911")
            other.wait_for_prompt()
            other.save("check", "dls check")
        screen.wait_for(", model ")
        screen.wait_for("round trip")
        screen.save("connect", "dls connect")
        screen.close_connection()
    with Screen(60, 60, ann) as screen:
        screen.type("dls connect ann@gpuhost")
        screen.wait_for("Port: 8911")
        screen.wait_for("link up")
        screen.wait_for("round trip")
        screen.save("connect-narrow", "60 columns")
        screen.close_connection()
    with Screen(80, 44, ann, term="dumb") as screen:
        screen.type("dls connect ann@gpuhost")
        screen.wait_for("Port: 8911")
        screen.save("connect-dumb", "TERM=dumb")
        screen.close_connection()


def write_log(ann: Laptop) -> None:
    """Write what a log file gets of a `dls connect` without a terminal."""
    path = PICTURES / "connect-log.txt"
    with path.open("w") as log:
        process = subprocess.Popen(
            [str(ann.home / "bin" / "dls"), "connect", "ann@gpuhost"], env=ann.environment, cwd=ann.home,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, preexec_fn=interruptible,
        )  # fmt: skip
        deadline = time.monotonic() + SECONDS
        while "Stop" not in path.read_text(encoding="utf-8") and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        if process.wait(SECONDS):
            raise SystemExit(path.read_text(encoding="utf-8"))
    print("docs/pictures/connect-log.txt", file=sys.stderr)


def take_segment(ann: Laptop) -> None:
    """Take `dls segment` with the demo's brain, and the picture that it makes."""
    sitk.WriteImage(sitk.GetImageFromArray(sample.load()), str(ann.home / "brain.nii.gz"))
    point = ",".join(map(str, reversed(sample.VENTRICLE)))
    with Screen(100, 12, ann) as screen:
        screen.type(f"dls segment brain.nii.gz --point {point} -o mask.nii.gz --png look.png")
        screen.wait_for_prompt()
        screen.save("segment", "dls segment")
    shutil.copy(ann.home / "look.png", PICTURES / "segment.png")


if __name__ == "__main__":
    main()
