"""How a host without internet of its own may get what an installation needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class NetworkOptions:
    """What the user decided about a host that reaches no internet."""

    lend: bool | None = None
    """Whether the host may use this computer's network until the installation is done; None asks the prompter."""
    parcel: Path | None = None
    """File that `dls pack` made, which is sent instead."""
