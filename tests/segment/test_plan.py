"""Which images are segmented, and into which files."""

from __future__ import annotations

from pathlib import Path

import pytest

from dls.errors import SegmentError
from dls.segment.plan import choose_jobs, plan
from dls.segment.requests import Asked, Job

PROMPTED = Job(Path(), (Asked("point", True, (1.0, 2.0, 3.0)),))


def test_patterns_are_ours_to_expand(tmp_path: Path) -> None:
    """The shells of Windows hand them on; brackets are a part of a name, and what matches nothing stays as it is."""
    for name in ("b.mha", "a.mha", "c.nrrd", "d1.mha"):
        (tmp_path / name).touch()
    jobs = choose_jobs([tmp_path / "?.mha", tmp_path / "d[1].mha", tmp_path / "x*"], PROMPTED, [])
    assert [job.image.name for job in jobs] == ["a.mha", "b.mha", "d[1].mha", "x*"]
    listed = [Job(tmp_path / "a.mha", PROMPTED.asked), Job(tmp_path / "b.mha", PROMPTED.asked)]
    assert choose_jobs([tmp_path / "?.mha"], Job(Path(), ()), listed) == listed


def test_names_that_differ_in_case_alone(tmp_path: Path) -> None:
    """Where they are one file, as on macOS, the second mask would be written over the first one."""
    jobs = [Job(tmp_path / "1" / "CT.mha", PROMPTED.asked), Job(tmp_path / "2" / "ct.mha", PROMPTED.asked)]
    with pytest.raises(SegmentError, match="would be written for both"):
        plan(jobs, tmp_path / "masks", None, folds_case=True)
    assert [task.mask.name for task in plan(jobs, tmp_path / "masks", None, folds_case=False)] == ["CT.mha", "ct.mha"]
