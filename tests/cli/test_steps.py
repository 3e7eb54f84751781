"""What the panel says: the engine and why, and what to do in ITK-SNAP, on terminals of any width."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

import dls
from dls.cli import console, steps
from dls.engine_choice import EngineChoice
from dls.remote.ssh.target import Target

PAGE = "http://localhost:8911/#key=q85u4yjmhggavnq7rq9h95bw"


def text_of(rows: list[steps.Row]) -> list[str]:
    return [" ".join([mark, "".join(text for text, _ in line)]).strip() for mark, line in rows]


def test_the_steps_name_what_itksnap_shows() -> None:
    """The paintbrush, the AI button, where a server is added, the model, the mouse's buttons, and the lasso's tool."""
    told = text_of(steps.whole(("nnInteractive",)))
    assert [line[0] for line in told] == ["1", "2", "3", "4", "5"]
    whole = " ".join(told)
    for word in ("paintbrush", "AI button", steps.PREFERENCES, "model nnInteractive.", "left", "right"):
        assert word in whole, word
    assert "polygon" in told[4] and "--stand-in" not in whole


@pytest.mark.parametrize(
    ("server", "model", "lasso"),
    [
        (dls.ServerOptions("nninteractive"), "nnInteractive", "draw the outline"),
        (dls.ServerOptions("region"), "region", "--stand-in lists region under that name"),
        (dls.ServerOptions("region", stand_in=True), "nnInteractive", "draw the outline"),
    ],
)
def test_the_model_to_choose(server: dls.ServerOptions, model: str, lasso: str) -> None:
    """The one with a lasso; where there is none, the last step says that the lasso asks for `nnInteractive`."""
    told = text_of(steps.whole(server.models))
    assert told[2] == f"3 Choose the model {model}." and lasso in told[4]
    [line] = text_of(steps.brief(server.models))
    assert f"model {model}" in line and "--steps" in line


def test_which_engine_and_why() -> None:
    """A choice that dls made has its reason, and the command for the other engine; one of the user's has neither."""
    command = "dls connect -F /c ann@gpu"
    chosen = text_of(steps.engine_lines(EngineChoice("region", "region: no GPU"), "region", "cpu", command))
    assert chosen == ["region: no GPU", "The other engine: dls connect --engine nninteractive -F /c ann@gpu"]
    other = text_of(
        steps.engine_lines(EngineChoice("nninteractive", "nnInteractive on A100"), "nnInteractive", "x", command)
    )
    assert other == ["nnInteractive on A100", "The other engine: dls connect --engine region -F /c ann@gpu"]
    assert text_of(steps.engine_lines(EngineChoice("region"), "region", "cpu", command)) == ["region on cpu"]


def shown(width: int, *, has_steps: bool, **options: Any) -> str:
    output = io.StringIO()
    session = SimpleNamespace(
        connection=SimpleNamespace(target=Target("gpu", "gpu", 22, "ann")),
        state=SimpleNamespace(engine="region", device="cpu", log="/log"),
        report=SimpleNamespace(gpus=()), login=dls.LoginOptions(), target="gpu", server_field="localhost", port=8911,
        local_secret=None, serves_viewers=True, job=None, page_url=PAGE,
        choice=EngineChoice("region", "region: the host has no GPU with 6 GB free memory"), models=("region",),
    )  # fmt: skip
    made = Console(file=output, width=width, soft_wrap=True, highlight=False, **options)
    console.show_session(made, cast(Any, session), has_steps=has_steps)
    return output.getvalue()


@pytest.mark.parametrize("width", [120, 80, 60, 40])
@pytest.mark.parametrize("has_steps", [True, False])
def test_no_line_is_cut(width: int, has_steps: bool) -> None:
    """Whatever the width: each line is folded, its words are whole, and a step's second line begins below its first."""
    lines = shown(width, has_steps=has_steps).splitlines()
    assert max(map(len, lines)) <= width
    words = " ".join(line.strip("│ ") for line in lines).split()
    told = [*text_of(steps.whole(("region",)) if has_steps else steps.brief(("region",)))]
    assert " ".join(word for line in told for word in line.split()) in " ".join(words)
    assert all(
        word in words
        for word in ["nnInteractive", "server", "with", "requests", "and", "the", "log,", "in", "a", "browser:"]
    )
    assert width < 60 or any(PAGE in line for line in lines)
    assert PAGE in "".join(words)
    if has_steps and width <= 60:
        first = next(line for line in lines if " 1  Open" in line)
        assert lines[lines.index(first) + 1].index(lines[lines.index(first) + 1].strip("│ ")[0]) == first.index("Open")


def test_in_a_log_file_and_on_a_dumb_terminal() -> None:
    """There are no escape sequences, and the same words."""
    plain = shown(80, has_steps=True, force_terminal=False)
    dumb = shown(80, has_steps=True, force_terminal=True, _environ={"TERM": "dumb"})
    assert plain == dumb and "\x1b" not in plain
