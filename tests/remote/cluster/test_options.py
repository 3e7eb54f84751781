"""Durations as users and schedulers write them."""

from __future__ import annotations

from dataclasses import replace

import pytest

import dls
from dls.remote.cluster.durations import parse_minutes
from dls.remote.cluster.fit import describe_unused
from dls.remote.cluster.options import ClusterOptions
from dls.remote.cluster.route import Route
from tests.remote.host.test_install import REPORT


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("4h", 240), ("90m", 90), ("2d", 2880), ("1h30m", 90), ("1d12h", 2160),
        ("30", 30), ("30:00", 30), ("30:01", 31), ("4:00:00", 240), ("0:00:30", 1),
        ("1-12", 2160), ("1-12:30", 2190), ("1-12:30:01", 2191),
    ],
)  # fmt: skip
def test_a_duration_is_read_as_slurm_reads_it(text: str, minutes: int) -> None:
    """A bare number is minutes, and seconds are rounded up."""
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "0", "4 hours", "h", "-1", "1:2:3:4", "1.5h", "٣h"])
def test_what_is_no_duration_is_refused_before_the_login(text: str) -> None:
    """A wrong --time is known before anybody is asked for a code."""
    with pytest.raises(dls.TargetError, match="is no duration"):
        Route(ClusterOptions(time=text), dls.LoginOptions())


@pytest.mark.parametrize("option", ["job-name=mine", "--job-n=mine", "-Jmine", "J=mine", "requeue", "--requeue"])
def test_options_that_would_lose_the_job_are_refused(option: str) -> None:
    """A job of another name would not be found again, and another one be submitted."""
    with pytest.raises(dls.TargetError, match="can't be used"):
        Route(ClusterOptions(sbatch_options=(option,)), dls.LoginOptions())


def test_other_options_are_taken() -> None:
    """What only sounds alike goes to `sbatch`."""
    Route(
        ClusterOptions(sbatch_options=("reservation=course", "no-requeue", "exclusive", "nice=5")), dls.LoginOptions()
    )


def test_options_of_a_job_where_there_is_none() -> None:
    """They are not dropped in silence; a host with a GPU of its own is told of --slurm, and --here has been decided."""
    options = ClusterOptions(time="4h", renew=True, sbatch_options=("nice=5",))
    plain, login = replace(REPORT, scheduler=""), replace(REPORT, scheduler="slurm")
    assert describe_unused(options, plain, "box") == (
        "box has no Slurm, so the server runs in no job: --time and --renew and --sbatch-option are set aside."
    )
    assert describe_unused(ClusterOptions(time="4h"), login, "login") == (
        "login has a GPU of its own, so the server runs there: --time is set aside. --slurm puts it into a job."
    )
    assert describe_unused(ClusterOptions(), plain, "box") == ""
    assert describe_unused(replace(options, mode="here"), login, "login") == ""
    assert describe_unused(options, replace(login, job="/jobs/7"), "gpu01") == ""


def test_an_unknown_mode_is_refused() -> None:
    """The library takes the modes of the command line."""
    with pytest.raises(dls.TargetError, match="no mode"):
        Route(ClusterOptions(mode="pbs"), dls.LoginOptions())
