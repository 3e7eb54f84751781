"""Which device to compute on, and whether the installed torch can: pure, from facts that the engine collects."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dls.errors import EngineError

OLDEST_DRIVER = {13: (580, 65), 12: (525, 60), 11: (450, 80)}
"""The oldest driver that runs a CUDA of this major version (NVIDIA's table of minor version compatibility, Linux)."""
OTHER_DRIVER_HINT = (
    "Update the NVIDIA driver, or install a torch that was built for an older CUDA; --device cpu does without."
)


@dataclass(frozen=True)
class Cuda:
    """A CUDA device as torch sees it; memory in MiB, capability as (major, minor)."""

    index: int
    name: str
    memory_free: int
    memory_total: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Facts:
    """What the installed torch can do here."""

    cuda_build: str | None
    """The CUDA version torch was built for; None for a CPU build."""
    built_for: tuple[str, ...] = ()
    """`torch.cuda.get_arch_list()`: sm_80, compute_90, …"""
    cudas: tuple[Cuda, ...] = ()
    mps: bool = False
    driver: str = ""
    """What nvidia-smi says, whether torch can use it or not."""


@dataclass(frozen=True)
class Choice:
    """A device for torch, and why it was taken."""

    device: str
    why: str


def choose(wanted: str, facts: Facts) -> Choice:
    """Return the device: for auto the CUDA device with the most free memory, then mps, then cpu. Raises EngineError."""
    if wanted == "cpu":
        return Choice("cpu", "it was asked for")
    if wanted == "mps":
        if not facts.mps:
            raise EngineError("This machine has no Apple GPU that torch can use.", "Choose --device cpu.")
        return Choice("mps", "it was asked for")
    if wanted.startswith("cuda"):
        return _wanted_cuda(wanted, facts)
    if facts.cudas:
        best = max(facts.cudas, key=lambda cuda: (cuda.memory_free, -cuda.index))
        check_capability(best, facts)
        free = f"{best.memory_free / 1024:.1f} GiB"
        return Choice(f"cuda:{best.index}", f"{best.name} has the most free memory ({free})")
    if facts.mps:
        return Choice("mps", "torch sees no CUDA device, but an Apple GPU")
    return Choice("cpu", why_no_cuda(facts))


def _wanted_cuda(wanted: str, facts: Facts) -> Choice:
    if not facts.cudas:
        raise EngineError(f"CUDA can't be used: {why_no_cuda(facts)}.", OTHER_DRIVER_HINT)
    number = int(wanted.partition(":")[2] or max(facts.cudas, key=lambda cuda: cuda.memory_free).index)
    for cuda in facts.cudas:
        if cuda.index == number:
            check_capability(cuda, facts)
            return Choice(f"cuda:{number}", f"{cuda.name}, it was asked for")
    there = ", ".join(f"cuda:{cuda.index} ({cuda.name})" for cuda in facts.cudas)
    raise EngineError(f"There is no device {wanted}; there is: {there}.", "Choose another one with --device.")


def why_no_cuda(facts: Facts) -> str:
    """Return why torch sees no CUDA device."""
    if not facts.driver:
        return "no NVIDIA GPU was found"
    if facts.cuda_build is None:
        return f"there is an NVIDIA GPU (driver {facts.driver}), but the installed torch is a CPU build"
    major = int(facts.cuda_build.split(".")[0])
    oldest = OLDEST_DRIVER.get(major)
    if oldest and _version(facts.driver) < oldest:
        needs = f"{oldest[0]}.{oldest[1]}"
        return f"the driver {facts.driver} is too old for torch's CUDA {facts.cuda_build}, which needs {needs}"
    return f"torch's CUDA {facts.cuda_build} sees no device, though the driver {facts.driver} is there"


def check_capability(cuda: Cuda, facts: Facts) -> None:
    """Raise EngineError when the torch build has no code for the device.

    Binary code (sm_XY) runs on devices of the same major version and the same or a later minor one, compute_XY on
    all later ones.
    """
    if not facts.built_for:
        return
    for arch in facts.built_for:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", arch)
        if found is None:
            continue
        kind, built = found[1], (int(found[2]), int(found[3]))
        if built <= cuda.capability and (kind == "compute" or built[0] == cuda.capability[0]):
            return
    have = f"{cuda.capability[0]}.{cuda.capability[1]}"
    raise EngineError(
        f"The installed torch has no code for {cuda.name} (compute capability {have}; "
        f"it was built for {', '.join(facts.built_for)}).",
        "Install a torch version that was, or choose --device cpu.",
    )


def check_memory(cuda: Cuda, need_mib: int) -> None:
    """Raise EngineError when the model does not fit into the device's free memory."""
    if cuda.memory_free < need_mib:
        raise EngineError(
            f"{cuda.name} has {cuda.memory_free} MiB of memory free; the model needs about {need_mib} MiB.",
            "Somebody else may be using it: choose another GPU, wait, or choose --device cpu.",
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
