"""Choose a device, and explain why the installed torch can't use one."""

from __future__ import annotations

import pytest

from dls.errors import EngineError
from dls.server.engines.devices import CudaDevice, TorchInfo, check_memory, choose, explain_missing_cuda

A100 = CudaDevice(0, "NVIDIA A100", 10_000, 40_000, (8, 0))
H100 = CudaDevice(1, "NVIDIA H100", 60_000, 80_000, (9, 0))
ARCHITECTURES = ("sm_80", "sm_90", "compute_90")


def test_auto_takes_the_device_with_the_most_free_memory() -> None:
    """Without a CUDA device `auto` takes an Apple GPU, then the CPU; the choice has a reason."""
    both = TorchInfo("12.8", ARCHITECTURES, (A100, H100), driver="570.86")
    assert choose("auto", both).device == "cuda:1" and "most free memory" in choose("auto", both).reason
    assert choose("auto", TorchInfo(None, mps=True)).device == "mps"
    assert (
        choose("auto", TorchInfo("12.8")).device == "cpu"
        and "no NVIDIA GPU" in choose("auto", TorchInfo("12.8")).reason
    )
    assert choose("cuda", both).device == "cuda:1" and choose("cuda:0", both).device == "cuda:0"
    assert choose("cpu", both).device == "cpu"


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (TorchInfo(None, driver="570.86"), "the installed torch is a CPU build"),
        (TorchInfo("13.0", driver="570.86"), r"driver 570\.86 is too old for torch's CUDA 13\.0, which needs 580\.65"),
        (TorchInfo("12.8", driver="470.1"), r"needs 525\.60"),
        (TorchInfo("12.8", driver="570.86"), "sees no device"),
        (TorchInfo("12.8"), "no NVIDIA GPU was found"),
    ],
)
def test_a_missing_cuda_device_is_explained(info: TorchInfo, message: str) -> None:
    """A requested CUDA device that can't be used is an error with the reason for which `auto` takes the CPU."""
    with pytest.raises(EngineError, match=message) as caught:
        choose("cuda", info)
    assert caught.value.hint
    assert choose("auto", info).reason == explain_missing_cuda(info)


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((8, 0), ("sm_80",), True),
        ((8, 6), ("sm_80",), True),
        ((8, 0), ("sm_86",), False),
        ((9, 0), ("sm_80",), False),
        ((12, 0), ("sm_90", "compute_90"), True),
        ((6, 1), ("sm_75", "sm_80"), False),
        ((9, 0), ("sm_90a",), True),
        ((6, 1), (), True),
    ],
)
def test_the_build_must_have_code_for_the_device(
    capability: tuple[int, int], built: tuple[str, ...], runs: bool
) -> None:
    """A torch build without code for the device is refused."""
    info = TorchInfo("12.8", built, (CudaDevice(0, "GPU", 9000, 9000, capability),))
    if runs:
        assert choose("auto", info).device == "cuda:0"
    else:
        with pytest.raises(EngineError, match="no code for GPU"):
            choose("auto", info)


def test_too_little_memory_or_an_unknown_device_is_refused() -> None:
    """The errors give the figures and the devices that exist."""
    with pytest.raises(EngineError, match="10000 MiB of memory free; the model needs about 20000"):
        check_memory(A100, 20_000)
    check_memory(A100, 5_000)
    with pytest.raises(EngineError, match=r"cuda:0 \(NVIDIA A100\)"):
        choose("cuda:7", TorchInfo("12.8", ARCHITECTURES, (A100,)))
    with pytest.raises(EngineError, match="Apple"):
        choose("mps", TorchInfo("12.8"))
