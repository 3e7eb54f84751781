"""An index of packages that loans of the tests lead to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import package_index


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[package_index.Index]:
    """An index with two wheels, a small one that needs a larger one."""
    folder = tmp_path_factory.mktemp("index")
    wheels = folder / "wheels"
    package_index.tiny_wheel(wheels, "click")
    package_index.tiny_wheel(wheels, "large-one", size=300_000)
    package_index.tiny_wheel(wheels, "tiny-one", requires=["large-one"])
    with package_index.running(folder, wheels) as running:
        yield running


@pytest.fixture
def folder(short_folder: Path) -> Path:
    """A folder for the files of an SSH server."""
    return short_folder
