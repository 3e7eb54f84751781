"""What to type where packages are missing here that come with an extra."""

from __future__ import annotations

import subprocess
import sys


def install_hint(extra: str) -> str:
    """Return the hint that installs an extra of this distribution into the Python that runs.

    A bare `pip` may be another Python's: an environment that was not activated is used by its full path. pip takes
    the extra from what is installed, so this needs no checkout.
    """
    return f'Install it: {subprocess.list2cmdline([sys.executable])} -m pip install "dls[{extra}]"'
