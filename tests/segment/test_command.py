"""`dls segment` as a user runs it: on this computer, and at a port that is open."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dls.errors import ConnectError
from dls.remote.progress import Phases, Silent
from dls.segment.local import serving as serving_here
from dls.segment.prompts import Point
from dls.segment.segmenter import Segmenter
from dls.server.http.access import Policy
from tests.support.command_line import run_dls
from tests.support.connect_process import children_of, kill_all
from tests.support.http_server import LiveServer, serving
from tests.support.image_files import (
    CENTER,
    TRUTH,
    VOXELS,
    assert_same_grid,
    load,
    on_grid,
    save,
    save_like,
    save_series,
    voxels_of,
)
from tests.support.itksnap import ItkSnap
from tests.support.processes import is_gone, until
from tests.support.synthetic import dice

Z, Y, X = CENTER
POINT = f"{X},{Y},{Z}"
SECRET = "open-sesame"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with the image in three files, and a DICOM series."""
    for name in ("a.nii.gz", "b.nrrd", "c.mha"):
        save(tmp_path / name)
    save_series(tmp_path / "ct")
    return tmp_path


def segment(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return run_dls("segment", *map(str, arguments), env={**os.environ, **(env or {})})


def at(server: LiveServer) -> tuple[str, str]:
    return "--server", f"http://localhost:{server.port}"


def events(done: subprocess.CompletedProcess[str], name: str) -> list[dict[str, Any]]:
    return [event for event in map(json.loads, done.stdout.splitlines()) if event["event"] == name]


def test_on_this_computer(images: Path, short_folder: Path) -> None:
    """One command makes the mask, a picture and an event; afterwards nothing runs, and nothing else is stored."""
    words = ("--point", POINT, "-o", images / "m.nii.gz", "--png", images / "m.png", "--json")
    done = segment(images / "a.nii.gz", *words, env={"TMPDIR": str(short_folder)})
    assert done.returncode == 0, done.stderr
    mask = voxels_of(images / "m.nii.gz")
    assert dice(mask, TRUTH) > 0.85 and set(np.unique(mask)) == {0, 1}
    assert_same_grid(load(images / "m.nii.gz"), load(images / "a.nii.gz"), 1e-5)
    [event] = events(done, "mask")
    assert event["mask"] == str(images / "m.nii.gz") and event["picture"] == str(images / "m.png")
    assert event["voxels"] == mask.sum() and event["ml"] == pytest.approx(mask.sum() * 0.9 * 0.8 * 2.5 / 1000, abs=1e-3)
    assert [event["phase"] for event in events(done, "phase")] == ["engine", "segment"]
    assert not list(short_folder.glob("dls-segment-*"))
    assert "a.nii.gz" not in done.stderr.replace(str(images / "m.nii.gz"), "")


@pytest.mark.slow
def test_the_server_ends_with_the_command(images: Path, short_folder: Path) -> None:
    """Also where the command is killed, its server and the engine's process end, and the image is removed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dls", "segment", images / "a.nii.gz", "--point", POINT, "-o", images / "m.mha"],
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(short_folder)},
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        until(lambda: children_of(process.pid))
        [server] = children_of(process.pid)
        until(lambda: children_of(server))
        engines = children_of(server)
        process.send_signal(signal.SIGKILL)
        process.wait()
    until(lambda: all(map(is_gone, [server, *engines])))
    assert not list(short_folder.glob("dls-segment-*"))


@pytest.mark.slow
def test_both_systems_of_coordinates(live: LiveServer, images: Path) -> None:
    """Millimetres of ITK (LPS) and of NIfTI (RAS) mean the same voxel, on an oblique grid and in every format."""
    place = np.array(on_grid(VOXELS).TransformIndexToPhysicalPoint((X, Y, Z)))
    masks = []
    for name in ("a.nii.gz", "b.nrrd", "c.mha", "ct"):
        for system, mm in (("--mm", place), ("--ras", place * (-1, -1, 1))):
            point = ",".join(f"{one:.3f}" for one in mm)
            done = segment(images / name, system, f"--point={point}", "-o", images / "m.mha", "--force", *at(live))
            assert done.returncode == 0, done.stderr
            masks.append(voxels_of(images / "m.mha"))
    assert dice(masks[0], TRUTH) > 0.85
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])


def test_prompts_in_their_order(live: LiveServer, images: Path) -> None:
    """Prompts of all kinds are applied in the order of the command line, drawings from label images."""
    stroke, ring = np.zeros_like(TRUTH), np.zeros_like(TRUTH)
    stroke[Z, Y - 4 : Y + 4, X] = True
    rows, columns = np.ogrid[: TRUTH.shape[1], : TRUTH.shape[2]]
    radius = np.hypot((rows - Y) / 8, (columns - X) / 7)
    ring[Z] = (radius <= 1.15) & (radius > 0.95)
    image = images / "a.nii.gz"
    scribble = save_like(images / "scribble.nii.gz", stroke * 3, image)
    lasso = save_like(images / "lasso.nrrd", ring, image)
    words = ["--background", "2,2,2", "--scribble", scribble, "--point", POINT, "--lasso", lasso]
    done = segment(image, *words, "-o", images / "m.nrrd", "--json", *at(live))
    assert done.returncode == 0, done.stderr
    assert dice(voxels_of(images / "m.nrrd"), TRUTH) > 0.85
    assert events(done, "mask")[0]["prompts"] == 4


def test_the_order_of_the_command_line() -> None:
    """The order is that of the options as they stand there, not that of their kinds."""
    import click

    from dls.cli.segment import ORDER, _in_order
    from dls.cli.segment import segment as command

    words = ["--lasso", "l", "--point", "1,2,3", "--background", "4,5,6", "--box=1,2,3,4,5,6", "--point", "7,8,9"]
    context = command.make_context("segment", ["image", "-o", "m.mha", *words])
    assert isinstance(context, click.Context)
    asked = list(_in_order(context.meta[ORDER], context.params))
    assert [(one.kind, one.foreground) for one in asked] == [
        ("lasso", True), ("point", True), ("point", False), ("box", True), ("point", True),
    ]  # fmt: skip
    assert [one.numbers[:1] for one in asked] == [(), (1.0,), (4.0,), (1.0,), (7.0,)]


def test_many_images_in_one_session(images: Path) -> None:
    """Masks go into a folder under the images' names, and the server is asked by one program, image after image."""
    with serving() as server:
        names = ["a.nii.gz", "b.nrrd", "c.mha", "ct"]
        words = ["--point", POINT, "-o", images / "masks", "--png", images / "pictures", "--json", *at(server)]
        done = segment(*(images / name for name in names), *words)
        assert done.returncode == 0, done.stderr
        masks = sorted(path.name for path in (images / "masks").iterdir())
        assert masks == ["a.nii.gz", "b.nrrd", "c.mha", "ct.nii.gz"]
        assert sorted(path.name for path in (images / "pictures").iterdir()) == ["a.png", "b.png", "c.png", "ct.png"]
        assert [Path(event["image"]).name for event in events(done, "mask")] == names
        for name in masks:
            assert dice(voxels_of(images / "masks" / name), TRUTH) > 0.85
        again = segment(*(images / name for name in names), *words)
        assert again.returncode == 22 and "is there already" in again.stderr and "--force" in again.stderr
        (images / "masks" / "b.nrrd").unlink()
        rest = segment(*(images / name for name in names), *words, "--skip-existing", "--force")
        assert rest.returncode == 0 and [Path(event["image"]).name for event in events(rest, "mask")] == ["b.nrrd"]


def test_a_file_of_prompts(live: LiveServer, images: Path) -> None:
    """Each image has its own prompts; named images are those that are segmented."""
    file = images / "prompts.json"
    prompts = {"a.nii.gz": [{"point": [X, Y, Z]}], "b.nrrd": [{"point": [2, 2, 2]}, {"point": [X, Y, Z]}]}
    file.write_text(json.dumps({"images": prompts}))
    assert segment("--prompts", file, "-o", images / "all", *at(live)).returncode == 0
    assert dice(voxels_of(images / "all" / "a.nii.gz"), TRUTH) > 0.85
    assert voxels_of(images / "all" / "b.nrrd")[2, 2, 2] == 1
    one = segment(images / "a.nii.gz", "--prompts", file, "-o", images / "one.mha", *at(live))
    assert one.returncode == 0 and (images / "one.mha").exists()
    for wrong, sentence in (
        ((images / "c.mha", "--prompts", file), "has none for"),
        ((images / "a.nii.gz", "--prompts", file, "--point", POINT), "Leave out one of them"),
    ):
        done = segment(*wrong, "-o", images / "wrong.mha", *at(live))
        assert done.returncode == 22 and sentence in done.stderr


def test_the_secret_of_a_server(images: Path) -> None:
    """It comes from a file, the environment or the address; without it the hint says how, and nothing shows it."""
    with serving(policy=Policy(SECRET)) as server:
        (images / "secret").write_text(f"{SECRET}\n")
        url = f"http://snap:{SECRET}@localhost:{server.port}"
        for number, (words, env) in enumerate(
            [
                ((*at(server), "--secret-file", images / "secret"), None),
                (at(server), {"DLS_SECRET": SECRET}),
                (("--server", url), None),
            ]
        ):
            done = segment(images / "a.nii.gz", "--point", POINT, "-o", images / f"{number}.mha", *words, env=env)
            assert done.returncode == 0 and SECRET not in done.stdout + done.stderr
        done = segment(images / "a.nii.gz", "--point", POINT, "-o", images / "m.mha", *at(server))
        assert done.returncode == 22 and "--secret-file" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("a.nii.gz", "--point", "1,2,99"), 22, "z from 0 to 23 (counted from 0)"),
        (("a.nii.gz", "--point", "1,2"), 22, "has 2 coordinates; the image has 3 axes"),
        (("a.nii.gz", "--point", "one"), 2, "three numbers x,y,z are expected"),
        (("a.nii.gz", "--force"), 22, "Give one point at least"),
        (("--point", POINT), 22, "No image is named"),
        (("a.nii.gz", "--scribble", "empty.nrrd"), 22, "is empty"),
        (
            ("a.nii.gz", "--scribble", "small.nrrd"),
            22,
            "not on the image's grid: it has size 3 x 3 x 3, not 36 x 40 x 24",
        ),
        (("a.nii.gz", "--point", POINT, "--server", "ftp://here"), 10, "http://localhost:8911"),
        (("a.nii.gz", "--point", POINT, "--server", "http://localhost:1"), 11, "Nothing answers at http://localhost:1"),
        (("a.nii.gz", "--point", POINT, "--server", "http://localhost:1", "--host", "h"), 22, "two places"),
        (("a.nii.gz", "nothing.nii", "--point", POINT), 22, "There is no image"),
        (("a.nii.gz", "./a.nii.gz", "--point", POINT), 22, "would be written for both"),
    ],
)
def test_failures_before_anything_starts(images: Path, words: tuple[str, ...], code: int, sentence: str) -> None:
    """Each ends in a sentence, a hint and the documented code, and starts no server."""
    save(images / "small.nrrd", np.ones((3, 3, 3), np.uint8))
    save_like(images / "empty.nrrd", np.zeros_like(TRUTH), images / "a.nii.gz")
    places = {each.name: str(each) for each in images.iterdir()} | {"nothing.nii": str(images / "nothing.nii")}
    done = segment(
        *(places.get(word, word) for word in words),
        "-o",
        images / ("many" if sum(".nii" in word for word in words) > 1 else "m.mha"),
    )
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert "engine" not in done.stderr


