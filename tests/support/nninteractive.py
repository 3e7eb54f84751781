"""What tests of nnInteractive share: the tiny model, and marks for the warnings of the libraries.

Importing this module skips the tests of a module where torch or nninteractive is not installed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed: scripts/test installs it")
pytest.importorskip("nnInteractive", reason="nninteractive is not installed: scripts/test installs it")

MODEL = Path(__file__).parents[1] / "tiny_model" / "model"
IGNORED_WARNINGS = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
