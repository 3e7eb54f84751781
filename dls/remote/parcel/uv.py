"""The uv of this computer, with which parcels are made: found on the PATH, or as the package `uv`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dls.errors import ConnectError, HostError
from dls.extras import install_hint

LIMIT_SECONDS = 1800
"""Seconds that one call of uv may take: it may build a package."""
LAST_LINES = 15
"""Number of the last lines of uv that an error shows."""


class FetchError(ConnectError):
    """What a parcel needs can't be fetched: a package, uv, a Python or the weights."""


def find_uv() -> list[str]:
    """Return the command line of uv; raises HostError where this computer has none."""
    if program := shutil.which("uv"):
        return [program]
    if importlib.util.find_spec("uv"):
        return [sys.executable, "-m", "uv"]
    raise HostError(
        "`dls pack` needs uv, which this computer does not have.",
        install_hint("pack"),
    )


def run_uv(arguments: Sequence[str], *, ca_bundle: Path | None, environment: Mapping[str, str] = os.environ) -> str:
    """Run uv with its own configuration, proxy and index, and return what it printed; raises FetchError.

    The Python that runs us is good enough for what uv asks of one, so none is downloaded.
    """
    added = {"UV_PYTHON": sys.executable, "UV_NO_PROGRESS": "1", "UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    if ca_bundle is not None:
        added["SSL_CERT_FILE"] = str(ca_bundle.absolute())
    left_out = ("VIRTUAL_ENV", "CONDA_PREFIX", "UV_TORCH_BACKEND", "UV_OFFLINE")
    variables = {name: value for name, value in environment.items() if name not in left_out}
    try:
        done = subprocess.run(
            [*find_uv(), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            encoding="utf-8", env={**variables, **added}, timeout=LIMIT_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"uv can't be run here: {error}.", "Does `uv --version` work?") from None
    if done.returncode:
        raise FetchError(
            "uv could not do its part.",
            "Its last lines are above. Is there a network here? uv takes HTTPS_PROXY, UV_DEFAULT_INDEX and uv.toml.",
            "\n".join(done.stderr.splitlines()[-LAST_LINES:]),
        )
    return done.stdout