def test_a_refusal_of_the_server(images: Path) -> None:
    """A server that has no room for the image says so, and the command ends with that sentence."""
    with serving(budget=10_000) as server:
        done = segment(images / "a.nii.gz", "--point", POINT, "-o", images / "m.mha", *at(server))
    assert done.returncode == 22 and "The server refuses: The image is larger" in done.stderr
    assert not (images / "m.mha").exists()


def test_an_engine_that_can_not_start(images: Path) -> None:
    """The sentence, hint and code are those of `dls serve`."""
    done = segment(images / "a.nii.gz", "--point", POINT, "-o", images / "m.mha", "--engine", "nothing")
    assert done.returncode == 21 and "There is no engine named 'nothing'" in done.stderr
    assert "Hint:" in done.stderr and done.stderr.count("Error:") == 1


def test_an_error_of_the_server_in_the_encoding_of_windows(images: Path) -> None:
    """What the server says arrives whole, though a pipe of Windows has an encoding of its own by default."""
    words = ["segment", f"{images}/a.nii.gz", "--point", POINT, "-o", f"{images}/m.mha", "--engine", "für"]
    done = subprocess.run(
        [sys.executable, "-m", "dls", *words],
        env={**os.environ, "PYTHONIOENCODING": "cp1252"}, capture_output=True, encoding="cp1252", timeout=60,
    )  # fmt: skip
    assert done.returncode == 21 and "named 'für'" in done.stderr


