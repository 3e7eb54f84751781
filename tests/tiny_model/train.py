"""Train a tiny nnInteractive network on the CPU, on synthetic shapes, and write it as a real model folder.

Every input of the network is made by the real inference session (prompts given with `run_prediction=False`, then
`_build_network_input`), so the encoding of prompts is that of inference by construction.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnInteractive.inference.inference_session import nnInteractiveInferenceSession
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from scipy import ndimage
from torch.nn import functional

from tests.support.synthetic import deepest
from tests.tiny_model.images import phantom

PATCH = 80
"""The library's refinement has a margin of 24 voxels a side, so a patch must be larger than 48."""
FEATURES = [6, 16, 24, 32, 32]
CONFIGURATION = "3d_fullres"
CAPABILITY = {
    "inference_class": "nnInteractiveInferenceSession",
    "inference_class_min_version": "2.0.0",
    "point_radius": 4,
    "preferred_scribble_thickness": [2, 2, 2],
    "interaction_decay": 0.98,
    "pad_mode_image": "constant",
    "supported_interactions": {"points": True, "scribble": True, "lasso": True, "bbox2d": True, "bbox3d": False},
    "supports_initial_label": True,
    "supports_zero_shot_label_refinement": True,
    "interaction_channels": 6,
    "channel_mapping": {
        "prev_seg": 0, "bbox2d": [1, 2], "bbox3d": [1, 2], "lasso": [1, 2], "points": [3, 4], "scribble": [5, 6],
    },
}  # fmt: skip


