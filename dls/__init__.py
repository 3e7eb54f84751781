"""Segment in ITK-SNAP with a GPU somewhere else.

>>> import dls
>>> with dls.connect("ann@gpuhost") as session:  # doctest: +SKIP
...     print(session.url)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dls.remote.session import Session, connect

__version__ = "0.1.0"
__all__ = ["Session", "__version__", "connect"]


def __getattr__(name: str) -> Any:
    # Looked up late: `import dls` runs on hosts that have no paramiko, and `dls --help` must feel instant.
    if name in ("Session", "connect"):
        from dls.remote import session

        return getattr(session, name)
    raise AttributeError(f"module 'dls' has no attribute {name!r}")
