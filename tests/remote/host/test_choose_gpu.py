"""Choice of the host's GPU."""

from __future__ import annotations

import pytest

from dls.errors import HostError
from dls.gpus import Gpu
from dls.remote.host.options import ServerOptions, choose_gpu

GPUS = (Gpu(0, "A", 40000, 1000, "580", "8.0"), Gpu(1, "B", 40000, 39000, "580", "8.0"))


def test_a_gpu_is_chosen_by_number_or_by_device() -> None:
    """`--device cuda:N` selects GPU number N, as `--gpu N` does; the default is the one with most free memory."""
    assert choose_gpu(GPUS, ServerOptions()) == GPUS[1] and choose_gpu((), ServerOptions()) is None
    assert choose_gpu(GPUS, ServerOptions(gpu=0)) == choose_gpu(GPUS, ServerOptions(device="cuda:0")) == GPUS[0]
    with pytest.raises(HostError, match="two GPUs"):
        choose_gpu(GPUS, ServerOptions(device="cuda:0", gpu=1))
    with pytest.raises(HostError, match="no GPU number 7"):
        choose_gpu(GPUS, ServerOptions(device="cuda:7"))
