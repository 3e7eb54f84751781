"""Where models lie, and how they are fetched: from a hub of our own, over HTTPS."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dls.weights import ModelSpec, here, locate, missing
from tests.support import model_hub as hubs

MODEL = Path(__file__).parent / "tiny_model" / "model"
NAME = "nnInteractive_tiny"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[hubs.Hub]:
    pytest.importorskip("nnInteractive", reason="nninteractive is not installed: scripts/test installs it")
    manifest = {"schema_version": 1, "models": [{"id": NAME, "display_name": "Tiny", "path": NAME, "default": True}]}
    files = {"models.json": json.dumps(manifest).encode()}
    for path in MODEL.rglob("*"):
        if path.is_file():
            files[f"{NAME}/{path.relative_to(MODEL).as_posix()}"] = path.read_bytes()
    with hubs.running(tmp_path, files) as running:
        yield running


def dls(hub: hubs.Hub | None, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "NNINTERACTIVE_"))}
    known |= {"HF_ENDPOINT": hub.url if hub else "https://localhost:9", "HF_HUB_DISABLE_XET": "1", **environment}
    return subprocess.run(
        [sys.executable, "-m", "dls", *arguments], capture_output=True, text=True, env=known, timeout=120,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


def test_first_use_and_second(hub: hubs.Hub, tmp_path: Path) -> None:
    """Fetched, checked, licence and citation shown once; then found without asking anybody."""
    root = tmp_path / "models root"
    options = ["-m", str(root), "--ca-bundle", str(hub.certificate)]
    first = dls(hub, "models", "pull", *options)
    assert first.returncode == 0, first.stderr
    folder = root / "models" / NAME
    assert first.stdout.strip() == str(folder) and missing(folder) == []
    assert "Licence of the weights" in first.stderr and "cite" in first.stderr
    for path in MODEL.rglob("*.pth"):
        assert (folder / path.relative_to(MODEL)).read_bytes() == path.read_bytes()
    asked = len(hub.asked)
    second = dls(hub, "models", "pull", *options)
    assert second.returncode == 0 and "Licence" not in second.stderr and len(hub.asked) == asked
    assert dls(None, "models", "path", "-m", str(root)).stdout.strip() == str(folder)
    listed = dls(hub, "models", "list", *options).stdout
    assert listed.strip() == f"{NAME} (default)\t{folder}"


def test_a_download_that_was_cut_off(hub: hubs.Hub, tmp_path: Path) -> None:
    """Never taken for complete, as nninteractive itself would do; the next one brings what is missing."""
    root = tmp_path / "root"
    options = ["-m", str(root), "--ca-bundle", str(hub.certificate)]
    hub.cut_after = 30_000
    first = dls(hub, "models", "pull", *options, HF_HUB_DOWNLOAD_TIMEOUT="2")
    assert first.returncode == 21, first.stderr
    assert "Traceback" not in first.stderr
    assert locate(ModelSpec(path=root)) is None and here(root) == []
    assert [path for path in (root / "models").rglob("*") if path.name == "plans.json"]
    hub.cut_after = None
    second = dls(hub, "models", "pull", *options)
    assert second.returncode == 0, second.stderr
    assert missing(root / "models" / NAME) == []
    assert "%|" not in first.stderr + second.stderr  # the library's own bars


def test_a_certificate_that_is_not_trusted(hub: hubs.Hub, tmp_path: Path) -> None:
    """Refused, with the better way and the worse; -k fetches all the same and says so each time."""
    refused = dls(hub, "models", "pull", "-m", str(tmp_path / "a"))
    assert refused.returncode == 21 and "not trusted" in refused.stderr and "--ca-bundle" in refused.stderr
    assert not [method for method, *_ in hub.asked]
    for _ in range(2):
        insecure = dls(hub, "models", "pull", "-k", "-m", str(tmp_path / "a"))
        assert insecure.returncode == 0, insecure.stderr
        assert "Certificates are not checked" in insecure.stderr


def test_no_network_and_no_hub(hub: hubs.Hub, tmp_path: Path) -> None:
    """Offline never opens a connection; a hub that is not there is said without its retries."""
    offline = dls(hub, "serve", "--engine", "nninteractive", "--no-network", "-m", str(tmp_path / "none"))
    assert offline.returncode == 21 and str(tmp_path / "none") in offline.stderr and hub.asked == []
    gone = dls(None, "models", "pull", "-m", str(tmp_path / "none"))
    assert gone.returncode == 21 and "can't be fetched" in gone.stderr
    unknown = dls(
        hub, "models", "pull", "nnInteractive_none", "-m", str(tmp_path / "b"), "--ca-bundle", str(hub.certificate)
    )
    assert unknown.returncode == 21 and NAME in unknown.stderr


def test_where_models_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option, the environment, the home; an id, a folder, the only one there is."""
    monkeypatch.setenv("NNINTERACTIVE_MODEL_DIR", str(tmp_path / "env"))
    assert ModelSpec().root == tmp_path / "env" and ModelSpec(path=tmp_path / "opt").root == tmp_path / "opt"
    monkeypatch.delenv("NNINTERACTIVE_MODEL_DIR")
    assert ModelSpec().root == Path.home() / ".nninteractive"
    wish = ModelSpec(path=tmp_path)
    assert locate(wish) is None
    shutil.copytree(MODEL, tmp_path / "models" / NAME)
    assert locate(wish) == locate(ModelSpec(NAME, tmp_path)) == tmp_path / "models" / NAME
    assert locate(ModelSpec(str(MODEL))) == MODEL and locate(ModelSpec("other", tmp_path)) is None
    (tmp_path / "models.json").write_text("{broken")
    assert locate(wish) == tmp_path / "models" / NAME
