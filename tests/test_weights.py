"""Finding models, and downloading them from a test hub over HTTPS."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dls.hub import read_entries
from dls.weights import ModelSpec, list_local, list_missing, locate
from tests.support import model_hub
from tests.support.processes import until

MODEL, NAME = model_hub.TINY, model_hub.TINY_NAME


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[model_hub.Hub]:
    pytest.importorskip("nnInteractive", reason="nninteractive is not installed: scripts/test installs it")
    with model_hub.running(tmp_path, model_hub.tiny_files()) as hub:
        yield hub


def dls(hub: model_hub.Hub | None, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "NNINTERACTIVE_"))}
    known |= {"HF_ENDPOINT": hub.url if hub else "https://localhost:9", "HF_HUB_DISABLE_XET": "1", **environment}
    return subprocess.run(
        [sys.executable, "-m", "dls", *arguments], capture_output=True, text=True, env=known, timeout=120,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


def test_first_use_and_second(hub: model_hub.Hub, tmp_path: Path) -> None:
    """The first pull downloads the model and shows its licence; the second finds it without any request."""
    root = tmp_path / "models root"
    options = ["-m", str(root), "--ca-bundle", str(hub.certificate)]
    first = dls(hub, "models", "pull", *options)
    assert first.returncode == 0, first.stderr
    folder = root / "models" / NAME
    assert first.stdout.strip() == str(folder) and list_missing(folder) == []
    assert "Licence of the weights" in first.stderr and "cite" in first.stderr
    for path in MODEL.rglob("*.pth"):
        assert (folder / path.relative_to(MODEL)).read_bytes() == path.read_bytes()
    requests = len(hub.requests)
    second = dls(hub, "models", "pull", *options)
    assert second.returncode == 0 and "Licence" not in second.stderr and len(hub.requests) == requests
    assert dls(None, "models", "path", "-m", str(root)).stdout.strip() == str(folder)
    output = dls(hub, "models", "list", *options).stdout
    assert output.strip() == f"{NAME} (default)\t{folder}"


def test_an_interrupted_download_is_completed(hub: model_hub.Hub, tmp_path: Path) -> None:
    """An incomplete model does not count as a model, as it does for nninteractive; the next pull completes it."""
    root = tmp_path / "deep" / "root"
    options = ["-m", str(root), "--ca-bundle", str(hub.certificate)]
    hub.cut_after = 30_000
    first = dls(hub, "models", "pull", *options, HF_HUB_DOWNLOAD_TIMEOUT="2")
    assert first.returncode == 21, first.stderr
    assert "Traceback" not in first.stderr
    assert (root / ".by-dls").read_text() == f"{tmp_path}/deep\n"  # `dls uninstall` removes up to there
    assert locate(ModelSpec(path=root)) is None and list_local(root) == []
    assert [path for path in (root / "models").rglob("*") if path.name == "plans.json"]
    hub.cut_after = None
    second = dls(hub, "models", "pull", *options)
    assert second.returncode == 0, second.stderr
    assert list_missing(root / "models" / NAME) == []
    assert "%|" not in first.stderr + second.stderr  # the library's progress bars


def test_two_downloads_of_one_model_wait_for_each_other(hub: model_hub.Hub, tmp_path: Path) -> None:
    """The second one, of a host with the same home say, takes nothing away from the first, and uses its result."""
    root = tmp_path / "root"
    folder, lock = root / "models" / NAME, root / "models" / f".{NAME}.lock"
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text("of the first one")
    words = [sys.executable, "-m", "dls", "models", "pull", "-m", str(root), "--ca-bundle", str(hub.certificate)]
    known = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    with lock.open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        with subprocess.Popen(words, env=known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as second:
            until(lambda: any(path.endswith("models.json") for _, path, _ in hub.requests))
            until(lambda: has_opened(lock, second.pid))
            assert (folder / "plans.json").read_text() == "of the first one"
            shutil.copytree(MODEL, folder, dirs_exist_ok=True)
            asked = len(hub.requests)
            fcntl.flock(first, fcntl.LOCK_UN)
            output, said = second.communicate(timeout=60)
    assert output.strip() == str(folder) and second.returncode == 0, said
    assert len(hub.requests) == asked


def has_opened(lock: Path, pid: int) -> bool:
    """Whether the process has opened the lock's file."""
    return any(os.path.realpath(entry) == str(lock) for entry in Path(f"/proc/{pid}/fd").glob("*"))