def architecture() -> dict[str, Any]:
    """Return the description of a plain U-Net, whose 1 x 1 x 1 convolutions at full resolution are fast on a CPU."""
    count = len(FEATURES)
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": count,
            "features_per_stage": FEATURES,
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[1, 1, 1]] + [[3, 3, 3]] * (count - 1),
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (count - 1),
            "n_conv_per_stage": [1, 1] + [2] * (count - 2),
            "n_conv_per_stage_decoder": [1] * (count - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def plans() -> dict[str, Any]:
    """Return the content of plans.json, which nnU-Net needs to build the network."""
    return {
        "dataset_name": "Dataset999_TinyPhantoms",
        "plans_name": "nnUNetPlans_tiny",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [96, 128, 128],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "configurations": {
            CONFIGURATION: {
                "data_identifier": "nnUNetPlans_tiny_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": [PATCH] * 3,
                "median_image_size_in_voxels": [96.0, 128.0, 128.0],
                "spacing": [1.0, 1.0, 1.0],
                "normalization_schemes": ["ZScoreNormalization"],
                "use_mask_for_norm": [False],
                "architecture": architecture(),
                "batch_dice": False,
            }
        },
    }


def build() -> torch.nn.Module:
    """Return the network; inputs are the image and 7 channels of prompts, outputs are background and object."""
    shape = architecture()
    names = (shape["network_class_name"], shape["arch_kwargs"], shape["_kw_requires_import"])
    network: torch.nn.Module = get_network_from_plans(
        *names, input_channels=8, output_channels=2, allow_init=True, deep_supervision=False
    )
    return network


def write(folder: Path, network: torch.nn.Module) -> None:
    """Write the model folder; tensors that the network holds twice are written once."""
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    dataset = {"channel_names": {"0": "image"}, "labels": {"background": 0, "object": 1}, "numTraining": 0}
    texts = {
        "plans.json": plans(),
        "dataset.json": {**dataset, "file_ending": ".nii.gz"},
        "inference_info.json": CAPABILITY,
    }
    for name, value in texts.items():
        (folder / name).write_text(json.dumps(value, indent=1))
    (folder / "LICENSE").write_text("CC0-1.0\n")
    shared: dict[tuple[int, torch.Size], torch.Tensor] = {}
    state = network.state_dict()
    weights = {name: shared.setdefault((t.data_ptr(), t.shape), t.half().clone()) for name, t in state.items()}
    about = {"configuration": CONFIGURATION, "fold": 0}
    checkpoint = {"network_weights": weights, "trainer_name": "nnInteractiveTrainer_stub", "init_args": about}
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")


class Samples:
    """Makes pairs of network input and truth, with the real session."""

    def __init__(self, folder: Path, pool: list[tuple[np.ndarray, np.ndarray]]) -> None:
        self._pool = pool
        self._rng = np.random.default_rng(1)
        self._session = nnInteractiveInferenceSession(
            device=torch.device("cpu"), torch_n_threads=2, enable_undo=False, interactions_storage="tensor"
        )
        self._session.initialize_from_trained_model_folder(str(folder))

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the input (8, z, y, x) and the true mask (z, y, x) of a patch."""
        rng, session = self._rng, self._session
        image, labels = self._pool[rng.integers(len(self._pool))]
        order = rng.permutation(3)
        image, labels = np.ascontiguousarray(image.transpose(order)), np.ascontiguousarray(labels.transpose(order))
        truth = labels == rng.integers(1, int(labels.max()) + 1)
        session.preprocessed_image = torch.from_numpy(image if rng.random() < 0.5 else -image)[None]
        session.original_image_shape = (1, *image.shape)
        session._initialize_interactions(session.preprocessed_image)
        session.current_interaction_intensity = 1.0
        session.new_interaction_centers, session.new_interaction_zoom_out_factors = [], []
        previous = session._get_prev_seg_channel()
        kind = rng.random()
        if kind < 0.15:  # a background prompt alone: the mask must stay empty
            self._prompt(truth, False)
            truth = np.zeros_like(truth)
        elif kind < 0.3:  # the mask holds the object and a neighbour; a prompt removes the neighbour
            other = (labels > 0) & ~truth
            session.interactions[previous] = torch.from_numpy(truth | other).half()
            self._prompt(truth, True)
            if other.any():
                self._prompt(other, False)
        elif kind < 0.55:  # a rough mask, and a prompt that corrects it
            rough = ndimage.binary_erosion(truth, iterations=int(rng.integers(1, 4))) | self._leak(truth)
            session.interactions[previous] = torch.from_numpy(rough).half()
            missed, leaked = truth & ~rough, rough & ~truth
            more = missed.sum() >= leaked.sum()
            self._prompt(missed if more else leaked, bool(more), point=True)
        else:
            self._prompt(truth, True)
        center, zoom = session.new_interaction_centers[-1], session.new_interaction_zoom_out_factors[-1]
        if 0.55 <= kind < 0.65:
            zoom = max(zoom, 1.5)
        built, _, box, _ = session._build_network_input(center, min(4.0, zoom))
        return built, self._crop(truth, box)

    def _leak(self, truth: np.ndarray) -> np.ndarray:
        place = np.argwhere(truth)[self._rng.integers(int(truth.sum()))]
        grid = np.ogrid[tuple(slice(0, side) for side in truth.shape)]
        ball: np.ndarray = (
            sum((axis - at) ** 2 for axis, at in zip(grid, place, strict=True)) < self._rng.uniform(5, 12) ** 2
        )
        return ball

    def _prompt(self, mask: np.ndarray, foreground: bool, *, point: bool = False) -> None:
        rng, session = self._rng, self._session
        kind = "point" if point else rng.choice(["point", "scribble", "lasso"], p=[0.45, 0.28, 0.27])
        inside = np.argwhere(mask)
        if kind == "point" or mask.sum() < 50:
            z, y, x = deepest(mask, (1, 1, 1)) if rng.random() < 0.3 else inside[rng.integers(len(inside))]
            session.add_point_interaction([int(z), int(y), int(x)], foreground, run_prediction=False)
            return
        z = int(rng.choice(np.unique(inside[:, 0])))
        section = mask[z]
        drawn = (
            ndimage.binary_dilation(section, iterations=int(rng.integers(0, 3)))
            if kind == "lasso"
            else stroke(rng, section)
        )
        rows, columns = (np.flatnonzero(drawn.any(axis)) for axis in (1, 0))
        bounds = [[z, z + 1], [int(rows[0]), int(rows[-1]) + 1], [int(columns[0]), int(columns[-1]) + 1]]
        crop = drawn[bounds[1][0] : bounds[1][1], bounds[2][0] : bounds[2][1]][None].astype(np.uint8)
        add = session.add_scribble_interaction if kind == "scribble" else session.add_lasso_interaction
        add(crop, foreground, run_prediction=False, interaction_bbox=bounds)

    def _crop(self, truth: np.ndarray, box: list[list[int]]) -> torch.Tensor:
        from nnInteractive.utils.crop import crop_to_valid, pad_cropped

        crop, pad = crop_to_valid(torch.from_numpy(truth)[None], box)
        whole = pad_cropped(crop.float(), pad)[None]
        return (functional.interpolate(whole, [PATCH] * 3, mode="area")[0, 0] >= 0.5).long()


def stroke(rng: np.random.Generator, section: np.ndarray) -> np.ndarray:
    """Return a line, two voxels thick, between two voxels well inside a section."""
    depth = ndimage.distance_transform_edt(np.pad(section, 1))[1:-1, 1:-1]
    ends = np.argwhere(depth >= max(1.0, 0.3 * depth.max()))
    first, last = ends[rng.integers(len(ends), size=2)]
    drawn = np.zeros_like(section)
    for at in np.linspace(0, 1, 2 * int(np.abs(last - first).max()) + 1):
        row, column = np.round(first + at * (last - first)).astype(int)
        drawn[row : row + 2, column : column + 2] = True
    return drawn


def loss(out: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the sum of cross entropy and Dice loss."""
    likely = out.softmax(1)[:, 1]
    wanted = (truth == 1).float()
    both, sizes = (likely * wanted).sum((1, 2, 3)), likely.sum((1, 2, 3)) + wanted.sum((1, 2, 3))
    dice: torch.Tensor = 1 - ((2 * both + 50) / (sizes + 50)).mean()
    return functional.cross_entropy(out, truth) + dice


def main() -> None:
    """Train for the given number of minutes and write the model folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=27)
    parser.add_argument("--pool", type=int, default=80)
    parser.add_argument("--init", type=Path, help="continue from this model folder")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    network = build()
    if chosen.init:
        state = torch.load(chosen.init / "fold_0" / "checkpoint_final.pth", weights_only=False)["network_weights"]
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    write(chosen.out, network)
    pool = []
    for seed in range(chosen.pool):
        image, labels = phantom(seed)
        pool.append((((image - image.mean()) / image.std()).astype(np.float32), labels))
    with contextlib.redirect_stdout(io.StringIO()):
        samples = Samples(chosen.out, pool)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-4)
    started, losses = time.monotonic(), list[float]()
    while (share := (time.monotonic() - started) / (60 * chosen.minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, (len(losses) + 1) / 50) * (0.5 * (1 + math.cos(math.pi * share)) + 0.005)
        with contextlib.redirect_stdout(io.StringIO()):
            built, truth = samples.draw()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = network(built[None])
        value = loss(out.float(), truth[None])
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        losses.append(float(value.detach()))
        if len(losses) % 20 == 0:
            print(
                f"step {len(losses)}, {time.monotonic() - started:.0f} s, loss {np.mean(losses[-20:]):.3f}", flush=True
            )
    write(chosen.out, network)


if __name__ == "__main__":
    main()
