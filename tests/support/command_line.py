"""Run `dls` as a user does: in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping


def run_dls(
    *arguments: str, env: Mapping[str, str] | None = None, encoding: str = "utf-8"
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "dls", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
        env=env,
        encoding=encoding,
    )
