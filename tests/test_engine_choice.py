"""Which engine `auto` means: the rule by itself, and as it is used for a host and for this computer."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from dls.contract import ServerState
from dls.engine_choice import EngineChoice, Machine, Wishes, choose, choose_by_wishes, choose_here
from dls.gpus import Gpu
from dls.remote.host.automatic import choose_engine, settle, settle_early
from dls.remote.host.options import ServerOptions
from dls.remote.host.packages import requirements
from dls.remote.host.probe import HostReport, Place
from tests.remote.host.test_install import REPORT

A100 = Gpu(0, "NVIDIA A100", 40960, 40000, "580.65", "8.0")
T4 = Gpu(1, "Tesla T4", 15360, 3000, "580.65", "7.5")
LINUX = Machine("Linux", "x86_64")
LOOKED = replace(REPORT, gpus=(A100,))


@pytest.mark.parametrize(
    ("gpu", "engine", "words"),
    [
        (A100, "nninteractive", "nnInteractive on NVIDIA A100"),
        (replace(A100, memory_free=5000), "region", "no GPU with 6 GB free memory (NVIDIA A100 has 5.2 GB)"),
        (replace(A100, driver="470.57"), "region", "the driver 470.57 of NVIDIA A100 is too old"),
        (replace(A100, driver="[N/A]"), "nninteractive", ""),
        (replace(A100, compute_capability="7.0"), "region", "too old for torch (compute capability 7.0"),
        (replace(A100, compute_capability="12.0"), "nninteractive", ""),
        (replace(A100, compute_capability="[N/A]"), "nninteractive", ""),
        (replace(A100, compute_capability=""), "nninteractive", ""),
    ],
)
def test_a_gpu_decides(gpu: Gpu, engine: str, words: str) -> None:
    """It needs 6 GB of free memory, and a driver and a capability that torch still has code for; the words say what."""
    found = choose(replace(LINUX, gpus=(gpu,)), Wishes())
    assert found.engine == engine and words in found.reason


def test_the_limit_of_memory_is_in_powers_of_ten() -> None:
    """6 GB are 5722 MiB: a GPU that is sold with 6 GB can do it while nothing else uses it."""
    for free, engine in ((5722, "nninteractive"), (5721, "region")):
        assert choose(replace(LINUX, gpus=(replace(A100, memory_free=free),)), Wishes()).engine == engine


def test_the_words_are_about_the_gpu_that_is_used() -> None:
    """That is the one with the most free memory, or the one that --gpu names."""
    both = replace(LINUX, gpus=(T4, A100))
    assert choose(both, Wishes()).reason == "nnInteractive on NVIDIA A100"
    named = choose(both, Wishes(gpu=1))
    assert named == EngineChoice("region", "region: the host has no GPU with 6 GB free memory (Tesla T4 has 3.1 GB)")


def test_machines_without_a_gpu_of_nvidia() -> None:
    """Apple's GPU can do it; a driver that hangs is named as the reason."""
    assert choose(LINUX, Wishes()) == EngineChoice("region", "region: the host has no GPU with 6 GB free memory")
    assert choose(Machine("Darwin", "arm64"), Wishes()).engine == "nninteractive"
    assert choose(Machine("Darwin", "x86_64"), Wishes()).engine == "region"
    assert "does not answer" in choose(replace(LINUX, gpus_hang=True), Wishes()).reason


@pytest.mark.parametrize(
    ("wishes", "engine"),
    [
        (Wishes(stand_in=True), "region"),
        (Wishes(device="cpu"), "region"),
        (Wishes(device="cuda:1"), "nninteractive"),
        (Wishes(device="mps"), "nninteractive"),
        (Wishes(model="/models/own"), "nninteractive"),
        (Wishes(gpu=3), None),
    ],
)
def test_options_that_say_it_already(wishes: Wishes, engine: str | None) -> None:
    """Options that mean one engine decide, whatever the machine has, and before anybody logs in to it."""
    decided = choose_by_wishes(wishes)
    assert (decided and decided.engine) == engine
    options = ServerOptions(device=wishes.device, gpu=wishes.gpu, stand_in=wishes.stand_in, model=wishes.model)
    assert settle_early(options)[0].engine == (engine or "auto")


def state(options: ServerOptions) -> ServerState:
    return ServerState(1, None, "c", options.key, "/s", None, "x", "cpu", "/log")


@pytest.mark.parametrize("engine", ["region", "nninteractive"])
@pytest.mark.parametrize("tcp", [False, True])
def test_a_server_that_runs_decides(engine: str, tcp: bool) -> None:
    """So its GPUs need not be known; one with other options decides nothing."""
    here = replace(REPORT, knows_gpus=False, full=False)
    running = replace(here, servers=(state(ServerOptions(engine, tcp=tcp)),))
    found = choose_engine(running, ServerOptions())
    assert found is not None and found.engine == engine and "running there already" in found.reason
    assert choose_engine(running, ServerOptions(compile=True)) is None
    assert choose_engine(here, ServerOptions()) is None


def test_a_named_engine_is_not_changed() -> None:
    """Whatever runs there and whatever the host has."""
    there = replace(LOOKED, servers=(state(ServerOptions("nninteractive")),))
    assert choose_engine(there, ServerOptions("region")) == EngineChoice("region")


def test_the_gpus_are_looked_at_once_where_they_are_not_known() -> None:
    """A probe that found a server of other options has not asked for them."""
    asked: list[int] = []

    def look() -> HostReport:
        asked.append(1)
        return LOOKED

    options, choice, report = settle(ServerOptions(), replace(REPORT, knows_gpus=False, full=False), look)
    assert (options.engine, choice.engine, report, asked) == ("nninteractive", "nninteractive", LOOKED, [1])
    assert settle(ServerOptions(), LOOKED, look)[0].engine == "nninteractive" and asked == [1]


def test_region_needs_less_room_than_the_probe_looked_for() -> None:
    """A disk that is too full for nnInteractive's packages is none that is too full for region's."""
    small = requirements("region").disk_mib
    full = replace(REPORT, storage="full", places=(Place("/scratch", 9999),), free_mib=small)
    _, _, report = settle(ServerOptions(), full, lambda: full)
    assert report.storage == "" and report.places == ()
    for still in (replace(full, free_mib=small - 1), replace(full, storage="quota"), replace(full, gpus=(A100,))):
        assert settle(ServerOptions(), still, lambda: still)[2] == still  # noqa: B023 - called at once


def test_this_computer_needs_the_packages_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dls serve` does not choose an engine whose packages are not installed, or whose torch can't use the GPU."""
    monkeypatch.setitem(sys.modules, "nnInteractive", None)
    found = choose_here((A100,), Wishes())
    assert found == EngineChoice("region", "region: nnInteractive's packages are not installed here")
    assert choose_here((A100,), Wishes(device="cuda")).engine == "nninteractive"
    assert "this computer has no GPU" in choose_here((), Wishes()).reason
