"""Which engine `--engine auto` means on a machine: the same rule on the laptop's side and the host's.

Pure, but for `choose_here`.
"""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass
from importlib.util import find_spec

from dls.gpus import Gpu, most_free

AUTO, REGION, NNINTERACTIVE = "auto", "region", "nninteractive"
NEEDED_GB = 6
"""Free memory of a GPU, in 10^9 bytes, that the authors of nnInteractive ask for."""
NEEDED_MIB = NEEDED_GB * 10**9 // 2**20
OLDEST_DRIVER = 525
"""Oldest major version of NVIDIA's driver for which there is a torch that nnInteractive takes."""
OLDEST_CAPABILITY = (7, 5)
"""Oldest compute capability that the wheels of torch have code for, whichever CUDA they were built with."""


@dataclass(frozen=True)
class Wishes:
    """The options that bear on the choice."""

    device: str = "auto"
    gpu: int | None = None
    stand_in: bool = False
    model: str | None = None


@dataclass(frozen=True)
class Machine:
    """What is known of the machine that would compute."""

    system: str
    """`Linux`, `Darwin`, as `uname -s` prints it."""
    machine: str
    """`x86_64`, `arm64`, as `uname -m` prints it."""
    gpus: tuple[Gpu, ...] = ()
    gpus_hang: bool = False
    """Whether `nvidia-smi` was asked and did not answer."""
    name: str = "the host"
    """The machine's name in a sentence."""


@dataclass(frozen=True)
class EngineChoice:
    """An engine, and in words why it is that one; no words where the user named it."""

    engine: str
    reason: str = ""

    @property
    def other(self) -> str:
        """The engine that was not chosen."""
        return NNINTERACTIVE if self.engine == REGION else REGION


def choose_by_wishes(wishes: Wishes) -> EngineChoice | None:
    """Return what the options alone decide, whatever the machine has; None where that is left to the machine."""
    if wishes.stand_in:
        return EngineChoice(REGION, "region, because --stand-in is about it")
    if wishes.device == "cpu":
        return EngineChoice(REGION, "region, because --device cpu leaves the GPU alone")
    if wishes.device != "auto":
        return EngineChoice(NNINTERACTIVE, f"nnInteractive, because --device {wishes.device} asks for a GPU")
    if wishes.model is not None:
        return EngineChoice(NNINTERACTIVE, "nnInteractive, because --model names a model of it")
    return None


def choose(machine: Machine, wishes: Wishes) -> EngineChoice:
    """Return nnInteractive where the machine has a GPU that can run it, else region, and say why."""
    if decided := choose_by_wishes(wishes):
        return decided
    if machine.gpus_hang:
        return EngineChoice(REGION, f"region: the GPU driver of {machine.name} does not answer")
    named = [gpu for gpu in machine.gpus if gpu.index == wishes.gpu]
    # The one that is used: with another one, the words would be about a GPU that does nothing.
    gpu = most_free(tuple(named or machine.gpus))
    if gpu is not None:
        if fault := _find_fault(gpu, machine):
            return EngineChoice(REGION, f"region: {fault}")
        return EngineChoice(NNINTERACTIVE, f"nnInteractive on {gpu.name}")
    if (machine.system, machine.machine) == ("Darwin", "arm64"):
        return EngineChoice(NNINTERACTIVE, f"nnInteractive on Apple's GPU of {machine.name}")
    return EngineChoice(REGION, f"region: {machine.name} has no GPU with {NEEDED_GB} GB free memory")


def choose_here(gpus: tuple[Gpu, ...], wishes: Wishes) -> EngineChoice:
    """Return the engine for this computer with these GPUs: nnInteractive only where its packages are installed."""
    choice = choose(Machine(platform.system(), platform.machine(), gpus, name="this computer"), wishes)
    if choice.engine == NNINTERACTIVE and not choose_by_wishes(wishes) and (lack := _find_lack()):
        return EngineChoice(REGION, f"region: {lack}")
    return choice


def _find_lack() -> str:
    """Return what nnInteractive lacks here, as far as that is seen without importing anything; empty for nothing."""
    if not (_is_installed("torch") and _is_installed("nnInteractive")):
        return "nnInteractive's packages are not installed here"
    if importlib.metadata.version("torch").endswith("+cpu") and platform.system() != "Darwin":
        return "the torch that is installed here is a build for the CPU"
    return ""


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # a module without a spec
        return False


def _find_fault(gpu: Gpu, machine: Machine) -> str:
    """Return why the GPU can't run nnInteractive; empty where it can."""
    drivers = [each.driver_version for each in machine.gpus if each.driver_version]
    if drivers and min(drivers) < OLDEST_DRIVER:
        return f"the driver {gpu.driver} of {gpu.name} is too old ({OLDEST_DRIVER} is needed)"
    if (capability := _read_capability(gpu.compute_capability)) and capability < OLDEST_CAPABILITY:
        needed = ".".join(map(str, OLDEST_CAPABILITY))
        return f"{gpu.name} is too old for torch (compute capability {gpu.compute_capability}; {needed} is needed)"
    if gpu.memory_free < NEEDED_MIB:
        free = f"{gpu.name} has {gpu.memory_free * 2**20 / 1e9:.1f} GB"
        return f"{machine.name} has no GPU with {NEEDED_GB} GB free memory ({free})"
    return ""


def _read_capability(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    # `[N/A]` where the driver does not say.
    is_number = text.isascii() and major.isdigit() and minor.isdigit() and len(text) < 8
    return (int(major), int(minor)) if is_number else None
