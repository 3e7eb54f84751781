"""Choose the device to compute on, and check that the installed torch can use it.

The functions are pure: the engine collects what torch and nvidia-smi report.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dls.errors import EngineError

MINIMUM_DRIVER = {13: (580, 65), 12: (525, 60), 11: (450, 80)}
"""The oldest driver that runs each major version of CUDA (NVIDIA's table of minor version compatibility, Linux)."""
OTHER_DRIVER_HINT = (
    "Update the NVIDIA driver, or install a torch that was built for an older CUDA; --device cpu works without either."
)


@dataclass(frozen=True)
class CudaDevice:
    """A CUDA device as torch reports it; memory in MiB, capability as (major, minor)."""

    index: int
    name: str
    memory_free: int
    memory_total: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class TorchInfo:
    """The devices that the installed torch can use, and the architectures it was built for."""

    cuda_version: str | None
    """The CUDA version that torch was built for; None for a CPU build."""
    architectures: tuple[str, ...] = ()
    """The result of `torch.cuda.get_arch_list()`, such as sm_80 or compute_90."""
    cuda_devices: tuple[CudaDevice, ...] = ()
    mps: bool = False
    """Whether torch can use an Apple GPU."""
    driver: str = ""
    """The version of the NVIDIA driver that nvidia-smi reports, whether torch can use it or not."""


@dataclass(frozen=True)
class DeviceChoice:
    """A device as torch names it, and why it was chosen."""

    device: str
    reason: str


def choose(requested: str, info: TorchInfo) -> DeviceChoice:
    """Choose the device; for `auto` the CUDA device with the most free memory, then mps, then cpu.

    Raises EngineError when the requested device can't be used.
    """
    if requested == "cpu":
        return DeviceChoice("cpu", "it was requested")
    if requested == "mps":
        if not info.mps:
            raise EngineError("This machine has no Apple GPU that torch can use.", "Choose --device cpu.")
        return DeviceChoice("mps", "it was requested")
    if requested.startswith("cuda"):
        return _choose_requested_cuda(requested, info)
    if info.cuda_devices:
        best = max(info.cuda_devices, key=lambda device: (device.memory_free, -device.index))
        check_capability(best, info)
        free = f"{best.memory_free / 1024:.1f} GiB"
        return DeviceChoice(f"cuda:{best.index}", f"{best.name} has the most free memory ({free})")
    if info.mps:
        return DeviceChoice("mps", "torch sees no CUDA device, but an Apple GPU")
    return DeviceChoice("cpu", explain_missing_cuda(info))


def _choose_requested_cuda(requested: str, info: TorchInfo) -> DeviceChoice:
    if not info.cuda_devices:
        raise EngineError(f"CUDA can't be used: {explain_missing_cuda(info)}.", OTHER_DRIVER_HINT)
    default = max(info.cuda_devices, key=lambda device: device.memory_free).index
    index = int(requested.partition(":")[2] or default)
    for device in info.cuda_devices:
        if device.index == index:
            check_capability(device, info)
            return DeviceChoice(f"cuda:{index}", f"{device.name}, it was requested")
    available = ", ".join(f"cuda:{device.index} ({device.name})" for device in info.cuda_devices)
    raise EngineError(f"There is no device {requested}; there is: {available}.", "Choose another one with --device.")


def explain_missing_cuda(info: TorchInfo) -> str:
    """Return why torch sees no CUDA device."""
    if not info.driver:
        return "no NVIDIA GPU was found"
    if info.cuda_version is None:
        return f"there is an NVIDIA GPU (driver {info.driver}), but the installed torch is a CPU build"
    minimum = MINIMUM_DRIVER.get(int(info.cuda_version.split(".")[0]))
    if minimum and _parse_version(info.driver) < minimum:
        needed = f"{minimum[0]}.{minimum[1]}"
        return f"the driver {info.driver} is too old for torch's CUDA {info.cuda_version}, which needs {needed}"
    return f"torch's CUDA {info.cuda_version} sees no device, although the driver {info.driver} is installed"


def check_capability(device: CudaDevice, info: TorchInfo) -> None:
    """Raise EngineError when the torch build has no code for the device.

    Binary code (sm_XY) runs on devices of the same major version and the same or a later minor one, compute_XY on
    all later ones.
    """
    if not info.architectures:
        return
    for architecture in info.architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", architecture)
        if match is None:
            continue
        kind, built = match[1], (int(match[2]), int(match[3]))
        if built <= device.capability and (kind == "compute" or built[0] == device.capability[0]):
            return
    capability = f"{device.capability[0]}.{device.capability[1]}"
    raise EngineError(
        f"The installed torch has no code for {device.name} (compute capability {capability}; "
        f"it was built for {', '.join(info.architectures)}).",
        "Install a torch version that was built for it, or choose --device cpu.",
    )


def check_memory(device: CudaDevice, needed_mib: int) -> None:
    """Raise EngineError when the model does not fit into the device's free memory."""
    if device.memory_free < needed_mib:
        raise EngineError(
            f"{device.name} has {device.memory_free} MiB of memory free; the model needs about {needed_mib} MiB.",
            "Another program may be using it: choose another GPU, wait, or choose --device cpu.",
        )


def _parse_version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
