"""Imports paramiko without the library `invoke`, which takes as long as all the rest of it: some 80 ms.

paramiko wants it for `Match exec` alone, which `ssh -G` runs; `paramiko_config` brings it where there is no `ssh`. This
module has to be imported before paramiko is.
"""

import sys

NAME = "invoke"

if NAME not in sys.modules:
    sys.modules[NAME] = None  # type: ignore[assignment]  # makes its import fail, as where it is not installed
    try:
        import paramiko.config  # noqa: F401
    finally:
        del sys.modules[NAME]