def test_without_torch(hub: model_hub.Hub, tmp_path: Path) -> None:
    """A laptop needs the hub's client only; without that one it is named, with the extra that brings it."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nfor name in ('torch', 'nnInteractive', 'nnunetv2'):\n"
                                              "    sys.modules[name] = None\n")  # fmt: skip
    options = ["-m", str(tmp_path / "root"), "--ca-bundle", str(hub.certificate)]
    for verb in ("list", "pull", "list"):
        done = dls(hub, "models", verb, *options, PYTHONPATH=str(blocked))
        assert done.returncode == 0 and NAME in done.stdout, done.stderr
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['huggingface_hub'] = None\n")
    done = dls(hub, "models", "pull", "-m", str(tmp_path / "b"), PYTHONPATH=str(blocked))
    assert done.returncode == 14 and 'pip install "dls[models]"' in done.stderr


def test_the_list_is_that_of_the_official_library(hub: model_hub.Hub, tmp_path: Path) -> None:
    """What one of the two has listed and downloaded, the other one finds, the same entries and the same default."""
    from nnInteractive import model_management as official

    entries = [
        {"id": f"nnInteractive_{name}", "display_name": name, "path": f"nnInteractive_{name}", **more}
        for name, more in (("a", {}), ("b", {"default": True}), ("c", {"default": True}), ("a", {"extra": 1}))
    ]
    broken = [{"id": "other", "display_name": "x", "path": "nnInteractive_x"}, {"id": 3}, "text", None]
    for found in ([*entries, *broken], entries[:1], entries[1:]):
        manifest = {"schema_version": 1, "models": found}
        assert read_entries(manifest) == official._validate_and_normalize_manifest(manifest)["models"]
    lists: list[Any] = [{}, broken]
    unusable: list[Any] = [[], {}, {"models": []}, *({"schema_version": 1, "models": each} for each in lists)]
    for wrong in unusable:
        for read in (read_entries, official._validate_and_normalize_manifest):
            with pytest.raises((ValueError, KeyError)):
                read(wrong)
    root = tmp_path / "root"
    assert dls(hub, "models", "pull", "-m", str(root), "--ca-bundle", str(hub.certificate)).returncode == 0
    assert official.is_model_downloaded(NAME, root) and official._load_cached_manifest(root)["models"][0]["id"] == NAME


def test_no_option_is_blamed_that_nobody_gave(tmp_path: Path) -> None:
    """`push` and `path` fetch nothing by themselves, and say so without naming --no-network."""
    for words in (["path", "-m", str(tmp_path)], ["push", "no-such-host.invalid"]):
        done = dls(None, "models", *words, NNINTERACTIVE_MODEL_DIR=str(tmp_path))
        assert done.returncode == 21 and "--no-network" not in done.stderr and str(tmp_path) in done.stderr
        assert "dls models pull" in done.stderr


def test_an_untrusted_certificate(hub: model_hub.Hub, tmp_path: Path) -> None:
    """The download is refused with a hint; with -k it runs, with a warning each time."""
    refused = dls(hub, "models", "pull", "-m", str(tmp_path / "a"))
    assert refused.returncode == 21 and "not trusted" in refused.stderr and "--ca-bundle" in refused.stderr
    assert not [method for method, *_ in hub.requests]
    for _ in range(2):
        insecure = dls(hub, "models", "pull", "-k", "-m", str(tmp_path / "a"))
        assert insecure.returncode == 0, insecure.stderr
        assert "Certificates are not checked" in insecure.stderr


def test_without_network_or_hub(hub: model_hub.Hub, tmp_path: Path, own_user_folder: Path) -> None:
    """With --no-network no request is sent; an unreachable hub and an unknown model are errors."""
    options = ("--engine", "nninteractive", "--accept-licence", "--no-network", "-p", "0", "-m", str(tmp_path / "none"))
    offline = dls(hub, "serve", *options)
    assert offline.returncode == 21 and str(tmp_path / "none") in offline.stderr and hub.requests == []
    for verb in ("pull", "list"):
        gone = dls(None, "models", verb, "-m", str(tmp_path / "none"))
        assert gone.returncode == 21 and "can't be fetched" in gone.stderr
    shutil.copytree(MODEL, tmp_path / "here" / "models" / NAME)
    listed = dls(None, "models", "list", "-m", str(tmp_path / "here"))
    assert listed.returncode == 0 and NAME in listed.stdout and "Only models on this computer" in listed.stderr
    unknown = dls(
        hub, "models", "pull", "nnInteractive_none", "-m", str(tmp_path / "b"), "--ca-bundle", str(hub.certificate)
    )
    assert unknown.returncode == 21 and NAME in unknown.stderr


def test_locating_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder comes from the option, the environment or the home; a model is an id, a folder or the only one."""
    monkeypatch.setenv("NNINTERACTIVE_MODEL_DIR", str(tmp_path / "env"))
    assert ModelSpec().root == tmp_path / "env" and ModelSpec(path=tmp_path / "opt").root == tmp_path / "opt"
    monkeypatch.delenv("NNINTERACTIVE_MODEL_DIR")
    assert ModelSpec().root == Path.home() / ".nninteractive"
    spec = ModelSpec(path=tmp_path)
    assert locate(spec) is None
    shutil.copytree(MODEL, tmp_path / "models" / NAME)
    assert locate(spec) == locate(ModelSpec(NAME, tmp_path)) == tmp_path / "models" / NAME
    assert locate(ModelSpec(str(MODEL))) == MODEL and locate(ModelSpec("other", tmp_path)) is None
    (tmp_path / "models.json").write_text("{broken")
    assert locate(spec) == tmp_path / "models" / NAME