@pytest.mark.parametrize(("module", "words"), [("numpy", ()), ("SimpleITK", ()), ("PIL", ("--png", "m.png"))])
def test_without_the_extra_packages(live: LiveServer, images: Path, module: str, words: tuple[str, ...]) -> None:
    """Where a package is missing, a sentence says so, and how to install it."""
    (images / "without").mkdir()
    (images / "without" / f"{module}.py").write_text(f"raise ImportError(name={module!r})")
    path = os.pathsep.join([str(images / "without"), str(Path(__file__).parents[2])])
    named = [images / word if word == "m.png" else word for word in words]
    done = segment(
        images / "a.nii.gz", "--point", POINT, "-o", images / "m.mha", *named, *at(live), env={"PYTHONPATH": path}
    )
    assert done.returncode == 14 and f'{sys.executable} -m pip install "dls[segment]"' in done.stderr


def test_the_picture(images: Path, live: LiveServer) -> None:
    """Three slices side by side, in grey, with the mask in color where the object is; one for an image of one slice."""
    done = segment(images / "b.nrrd", "--point", POINT, "-o", images / "m.mha", "--png", images / "m.png", *at(live))
    assert done.returncode == 0, done.stderr
    with Image.open(images / "m.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape[1] > 3 * 200
    colored = np.ptp(pixels, axis=2) > 30
    thirds = [part.mean() for part in np.array_split(colored, 3, axis=1)]
    assert all(0.01 < share < 0.5 for share in thirds)


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    """A live server with the region engine."""
    with serving() as server:
        yield server


@pytest.mark.slow
def test_a_server_of_ones_own_at_a_port() -> None:
    """Where there are no Unix sockets, it listens on a loopback port that asks for a secret."""
    with serving_here([], Phases(Silent()), with_port=True) as address:
        assert address.port and address.credentials
        assert ItkSnap(address.port).get("/v2/models").status == 401
        with Segmenter(address) as segmenter:
            assert dice(segmenter.segment(VOXELS, [Point(*CENTER)]), TRUTH) > 0.85
    with pytest.raises(ConnectError):
        Segmenter(address).segment(VOXELS, [Point(*CENTER)])


@pytest.mark.slow
def test_the_server_is_lost(images: Path) -> None:
    """Where the server on this computer is killed, the command ends with a sentence, and leaves nothing behind."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dls", "segment", images / "a.nii.gz", "--point", POINT, "-o", images / "m.mha"],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip
    until(lambda: children_of(process.pid))
    [server] = children_of(process.pid)
    kill_all([server])
    _, said = process.communicate(timeout=60)
    assert process.returncode in (11, 16, 18) and "ended" in said and "Traceback" not in said
    assert not (images / "m.mha").exists()


def test_without_numpy(tmp_path: Path) -> None:
    """A laptop with nothing but dls is told what to install, with prompts on the command line and in a file."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['numpy'] = None\n")
    blocked = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])}
    for prompts in (["--point", "1,2,3"], ["--prompts", "p.json"]):
        done = segment("a.nii.gz", *prompts, "-o", "b.nii.gz", env=blocked)
        assert done.returncode == 14 and 'pip install "dls[segment]"' in done.stderr, done.stderr
