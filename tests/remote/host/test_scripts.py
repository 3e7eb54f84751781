"""The shell scripts, and how values reach them."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from dls.contract import ServerState
from dls.gpus import Gpu
from dls.remote.cluster import slurm
from dls.remote.cluster.options import ClusterOptions
from dls.remote.host import host_models, install, launch, probe, push_model, reach, stored_sessions, uninstall
from dls.remote.host.options import ServerOptions
from dls.remote.host.packages import Code, Requirements
from dls.remote.host.probe import HostReport
from dls.remote.host.scripts import render
from dls.remote.host.send_files import SentFile
from dls.remote.parcel import send
from dls.remote.parcel.format import Manifest, PackedFile

PLAN = install.InstallPlan(
    environment="/h/env/e", code="/h/code/c", make_environment=True, send_code=True,
    requirements=Requirements(("six",), 1), run_dir="/h/run", remote_key="k", root="/h",
)  # fmt: skip
STATE = ServerState(
    pid=7, secret="s", code="c", request="r", socket="/s", port=None, engine="region", device="cpu", log="/l",
    run_dir="/h/run/k",
)  # fmt: skip
REPORT = HostReport(
    system="Linux", machine="x86_64", libc="", hostname="h", home="/h", uid=1, root="/h/.dls", run_dir="/h/run",
    remote_key="k", filesystem="", free_mib=1,
)  # fmt: skip
FILES = [SentFile("it's.pth", 3, "0" * 64)]
PARCEL = Manifest("1", "region", "k", "linux-x86_64", "3.11", "", 17, 1, (PackedFile("uv/uv.gz", 3, "0" * 64),))
SCRIPTS = {
    "begin_parcel": send.begin_script("/r", "/r/parcels/k", PARCEL.files),
    "begin_push": push_model.begin_script("~/models", "my model", FILES),
    "finish_push": push_model.finish_script("/m/model", "/m/part", FILES),
    "find_model": host_models.find_script(ServerOptions(models_path="~/models", model="m")),
    "fetch_model": render("fetch_model", "private", RUN="/h/run", PYTHON="/p", CODE="/c", PROGRAM="pass", SPEC="{}"),
    "inner_server": "READY=r\n" + render("inner_server", HOST_KEY="k", CLIENT_KEY="k", PYTHON="/p", PROGRAM="pass"),
    "inner_sshd": "READY=r\n" + render("inner_sshd", "sshd", HOST_KEY="k", CLIENT_KEY="k"),
    "job": slurm.batch_script("/h"),
    "kill": launch.kill_script(STATE),
    "launch": launch.launch_script(
        PLAN, launch.launch_file(ServerOptions(), PLAN, "c", "/l", STATE), Gpu(1, "A100", 1, 1, "550")
    ),
    "list_sessions": stored_sessions.list_script(["/a", "/b"]),
    "open_parcel": send.open_script("/r", "/r/parcels/k", PARCEL, PARCEL.files),
    "remove_parcel": render("remove_parcel", "trusted", ROOT="/r", FOLDER="/r/parcels/k"),
    "newest_log": render("newest_log", FOLDER="/h/log"),
    "log": launch.log_script("/l", 20, follow=True),
    "make_environment": install.environment_script(PLAN, own_caches=True),
    "mark_incomplete": render("mark_incomplete", "trusted", ROOT="/r", ENVIRONMENT="/e", CODE="/c"),
    "offer_socket": render("offer_socket", PYTHON="/p", LIMIT=1),
    "reach_out": reach.reach_script(REPORT, PLAN, ServerOptions(engine="nninteractive"), "https://index/simple"),
    "prepare_uv": render("prepare_uv", "trusted", ROOT="/r"),
    "receive_uv": render("receive_uv", "trusted", ROOT="/r", PART="/r/uv/bin/p", ARCHIVE="eA==", DIGEST="0"),
    "ours": uninstall.script(REPORT, uninstall.Removal(models=True), "list"),
    "probe": probe.script("~/.dls", probe.Depth.ALL),
    "reach": "READY=r\n" + render("reach", ADDRESS="node", PORT=1),
    "remove_sessions": render("remove_sessions", arguments=["/a/1"]),
    "send_code": install.code_script(PLAN, b"PK"),
    "slurm_cancel": slurm.cancel_script(["1"], 1),
    "slurm_look": slurm.look_script("/h"),
    "job_in_use": slurm.in_use_script("/h", "7"),
    "slurm_submit": slurm.submit_script("/h", ClusterOptions(), "ssh-ed25519 AAAA"),
    "stop": launch.stop_script(STATE),
    "use_loan": render("use_loan", arguments=["A"], LOAN_SET="A=1", LOAN_UNSET="B", LOAN_CERTIFICATES="PEM"),
    "use_slurm": render("use_slurm", "slurm"),
    "wake": launch.wake_script(STATE),
}
"""Every script as it goes to a host."""
LIBRARIES = {
    "checksums", "end_server", "gpus", "lock", "paths", "private", "process", "scheduler", "sharing", "sizes", "slurm",
    "slurm_jobs", "sshd", "storage", "temporary", "trusted",
}  # fmt: skip
OF_THE_HOST = {
    "DLS_JOB",
    "SLURM_CLUSTER_NAME",
    "SLURM_CONF",
    "SLURM_JOB_ID",
    "SLURMD_NODENAME",
    "HF_ENDPOINT",
    "HOME",
    "NNINTERACTIVE_MODEL_DIR",
    "PATH",
    "TMPDIR",
    "ALL_PROXY",
    "HTTPS_PROXY",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_INDEX",
    "UV_INDEX_URL",
}
"""Variables of the host's environment that scripts read."""
FOLDER = resources.files("dls.remote.host.scripts")
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


