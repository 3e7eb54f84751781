"""The links between the pages, to pictures and to files of the repository lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import FENCE, PAGES, ROOT

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TEST = re.compile(r"`((?:tests|bench|scripts)/[\w/.-]+?)(?:::(\w+))?`")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as MkDocs and code forges make them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link of the page names a file that exists, and an anchor that the file has."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor and target.suffix == ".md" and target.stem not in ("command-line", "python-api"):  # made when built
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    """Each test, bench and script that the page names is there, with the test function that it names."""
    for name, function in TEST.findall(page.read_text(encoding="utf-8")):
        target = ROOT / name
        assert target.exists() or (ROOT / f"{name}.py").exists(), name
        if function:
            assert f"def {function}(" in target.read_text(encoding="utf-8"), f"{name}::{function}"
