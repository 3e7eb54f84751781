"""Segment in ITK-SNAP with a GPU somewhere else.

>>> import dls
>>> with dls.connect("ann@gpuhost") as session:  # doctest: +SKIP
...     print(session.url)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dls.errors import (
    ClosedHostError,
    ConnectError,
    DlsError,
    EngineError,
    ForwardError,
    HostError,
    HostKeyError,
    InstallError,
    LaunchError,
    LinkError,
    LoginError,
    SegmentError,
    TargetError,
)

if TYPE_CHECKING:
    from dls.remote.progress import Reporter
    from dls.remote.session import ClusterOptions, LoginOptions, NetworkOptions, ServerOptions, Session, connect
    from dls.remote.ssh.prompts import NewHostKey, Prompter, Question, QuestionKind
    from dls.segment.prompts import Box, Lasso, Point, Scribble

__version__ = "0.1.0"
__all__ = [
    "Box",
    "ClosedHostError",
    "ClusterOptions",
    "ConnectError",
    "DlsError",
    "EngineError",
    "ForwardError",
    "HostError",
    "HostKeyError",
    "InstallError",
    "Lasso",
    "LaunchError",
    "LinkError",
    "LoginError",
    "LoginOptions",
    "NetworkOptions",
    "NewHostKey",
    "Point",
    "Prompter",
    "Question",
    "QuestionKind",
    "Reporter",
    "Scribble",
    "SegmentError",
    "ServerOptions",
    "Session",
    "TargetError",
    "__version__",
    "connect",
]

_LAZY = {
    "Box": "dls.segment.prompts",
    "ClusterOptions": "dls.remote.session",
    "Lasso": "dls.segment.prompts",
    "LoginOptions": "dls.remote.session",
    "NetworkOptions": "dls.remote.session",
    "NewHostKey": "dls.remote.ssh.prompts",
    "Point": "dls.segment.prompts",
    "Prompter": "dls.remote.ssh.prompts",
    "Question": "dls.remote.ssh.prompts",
    "QuestionKind": "dls.remote.ssh.prompts",
    "Reporter": "dls.remote.progress",
    "Scribble": "dls.segment.prompts",
    "ServerOptions": "dls.remote.session",
    "Session": "dls.remote.session",
    "connect": "dls.remote.session",
}
"""Modules of the names that are imported only when they are used.

`import dls` runs on hosts that have no paramiko, and `dls --help` must feel instant.
"""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'dls' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