def run(shell: str, script: str) -> str:
    words = [shell, "sh"] if shell == "busybox" else [shell]
    return subprocess.run([*words, "-s"], input=script, capture_output=True, text=True, check=True).stdout


def test_every_file_is_a_script_or_a_library() -> None:
    """A new script has to be added here, so that the other tests see it."""
    files = {path.name.removesuffix(".sh") for path in FOLDER.iterdir() if path.name.endswith(".sh")}
    assert files == LIBRARIES | set(SCRIPTS)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_valid(shell: str, name: str) -> None:
    """Each shell reads the script, between the braces that the connection puts around it, without a syntax error."""
    words = [shell, "sh"] if shell == "busybox" else [shell]
    done = subprocess.run([*words, "-n"], input=f"{{ (\n{SCRIPTS[name]}\n)\n}}\n", capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_all_values_and_functions(name: str) -> None:
    """Every upper-case variable is set in the script, and every function of a library comes with it."""
    text = re.sub(r"(?m)^\s*#.*$", "", SCRIPTS[name])
    used = set(re.findall(r"\$\{?([A-Z][A-Z0-9_]*)", text))
    assigned = set(re.findall(r"\b([A-Z][A-Z0-9_]*)=", text))
    assert used <= assigned | OF_THE_HOST
    for library in LIBRARIES:
        functions = re.findall(r"(?m)^(\w+)\(\)", FOLDER.joinpath(f"{library}.sh").read_text())
        assert functions
        for function in functions:
            assert f"{function}()" in text or not re.search(rf"(?<![\w.]){function}\b", text), function


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("value", ["it's", "$(touch x) `id` $HOME", "a\nb\\n\\", 'say "hi"; exit 3', "", "-n", "~"])
def test_values_arrive_as_they_are(shell: str, value: str) -> None:
    """Nothing in a value or an argument is run or changed."""
    echo = 'printf \'%s|\' "$VALUE" "$#" "$@"'
    script = render("paths", arguments=[value, "x"], VALUE=value) + echo
    assert run(shell, script) == f"{value}|2|{value}|x|"


def test_names_of_values_are_checked() -> None:
    """A name that is no upper-case variable could be anything for the shell."""
    for name in ("value", "A B", "A=1;B", "1A", ""):
        with pytest.raises(ValueError, match="no name of a value"):
            render("paths", **{name: "x"})


def test_scripts_do_not_travel_as_files() -> None:
    """The archive for the host holds Python files only."""
    assert all(name.endswith(".py") for name, _ in Code.installed().files)


@pytest.mark.parametrize("shell", SHELLS)
def test_directories_are_made_private(shell: str, short_folder: Path) -> None:
    """Below /tmp/dls-… every directory is private; elsewhere only the one that was named."""
    named = short_folder / "a" / "b"
    run(shell, render("private") + f"umask 022\nmake_private {named}")
    assert [path.stat().st_mode & 0o777 for path in (short_folder, named.parent, named)] == [0o700] * 3
    elsewhere = Path("/var/tmp") / short_folder.name
    try:
        run(shell, render("private") + f"umask 022\nmake_private {elsewhere}/a/b")
        assert [path.stat().st_mode & 0o777 for path in (elsewhere / "a", elsewhere / "a" / "b")] == [0o755, 0o700]
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)
