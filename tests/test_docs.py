"""The documents name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAME = re.compile(r"`([\w./]*test_\w+\.py)?(?:::(test_\w+))?`")


@pytest.mark.parametrize(
    ("document", "folder", "fewest"),
    [
        ("ways-in.md", "tests/ways_in", 21),
        ("security-tests.md", "tests", 21),
        ("viewers.md", "tests/viewers", 4),
        ("clusters.md", "tests/cluster", 4),
    ],
)
def test_each_test_that_a_document_names_exists(document: str, folder: str, fewest: int) -> None:
    """A file's name without a folder is in the document's own folder; `::name` alone is in the file named before."""
    file, found = "", 0
    for match in NAME.finditer((ROOT / "docs" / document).read_text()):
        if not (match[1] or match[2]):
            continue
        file = match[1] or file
        path = ROOT / file if "/" in file else ROOT / folder / file
        assert path.is_file(), file
        assert match[2] is None or f"def {match[2]}(" in path.read_text(), match[0]
        found += 1
    assert found >= fewest
