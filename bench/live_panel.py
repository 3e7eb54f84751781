"""What the lines below "Ready" cost: the CPU time of `dls connect` on a terminal, and of the same without one.

    python -m bench.live_panel [SECONDS]

Connects to an SSH server on loopback, twice for so many seconds, and prints the share of a core that each took.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from dls.demo import sshd


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(config: Path, remote_dir: str, seconds: float, *, on_terminal: bool) -> float:
    """Return the share of a core that a connection takes while nobody uses it."""
    ours, theirs = pty.openpty() if on_terminal else os.pipe()
    command = [sys.executable, "-m", "dls", "connect", "-F", str(config), "--remote-dir", remote_dir, "dls-demo"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    text = ""
    while "Ready on" not in text:
        text += os.read(ours, 65536).decode(errors="replace")
    threading.Thread(target=lambda: [None for _ in iter(lambda: _read(ours), b"")], daemon=True).start()
    time.sleep(3)  # what was begun before is over
    before, started = cpu_seconds(process.pid), time.monotonic()
    time.sleep(seconds)
    share = (cpu_seconds(process.pid) - before) / (time.monotonic() - started)
    process.send_signal(signal.SIGINT)
    process.wait()
    return share


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the terminal was closed
        return b""


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory(prefix="dls-b-") as folder, sshd.running(Path(folder)) as server:
        remote_dir = f"{folder}/host"
        for on_terminal in (False, True):
            share = measure(server.config, remote_dir, seconds, on_terminal=on_terminal)
            print(f"{'with' if on_terminal else 'without'} the lines: {100 * share:.2f} % of a core")
        stop = ["dls", "stop", "-F", str(server.config), "--remote-dir", remote_dir, "dls-demo"]
        subprocess.run([sys.executable, "-m", *stop], check=False, capture_output=True)


if __name__ == "__main__":
    main()
