"""Which device, and what is said where the installed torch can't use it."""

from __future__ import annotations

import pytest

from dls.errors import EngineError
from dls.server.engines.devices import Cuda, Facts, check_memory, choose, why_no_cuda

A100 = Cuda(0, "NVIDIA A100", 10_000, 40_000, (8, 0))
H100 = Cuda(1, "NVIDIA H100", 60_000, 80_000, (9, 0))
BUILT = ("sm_80", "sm_90", "compute_90")


def test_auto_takes_the_device_with_the_most_free_memory() -> None:
    """Then Apple's, then the CPU, and says why."""
    both = Facts("12.8", BUILT, (A100, H100), driver="570.86")
    assert choose("auto", both).device == "cuda:1" and "most free memory" in choose("auto", both).why
    assert choose("auto", Facts(None, mps=True)).device == "mps"
    assert choose("auto", Facts("12.8")).device == "cpu" and "no NVIDIA GPU" in choose("auto", Facts("12.8")).why
    assert choose("cuda", both).device == "cuda:1" and choose("cuda:0", both).device == "cuda:0"
    assert choose("cpu", both).device == "cpu"


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (Facts(None, driver="570.86"), "the installed torch is a CPU build"),
        (Facts("13.0", driver="570.86"), r"driver 570\.86 is too old for torch's CUDA 13\.0, which needs 580\.65"),
        (Facts("12.8", driver="470.1"), r"needs 525\.60"),
        (Facts("12.8", driver="570.86"), "sees no device"),
        (Facts("12.8"), "no NVIDIA GPU was found"),
    ],
)
def test_why_cuda_can_not_be_used(facts: Facts, said: str) -> None:
    """Each mismatch with its figures; asked for by name it is an error, with auto a reason for the CPU."""
    with pytest.raises(EngineError, match=said) as caught:
        choose("cuda", facts)
    assert caught.value.hint
    assert choose("auto", facts).why == why_no_cuda(facts)


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
    """Binary code for its major version, or code that the driver compiles."""
    facts = Facts("12.8", built, (Cuda(0, "GPU", 9000, 9000, capability),))
    if runs:
        assert choose("auto", facts).device == "cuda:0"
    else:
        with pytest.raises(EngineError, match="no code for GPU"):
            choose("auto", facts)


def test_too_little_memory_and_other_devices() -> None:
    """With the figures, and what there is instead."""
    with pytest.raises(EngineError, match="10000 MiB of memory free; the model needs about 20000"):
        check_memory(A100, 20_000)
    check_memory(A100, 5_000)
    with pytest.raises(EngineError, match=r"cuda:0 \(NVIDIA A100\)"):
        choose("cuda:7", Facts("12.8", BUILT, (A100,)))
    with pytest.raises(EngineError, match="Apple"):
        choose("mps", Facts("12.8"))
