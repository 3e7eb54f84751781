"""nnInteractive on a CUDA device; skipped where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dls.errors import Exhausted
from dls.server.engines.base import Engine
from dls.server.engines.catalog import make_engine
from dls.server.options import EngineOptions
from dls.server.volume import Geometry, Prompt, Volume
from dls.weights import ModelSpec
from tests.support.synthetic import dice, ellipsoid, noisy

torch = pytest.importorskip("torch", reason="torch is not installed: scripts/test installs it")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.filterwarnings("ignore"),
]

MODEL = Path(__file__).parents[2] / "tiny_model" / "model"
TRUTH = ellipsoid((96, 128, 128), (48, 64, 64), (12, 15, 14))
IMAGE = noisy(TRUTH, 6, np.random.default_rng(0))
CLICK = Prompt.point(48, 64, 64, foreground=True)


def load_engine(device: str) -> Engine:
    engine = make_engine("nninteractive", EngineOptions(device, ModelSpec(str(MODEL))))
    engine.load(lambda progress: None)
    return engine


def volume() -> Volume:
    return Volume(IMAGE.copy(), Geometry(IMAGE.shape))


def test_masks_equal_those_of_the_cpu() -> None:
    """The Dice is above 0.99; half precision changes single voxels."""
    masks = []
    for device in ("cpu", "cuda"):
        work = load_engine(device).open(volume())
        work.add(CLICK)
        masks.append(work.mask.astype(bool))
    assert dice(masks[1], masks[0]) > 0.99 and dice(masks[1], TRUTH) > 0.95


def test_memory_does_not_grow() -> None:
    """200 prompts and 50 sessions leave no memory behind."""
    engine = load_engine("cuda")
    work = engine.open(volume())
    work.add(CLICK)
    torch.cuda.synchronize()
    before = torch.cuda.memory_reserved()
    for _ in range(200):
        work.add(CLICK)
    work.close()
    for _ in range(50):
        other = engine.open(volume())
        other.add(CLICK)
        other.close()
    torch.cuda.synchronize()
    assert torch.cuda.memory_reserved() <= before + (64 << 20)


HOLDER = """
import sys, torch
free, _ = torch.cuda.mem_get_info()
held = torch.empty(max(0, free - (24 << 20)), dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()
"""


def test_memory_that_another_process_holds() -> None:
    """A prompt is refused and the session stays unchanged; it works again when the memory is free."""
    engine = load_engine("cuda")
    work = engine.open(volume())
    work.add(CLICK)
    before = work.mask.copy()
    torch.cuda.empty_cache()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(Exhausted):
            for _ in range(5):
                work.add(CLICK)
                torch.cuda.empty_cache()
        assert dice(work.mask, before.astype(bool)) > 0.99
    finally:
        holder.communicate("")
    work.reset()
    work.add(CLICK)
    assert dice(work.mask, TRUTH) > 0.95
