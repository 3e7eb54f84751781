"""The GPU that a server computes on: which one that is, and what is asked of nvidia-smi."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dls.gpus import Gpu
from dls.remote.host.summary import with_gpu
from dls.server.gpu_watch import GpuWatch, choose_used
from tests.remote.host.test_install import REPORT

A100, T4 = Gpu(0, "NVIDIA A100", 81920, 70000, "580.65"), Gpu(3, "T4", 16384, 16000, "580.65")


def test_nvidia_smi_does_not_get_what_is_sent_to_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard input of `dls serve` may be the pipe by which it ends: on Windows nvidia-smi would hang at it."""
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\nread line && exit 1\necho "0, NVIDIA A100, 81920, 70000, 580.65, 8.0"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    words = [sys.executable, "-c", "from dls import gpus; print(len(gpus.local()))"]
    done = subprocess.run(words, input="ours\nours\n", capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("device", "visible", "used"),
    [
        ("cpu", "", None),
        ("mps", "", None),
        ("cuda:0", "", A100),
        ("cuda:1", "", T4),
        ("cuda:0", "3", T4),
        ("cuda:1", "3,0", A100),
        ("cuda", "GPU-0f3c", A100),
        ("cuda:7", "", None),
    ],
)
def test_torch_numbers_what_it_is_allowed_to_see(device: str, visible: str, used: Gpu | None) -> None:
    """The launch script shows a server one GPU, which is number 0 there and another number to nvidia-smi."""
    assert choose_used((A100, T4), device, {"CUDA_VISIBLE_DEVICES": visible}) == used


def test_nvidia_smi_is_asked_rarely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked once however many look, and never for an engine on the CPU; what it said reaches the client."""
    program, asked = tmp_path / "nvidia-smi", tmp_path / "asked"
    program.write_text(f"#!/bin/sh\necho x >>{asked}\necho '0, NVIDIA A100, 81920, 70000, 580.65, 8.0'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    async def look() -> dict[str, object] | None:
        watch = GpuWatch({})
        assert watch.describe("cpu") is None
        assert watch.describe("cuda:0", renews=False) is None  # it is asked only now
        while watch.describe("cuda:0") is None:
            await asyncio.sleep(0.01)
        return watch.describe("cuda:0", renews=False)

    fields = asyncio.run(look())
    assert asked.read_text() == "x\n"
    assert fields is not None and Gpu.read(fields) == Gpu(0, "NVIDIA A100", 81920, 70000, "580.65")
    warm = with_gpu(REPORT, {"gpu": fields})
    assert [str(gpu) for gpu in warm.gpus] == ["NVIDIA A100, 68.4 of 80.0 GiB free"]
    assert with_gpu(warm, {"gpu": None}) is warm and with_gpu(REPORT, {}) is REPORT


@pytest.mark.parametrize(
    "fields", [None, [], "x", {}, {"index": "0"}, {"index": -1, "memory_total": 1, "memory_free": 1}]
)
def test_what_describes_no_gpu(fields: object) -> None:
    """What a server sends in another form is no GPU, and no error."""
    assert Gpu.read(fields) is None
